"""A program: what one pass over a step of time stores, before any order is chosen.

In: formulas. Out: `Assign`ments to arrays, and what is known of the arrays that they read. A program is the
common form of the forward step, the recording step and the backstep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rekern.ir import Index, Node, Read
from rekern.loops.padding import Padding, padding
from rekern.trace import Cell

Role = Literal["state", "row", "param", "result", "temporary", "scalar"]
# The mark of what follows the value of a name: the new value of a state where the old one stays, and a row or result of
# the step that is walked next.
NEXT = "next:"
TEMPORARY = "t:"  # the mark of a temporary: no name of a user's has a colon
CARRIED = "carried:"  # the mark of what one step leaves for the next
Place = tuple[str, Cell]  # one array: an operand (or cotangent, or temporary) and a literal cell of it


@dataclass(frozen=True)
class Assign:
    """`target[axes] = value` for every value of `axes`; `add` accumulates."""

    target: Place
    axes: tuple[Index, ...]
    value: Node
    add: bool = False


@dataclass(frozen=True, eq=False)
class Program:
    """The stores of one pass over a step.

    roles: what each array that is read or written is, by name; it decides where the array lives.
    lane: the axis that every array keeps last and that vector instructions run along; None: each array's own.
    rows: whether several batch rows are worked on together, because they share a weight.
    padding: what the arrays of `roles` hold behind the last column of the lane.
    """

    name: str
    assigns: tuple[Assign, ...]
    roles: Mapping[str, Role]
    lane: str | None
    rows: bool
    padding: Mapping[str, Padding]


@dataclass(frozen=True)
class Statement:
    """One store with its loop space.

    A plain statement sets `target[axes]` at every point of `space`. A reduction (`reduce` = operation and
    bound index) joins `value` over the bound index. A contraction (`matrix` and `vector` set) is a reduction
    of a weight with a vector, done for all batch rows at once.
    """

    target: Place
    axes: tuple[Index, ...]
    value: Node
    space: frozenset[Index]
    add: bool = False
    reduce: tuple[str, Index] | None = None
    matrix: Read | None = None
    vector: Read | None = None

    def reads(self) -> tuple[Node, ...]:
        if self.matrix is not None and self.vector is not None:
            return self.matrix, self.vector
        return (self.value,)


@dataclass(frozen=True)
class Nest:
    """Statements that share one loop nest: `outer` loops, then the vector loop `lane` (None: no loop).

    Or contractions of one vector with weights of one shape, which are one wide product.
    """

    outer: tuple[Index, ...]
    lane: Index | None
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Loops:
    """A program in order: nests and contractions, and the temporaries with their axes in memory order."""

    program: Program
    nests: tuple[Nest, ...]
    temporaries: Mapping[str, tuple[Index, ...]]

    @cached_property
    def padding(self) -> Mapping[str, Padding]:
        """What every array holds behind the last column of the lane."""
        known = dict(self.program.padding)
        lane = self.program.lane
        statements = [s for nest in self.nests for s in nest.statements]
        while lane is not None:
            before = dict(known)
            for s in statements:
                if s.target[0] in self.temporaries:
                    known[s.target[0]] = padding(s.value, lane, known)
            if known == before:
                break
        return known


def is_early(program: Program, s: Statement) -> bool:
    """Whether a statement is a product with an input, which does not wait for the state."""
    return s.vector is not None and program.roles.get(s.vector.operand) == "row"
