"""Published recurrences, one short spec each, with its paper cited.

In: a name. Out: a `Recurrence`: `zoo.gla`, or `zoo.load("gla")` where the name comes as text. A new spec in
one of the modules imported here is found by itself.
"""

from __future__ import annotations

import difflib

from rekern.errors import SpecError
from rekern.spec import Recurrence
from rekern.zoo import delta, linear, rnn, ssm

ALIASES = {
    "hgrn2": "gla",
    "lightning_attention": "retention",
    "mamba": "selective_scan",
    "mamba2": "simple_gla",
    "ssd": "simple_gla",
}

_SPECS: dict[str, Recurrence] = {
    name: value
    for module in (rnn, ssm, linear, delta)
    for name, value in vars(module).items()
    if isinstance(value, Recurrence)
}

globals().update(_SPECS)

__all__ = ["load", "names", *_SPECS]


def names() -> tuple[str, ...]:
    """The name of every recurrence of the zoo, family by family; without aliases."""
    return tuple(_SPECS)


def load(name: str) -> Recurrence:
    """The recurrence of this name, or of this other name in the literature.

    >>> load("mamba2").name
    'simple_gla'

    Raises:
        SpecError: the zoo has no such name.
    """
    found = _SPECS.get(ALIASES.get(name, name))
    if found is None:
        close = difflib.get_close_matches(name, [*_SPECS, *ALIASES], n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?\n" if close else ""
        raise SpecError(f"the zoo has no {name!r}; {hint}it has {', '.join(_SPECS)}")
    return found


def __getattr__(name: str) -> Recurrence:
    # For type checkers, which cannot see the names above, and for a helpful message.
    close = difflib.get_close_matches(name, _SPECS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
