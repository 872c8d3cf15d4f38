"""How the threads of a team share a step: what each of them computes, and where they wait for each other.

In: the `Loops` of a step whose batch rows are worked on together. Out: `Sharing`, or why they cannot share it.

Every member of a team has a slice of every axis, in whole vectors, and computes the numbers of its slice: of a product
with a weight, and of a nest along an axis. A sum along an axis needs all numbers, so every member forms all of it for
itself: a result does not depend on how many members there are. What a member reads beyond its slice must have been
written before it last waited, and what others may still be reading must not be overwritten before it waits again;
where memory for a second copy avoids that wait, steps write the two copies by turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rekern.ir import Index, Node, Number, Read, Size, children
from rekern.loops.program import NEXT, Loops, Nest, Place, Statement, is_early

# Between nests, which go by their number: early products read their factors and multiply them; rows of the step are
# brought in; states restart.
Between = Literal["factors", "products", "rows", "reset"]
Phase = Between | int


@dataclass(frozen=True)
class Sharing:
    """How a step is shared.

    waits: before what the members wait for each other.
    whole: nests that every member runs over whole axes; it stores only the numbers of its slice.
    private: temporaries of which every member has its own.
    turning: arrays of which there are two copies, written by turns.
    """

    waits: frozenset[Phase]
    whole: frozenset[int]
    private: frozenset[str]
    turning: frozenset[Place]

    def waits_in_step(self) -> int:
        """How often the members wait for each other in a step."""
        return sum(phase not in ("factors", "products") for phase in self.waits)


@dataclass(frozen=True)
class Access:
    """What the members do in one phase: arrays written slice by slice, and arrays read beyond one's slice."""

    phase: Phase
    reads: frozenset[Place] = frozenset()
    writes: frozenset[Place] = frozenset()


@dataclass
class Since:
    """What has been written and read since the members last waited, each with the copy of it."""

    written: set[tuple[Place, int]] = field(default_factory=set)
    read: set[tuple[Place, int]] = field(default_factory=set)


def sharing(loops: Loops, *, early: bool, back: bool) -> Sharing | str:
    """How a team shares the step, or the reason why it cannot.

    Args:
        early: Products with inputs are done outside the step.
        back: Steps are walked from last to first, and states restart after a step.
    """
    for nest in loops.nests:
        if nest.outer:
            axes = " x ".join(i.dim for i in (*nest.outer, *([nest.lane] if nest.lane else [])))
            return f"a step works on numbers along {axes}, and a thread has a part of one axis only"
    private = frozenset(name for name, axes in loops.temporaries.items() if not axes)
    whole = frozenset(n for n, nest in enumerate(loops.nests) if _is_whole(nest))
    phases = tuple(_phases(loops, whole, private, early, back))
    fixed = {p for a in phases if a.phase in ("factors", "products") for p in (*a.reads, *a.writes)}
    may_turn = {p for a in phases for p in a.writes if _may_turn(loops, p, back)} - fixed
    apart = frozenset((n.removeprefix(NEXT), cell) for a in phases for n, cell in a.writes if n.startswith(NEXT))
    turning = frozenset(p for a in phases for p in a.reads & a.writes)
    if not turning <= may_turn - apart:
        return f"a step sums over {', '.join(sorted(p[0] for p in turning))} while it overwrites it"
    while True:
        states = frozenset(p for p in turning if loops.program.roles.get(p[0]) == "state")
        waits, late = _waits(phases, Copies(turning, apart | states), may_turn - apart)
        if not late:
            return Sharing(waits, whole, private, turning)
        turning |= _beside(loops, late)


def _is_whole(nest: Nest) -> bool:
    """Whether all members need the whole of what a nest finds: numbers without an axis, such as sums along one."""
    return nest.statements[0].matrix is None and (nest.lane is None or any(s.reduce for s in nest.statements))


def _may_turn(loops: Loops, place: Place, back: bool) -> bool:
    """Whether there can be two copies of an array. Backwards, sequences of several lengths begin at different steps."""
    if place[0] in loops.temporaries:
        return True
    role = loops.program.roles[place[0]]
    return role == "row" or (role == "state" and not back and not place[0].startswith(NEXT))


def _beside(loops: Loops, late: Iterable[Place]) -> frozenset[Place]:
    """`late`, and what lies beside it in one array: the results of one product."""
    found = set(late)
    for nest in loops.nests:
        targets = {s.target for s in nest.statements}
        if nest.statements[0].matrix is not None and targets & found:
            found |= targets
    return frozenset(found)


