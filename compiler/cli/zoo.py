"""`rekern zoo`: the recurrences that come with rekern.

In: the zoo. Out: a table: name, paper, operands, kinds of the states.
"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from rekern.analysis.facts import Facts, facts
from rekern.analysis.kinds import Affine, Dense, Kind, MaxPlus
from rekern.cli.console import table, write, write_json
from rekern.cli.specs import find
from rekern.spec import Recurrence
from rekern.zoo import ALIASES, names


def zoo(as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False) -> None:
    """List the recurrences that come with rekern, each with its paper."""
    specs = [find(name) for name in names()]
    rows = [(s.name, paper(s), operands(s), kinds(facts(s))) for s in specs]
    if as_json:
        also = {n: sorted(a for a, name in ALIASES.items() if name == n) for n in names()}
        fields = ("name", "paper", "operands", "kind")
        write_json([{**dict(zip(fields, row)), "also": also[row[0]]} for row in rows])
        return
    table(("name", "paper", "operands", "kind of state"), rows, keep=("name",))
    write(f"\nalso: {', '.join(f'{a} = {name}' for a, name in sorted(ALIASES.items()))}")
    write("rekern show NAME tells more.")


def paper(spec: Recurrence) -> str:
    """The first sentence of the docstring, without its full stop.

    >>> from rekern.zoo import load
    >>> paper(load("elman"))
    'Elman 1990, "Finding Structure in Time"'
    """
    first = " ".join(spec.doc.split("\n\n")[0].split())
    sentence = re.split(r"(?<!\bal)(?<!\beq)\.\s", first)[0]
    return sentence.removesuffix(".")


def operands(spec: Recurrence) -> str:
    """Inputs and parameters with their axes; parameters after a semicolon.

    >>> from rekern.zoo import load
    >>> operands(load("elman"))
    'x(D); R(D D) b(D)'
    """
    groups = (
        " ".join(f"{o.name}({' '.join(map(str, o.dims))})" for o in spec.of_kind(kind))
        for kind in ("input", "param")
    )
    return "; ".join(filter(None, groups))


def kinds(known: Facts) -> str:
    """The kind of the states in a word or two each.

    >>> from rekern.zoo import load
    >>> kinds(facts(load("mlstm")))
    'm max-plus; C affine matrix; n affine'
    """
    found: dict[str, list[str]] = {}
    for stage in known.stages:
        found.setdefault(_word(stage.kind), []).extend(stage.stage.states)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{' '.join(states)} {word}" for word, states in found.items())


def _word(kind: Kind) -> str:
    match kind:
        case Affine(transitions):
            low_rank = any(t.low_rank for t in transitions)
            matrix = len(transitions[0].axes) > 1
            return f"affine{' matrix' if matrix else ''}{', low rank' if low_rank else ''}"
        case MaxPlus():
            return "max-plus"
        case Dense():
            return "dense"
        case _:
            return "pointwise"
