"""From statements to loop nests, in an order that respects every array.

In: the `Statement`s of a lowering. Out: `Loops`. A temporary is written before it is read; an array that the
step overwrites (a state, in place) is read for the last time before it is written, or at the same point of
the same nest. Within that freedom statements over one space share a nest, so arrays are walked as rarely as
can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from rekern import ir
from rekern.errors import PlanError
from rekern.ir import Index, Read
from rekern.loops.lower import Lowering, Space, lower, plain
from rekern.loops.program import Loops, Nest, Place, Program, Statement


@dataclass(frozen=True)
class Edge:
    """`before` runs at least `gap` phases earlier than `after`; with gap 0 they may share a nest."""

    before: int
    after: int
    gap: int


@lru_cache(maxsize=256)
def arrange(program: Program) -> Loops:
    """Lower `program` and put its statements in order.

    Raises:
        PlanError: statements wait for each other in a circle (a fault of ours, not of the spec).
    """
    lowering, statements = lower(program)
    phases = _phases(statements, _edges(statements, lowering))
    if phases is None:  # two states swap roles in place: compute one aside
        statements = _written_aside(statements, lowering)
        phases = _phases(statements, _edges(statements, lowering))
    if phases is None:
        raise PlanError(f"the statements of {program.name} wait for each other in a circle")
    edges = _edges(statements, lowering)
    phases = _walked_together(statements, edges, phases)
    _merge(statements, edges, phases)
    return Loops(program, _nests(lowering, statements, phases), dict(lowering.temporaries))


def _edges(statements: Sequence[Statement], lowering: Lowering) -> list[Edge]:
    readers: dict[Place, list[tuple[int, Read]]] = {}
    for n, statement in enumerate(statements):
        for node in ir.walk(statement.reads()):
            if isinstance(node, Read):
                readers.setdefault((node.operand, node.component), []).append((n, node))
    edges = []
    for w, writer in enumerate(statements):
        for r, node in readers.get(writer.target, []):
            if writer.target[0] in lowering.temporaries:
                edges.append(Edge(w, r, 1))
                continue
            same_point = node.indices == writer.axes and statements[r].space == writer.space
            if r != w or not same_point:
                edges.append(Edge(r, w, 0 if same_point and statements[r].matrix is None else 1))
    return edges


def _phases(
    statements: Sequence[Statement], edges: Sequence[Edge], least: Sequence[int] | None = None
) -> list[int] | None:
    """The earliest phase of every statement, and not before `least`; None if they wait in a circle."""
    phases = list(least or [0] * len(statements))
    for _ in range(len(statements) + 1):
        changed = False
        for e in edges:
            if phases[e.after] < phases[e.before] + e.gap:
                phases[e.after] = phases[e.before] + e.gap
                changed = True
        if not changed:
            return phases
    return None


def _written_aside(statements: Sequence[Statement], lowering: Lowering) -> tuple[Statement, ...]:
    """Overwriting stores go to a temporary first, and into place when nobody reads the old value any more."""
    read = {(n.operand, n.component) for s in statements for n in ir.walk(s.reads()) if isinstance(n, Read)}
    result = []
    for s in statements:
        if s.target in read and s.target[0] not in lowering.temporaries:
            name = lowering.fresh("_".join(["new", plain(s.target[0]), *map(str, s.target[1])]))
            lowering.temporaries[name] = s.axes
            result.append(replace(s, target=(name, ())))
            result.append(Statement(s.target, s.axes, ir.read(name, (), s.axes), s.space, s.add))
        else:
            result.append(s)
    return tuple(result)


def _walked_together(
    statements: Sequence[Statement], edges: Sequence[Edge], phases: list[int]
) -> list[int]:
    """Let what runs over two axes or more wait for another walk over the same space, where that saves work.

    Whole walks are joined, and single statements move to where what they read is read anyway; what needs them
    waits as well.
    """
    while True:
        walks = _walks(statements, phases)
        best, least_work = phases, _work(statements, walks)
        for (phase, space), members in sorted(walks.items(), key=lambda item: -item[0][0]):
            hosts = sorted(p for p, other in walks if other == space and p > phase)
            groups = [members] if len(members) == 1 else [members, *({n} for n in sorted(members))]
            for group, host in product(groups, hosts):
                least = [max(p, host) if n in group else p for n, p in enumerate(phases)]
                moved = _phases(statements, edges, least)
                if moved is not None and (work := _work(statements, _walks(statements, moved))) < least_work:
                    best, least_work = moved, work
        if best is phases:
            return phases
        phases = best


def _walks(statements: Sequence[Statement], phases: Sequence[int]) -> dict[tuple[int, Space], set[int]]:
    """The nests over two axes or more: their statements."""
    found: dict[tuple[int, Space], set[int]] = {}
    for n, statement in enumerate(statements):
        if statement.matrix is None and len(statement.space) > 1:
            found.setdefault((phases[n], statement.space), set()).add(n)
    return found


def _work(statements: Sequence[Statement], walks: Mapping[tuple[int, Space], set[int]]) -> int:
    """What every walk reads and computes at a point of its space, and the walk itself.

    What two statements share is done once if they walk together.
    """
    return len(walks) + sum(
        sum(node.free == space for node in ir.walk(statements[n].value for n in members))
        for (_, space), members in walks.items()
    )


def _merge(statements: Sequence[Statement], edges: Sequence[Edge], phases: list[int]) -> None:
    """Move whole nests later where that joins them with a nest over the same space.

    A nest moves only as a whole: statements that left some behind would compute what they share a second time.
    """
    groups: dict[tuple[int, Space], list[int]] = {}
    for n, statement in enumerate(statements):
        if statement.matrix is None and statement.space:
            groups.setdefault((phases[n], statement.space), []).append(n)
    for phase, space in sorted(groups, key=lambda key: -key[0]):
        members = groups[phase, space]
        outside = [e for e in edges if e.before in members and e.after not in members]
        latest = min((phases[e.after] - e.gap for e in outside), default=max(phases))
        hosts = [p for p, other in groups if other == space and phase < p <= latest and groups[p, other]]
        if hosts:
            groups[min(hosts), space] += members
            groups[phase, space] = []
            for n in members:
                phases[n] = min(hosts)


def _nests(lowering: Lowering, statements: Sequence[Statement], phases: Sequence[int]) -> tuple[Nest, ...]:
    groups: dict[tuple[int, int, str], list[Statement]] = {}
    for s, phase in zip(statements, phases, strict=True):
        groups.setdefault((phase, len(s.space), _product(s) or _name(s.space)), []).append(s)
    return tuple(_nest(lowering, tuple(groups[key])) for key in sorted(groups))


def _product(s: Statement) -> str:
    """Contractions of one vector with weights of one shape are done as one wide product: the same word for all."""
    if s.matrix is None or s.vector is None or s.reduce is None:
        return ""
    cell = ".".join(map(str, s.vector.component))
    return f"contract {s.vector.operand} {cell} over {s.reduce[1].dim} along {s.axes[0].dim}"


def _weight(s: Statement) -> tuple[str, tuple[int, ...]]:
    assert s.matrix is not None
    return s.matrix.operand, s.matrix.component


def _name(space: Space) -> str:
    return " ".join(f"{i.dim}{i.number}" for i in sorted(space))


def _nest(lowering: Lowering, statements: tuple[Statement, ...]) -> Nest:
    space = statements[0].space
    if not space:
        return Nest((), None, statements)
    if statements[0].matrix is not None:
        return Nest((), None, tuple(sorted(statements, key=_weight)))
    lane = lowering.vector(space)
    bound = {s.reduce[1] for s in statements if s.reduce}

    def rank(index: Index) -> tuple[bool, str, int]:
        return (index in bound, index.dim, index.number)

    return Nest(tuple(sorted(space - {lane}, key=rank)), lane, statements)
