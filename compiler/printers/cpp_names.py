"""What things are called in generated C++.

In: arrays, indices, numbers. Out: words that a person would choose and that mean nothing else there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from rekern.ir import Index
from rekern.loops.program import Place

WORDS_OF_CXX = """
    alignas alignof and asm auto bool break case catch char class const continue default delete do double
    else enum explicit export extern false float for friend goto if inline int long mutable namespace new
    not operator or private protected public register return short signed sizeof static struct switch
    template this throw true try typedef typename union unsigned using virtual void volatile while xor
"""
WORDS_OF_TEMPLATES = """
    real vec ivec load store all select first fill contract dims sizes call work row rows batch time unit
    head part tile group arena sequence step steps block slot next first_column first_columns reverse
    LANES ROWS BLOCK INFINITE packed count stream element padded
"""
TAKEN = frozenset((WORDS_OF_CXX + WORDS_OF_TEMPLATES).split())


def identifier(place: Place) -> str:
    """The C++ name of an array: `x_2` for cell 2 of x."""
    name = re.sub(r"\W", "_", "_".join([place[0], *map(str, place[1])]))
    return name + "_" if name in TAKEN or name.startswith("at_") else name


def loop_variable(index: Index) -> str:
    """The variable of a loop: `at_k`, and `at_k2` for a second index of the same axis."""
    return f"at_{suffix(index)}"


def suffix(index: Index) -> str:
    return index.dim.lower() + (str(index.number + 1) if index.number else "")


def literal(value: float) -> str:
    """A number as C++ of the working precision."""
    if math.isnan(value):
        return "NOT_A_NUMBER"
    if math.isinf(value):
        return "INFINITE" if value > 0 else "-INFINITE"
    return f"real({int(value)})" if value == int(value) and abs(value) < 1e6 else f"real({value!r})"


def indent(lines: Iterable[str], by: int = 1) -> list[str]:
    return ["    " * by + line if line else line for line in lines]


class Names:
    """The names of one function that are taken."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def fresh(self, base: str) -> str:
        """`base`, or `base_2` and so on where it is taken; taken from now on."""
        name, count = base, 2
        while name in self.taken:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name
