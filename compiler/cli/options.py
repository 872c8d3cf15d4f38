"""Options that several commands share, and what they mean.

In: what was typed. Out: a spec and lengths; or a usage error that quotes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from rekern.cli.specs import find, lengths
from rekern.spec import Recurrence

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="A name of the zoo, or path/to/file.py:name.")]
SizeOption = Annotated[
    list[str] | None, typer.Option("--size", metavar="AXIS=LENGTH", help="Length of an axis, as in K=64; repeat it.")
]
BindOption = Annotated[
    list[str] | None,
    typer.Option("--bind", metavar="AXIS=LENGTH", help="Make an axis literal, as spec.bind does; repeat it."),
]
BatchOption = Annotated[int | None, typer.Option("--batch", min=1, help="Sequences, B.")]
TimeOption = Annotated[int | None, typer.Option("--time", min=1, help="Steps, T.")]
HeadsOption = Annotated[int | None, typer.Option("--heads", min=1, help="Heads, H.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON value, and nothing else, on stdout.")]


def spec_of(
    name: str, size: Sequence[str] | None, bind: Sequence[str] | None
) -> tuple[Recurrence, dict[str, int]]:
    """The spec of this name, and the lengths given for its axes.

    Raises:
        typer.BadParameter: a pair is not AXIS=LENGTH.
        SpecError: there is no such spec or axis.
    """
    spec = find(name, _pairs(bind, "--bind"))
    given = _pairs(size, "--size", spec)
    assert spec.step  # a body that cannot be read fails here, before anything is printed
    return spec, given


def _pairs(pairs: Sequence[str] | None, option: str, spec: Recurrence | None = None) -> dict[str, int]:
    try:
        return lengths(pairs or (), spec)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