# -- what members read and write


def _phases(loops: Loops, whole: frozenset[int], private: frozenset[str], early: bool, back: bool) -> Iterator[Access]:
    """The phases of a step in order."""
    outside = {n for n, nest in enumerate(loops.nests) if early and is_early(loops.program, nest.statements[0])}
    products = [s for n in sorted(outside) for s in loops.nests[n].statements]
    if products:
        factors = frozenset(_vector(s) for s in products)
        yield Access("factors", writes=factors)
        yield Access("products", factors, frozenset(s.target for s in products))
    stored: dict[Node, str] = {}
    nests = []
    for n, nest in enumerate(loops.nests):
        if n not in outside:
            nests.append(_nest(loops, n, nest, n in whole, private, stored))
        for s in nest.statements:
            if s.reduce is None and s.target[0] in loops.temporaries:
                stored[s.value] = s.target[0]
    roles = loops.program.roles
    inside = [s for n, nest in enumerate(loops.nests) if n not in outside for s in nest.statements]
    read = [*_reads((value for s in inside for value in s.reads()), stored, loops)]
    yield Access("rows", writes=frozenset(p for p, indices in read if indices and roles.get(p[0]) == "row"))
    states = {p for p, _ in read if roles.get(p[0]) == "state"}
    if not back:
        yield Access("reset", writes=frozenset(states))
    yield from nests
    if back:
        yield Access("reset", writes=frozenset(a.target for a in loops.program.assigns if not a.add) & states)


def _nest(
    loops: Loops, number: int, nest: Nest, whole: bool, private: frozenset[str], stored: Mapping[Node, str]
) -> Access:
    targets = frozenset(s.target for s in nest.statements if s.target[0] not in private)
    if nest.statements[0].matrix is not None:
        return Access(number, frozenset(map(_vector, nest.statements)), targets)
    reads = {
        place
        for place, indices in _reads((s.value for s in nest.statements), stored, loops)
        if place[0] not in private and (whole or indices != (nest.lane,))
    }
    return Access(number, frozenset(reads), targets)


def _vector(s: Statement) -> Place:
    assert s.vector is not None
    return s.vector.operand, s.vector.component


def _reads(
    values: Iterable[Node], stored: Mapping[Node, str], loops: Loops
) -> Iterator[tuple[Place, tuple[Index, ...]]]:
    """The arrays that are read for `values`; `stored` names the temporary that holds a value already."""
    stack, done = list(values), set[Node]()
    while stack:
        node = stack.pop()
        if node in done:
            continue
        done.add(node)
        match node:
            case Read():
                yield (node.operand, node.component), node.indices
            case Number() | Size():
                pass
            case _ if node in stored:
                yield (stored[node], ()), loops.temporaries[stored[node]]
            case _:
                stack.extend(children(node))


# -- where members wait


@dataclass(frozen=True)
class Copies:
    """Which copy of an array a step reads and writes. `carried`: states, read in one copy and left in the other."""

    turning: frozenset[Place]
    carried: frozenset[Place]

    def read(self, place: Place, step: int) -> tuple[Place, int]:
        return place, step % 2 if place in self.turning | self.carried else 0

    def written(self, place: Place, step: int, by_nest: bool) -> tuple[Place, int]:
        name, cell = place
        if name.startswith(NEXT):
            return (name.removeprefix(NEXT), cell), (step + 1) % 2
        return self.read(place, step + (by_nest and place in self.carried))


def _waits(phases: tuple[Access, ...], copies: Copies, may_turn: set[Place]) -> tuple[frozenset[Phase], set[Place]]:
    """Before which phases members wait; or what must be written by turns first, for no other reason to wait."""
    waits: set[Phase] = set()
    since = Since()
    for step in range(2 * len(phases) + 4):  # every second step is alike, and adds a wait or is the last to matter
        before = Since(set(since.written), set(since.read))
        for access in phases:
            reads = {copies.read(p, step) for p in access.reads}
            writes = {copies.written(p, step, access.phase != "reset") for p in access.writes}
            if access.phase not in waits:
                overwritten = {p for p, _ in writes & since.read}
                unwritten = reads & since.written
                if overwritten and not unwritten and overwritten <= may_turn - copies.turning:
                    return frozenset(), overwritten
                if overwritten or unwritten:
                    waits.add(access.phase)
            if access.phase in waits:
                since = Since()
            since.read |= reads
            since.written |= writes
            if access.phase == "products":  # a step without them is one without their waits
                since.read |= before.read
                since.written |= before.written
    return frozenset(waits), set()
