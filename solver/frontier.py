"""Partial choices as arrays: a block of rows is extended by the values of further variables at once.

In: rows of positions, one column a variable that is chosen already. Out: rows with more columns, without those
that certainly miss a limit, each with a lower bound of its cost. A long interval is chosen in steps, like a
number digit by digit: a column then holds where a stretch of positions starts, and a row is a box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekern.solver.boxes import Box
from rekern.solver.divisors import Product, Relation
from rekern.solver.domains import Domains, Floats, Positions
from rekern.solver.errors import SolverError, inexact
from rekern.solver.limit import Limit
from rekern.solver.points import EXACT_BELOW, Values
from rekern.solver.problem import Problem
from rekern.solver.program import Program
from rekern.solver.text import point
from rekern.solver.tighten import certainly_missed

BLOCK_POINTS = 1 << 15      # rows times values that are looked at together: 256 KiB an array, best of 2**13 to 2**20
TOGETHER = 1 << 12          # points up to which several variables are chosen at once: bounds would cost more
WIDEST = 64                 # values that a variable takes at once; longer intervals are split in `STRETCHES`
STRETCHES = 16
DENSE = 0.25                # share of points within the limits from which a cost is computed for all of them

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Partial choices: where each variable's stretch of positions starts; and of each the least it may cost."""

    group: Positions                        # which cell of the separator each row belongs to
    starts: Mapping[str, Positions]
    widths: Mapping[str, int]               # positions from each start; 1: chosen
    bound: Floats
    fresh: frozenset[str] = frozenset()     # variables chosen since limits were last looked at

    def __len__(self) -> int:
        return len(self.group)

    def take(self, which: Flags | Positions | slice) -> Rows:
        """Some of the rows."""
        starts = {name: column[which] for name, column in self.starts.items()}
        return Rows(self.group[which], starts, self.widths, self.bound[which], self.fresh)


def first_width(count: int) -> int:
    """The least power of `STRETCHES` times a short stretch that covers so many positions."""
    width = WIDEST
    while width < count:
        width *= STRETCHES
    return width


class Frontier:
    """Extends rows by the variables of one part of a problem, in a fixed order.

    Args:
        fixed: What is known of variables outside the part: a box for each, one entry a group; absent: open.
        order: The variables to choose.
        limits: Places of the limits to look at.
        terms: Places of the cost terms to add up.
        risky: For each limit of the problem the largest whole number that may have been rounded, else 0.
    """

    def __init__(
        self,
        problem: Problem,
        domains: Domains,
        fixed: Mapping[str, Floats],
        order: Sequence[str],
        limits: Sequence[int],
        terms: Sequence[int],
        related: Sequence[Relation],
        risky: Sequence[float],
    ) -> None:
        self.problem, self.domains, self.fixed, self.order = problem, domains, fixed, order
        self.limits, self.terms, self.risky = limits, terms, risky
        self.related = [r for r in related if r.reads <= {*fixed, *order}]
        limit_reads, term_reads = problem.compiled.limit_reads, problem.compiled.term_reads
        self.limit_reads = {i: limit_reads[i] for i in limits}
        self.term_reads = frozenset[str]().union(*(term_reads[i] for i in terms))
        self.cost = problem.compiled.cost.part(terms)
        self._parts: dict[tuple[int, ...], Program] = {}

    def root(self, groups: Positions, bound: Floats) -> Rows:
        """Nothing chosen yet, one row a group. The first extension looks at every limit."""
        return Rows(groups, {}, {}, bound, frozenset({"", *self.domains}))     # never empty

    def done(self, rows: Rows) -> bool:
        """Whether every variable is chosen and every limit was looked at."""
        return not rows.fresh and all(rows.widths.get(name) == 1 for name in self.order)

    def extend(self, rows: Rows) -> Rows:
        """The rows with at least one variable more; several at once where that gives few points."""
        rows = self._determined(rows)
        new: dict[str, int] = {}
        points = max(1, len(rows))
        waiting = [name for name in self.order if rows.widths.get(name) != 1]
        for name in waiting:
            values, width = self._next(rows, name)
            if new and (points * values > TOGETHER or width > 1):
                break
            new[name] = width
            points *= values
        return self._extended(rows, new)

    def fan(self, rows: Rows) -> int:
        """Values that the next variable takes at most."""
        name = next((name for name in self.order if rows.widths.get(name) != 1), None)
        return 1 if name is None else self._next(rows, name)[0]

    def _next(self, rows: Rows, name: str) -> tuple[int, int]:
        """How many values or stretches a variable takes next, and how wide they are."""
        width, count = self._width(rows, name), len(self.domains[name])
        if width > WIDEST and self.domains[name].ascending:
            return STRETCHES, width // STRETCHES
        return min(width, count), 1

    def _width(self, rows: Rows, name: str) -> int:
        domain = self.domains[name]
        whole = first_width(len(domain)) if domain.ascending and len(domain) > WIDEST else len(domain)
        return rows.widths.get(name, whole)

    def _determined(self, rows: Rows) -> Rows:
        """Chooses what an equality leaves one value for."""
        while True:
            known = [*self.fixed, *(name for name, width in rows.widths.items() if width == 1)]
            found = next(
                ((r, name) for r in self.related if (name := r.determined(known)) is not None), None
            )
            if found is None or not len(rows):
                return rows
            relation, name = found
            quotient = np.broadcast_to(self._left_over(relation, rows, name), rows.group.shape)
            if np.isnan(quotient).any():
                return rows
            positions, there = self.domains[name].find(quotient)
            if name in rows.starts:
                inside = positions - rows.starts[name]
                there = there & (inside >= 0) & (inside < rows.widths[name])
            rows = rows.take(there)
            starts = {**rows.starts, name: positions[there]}
            rows = Rows(rows.group, starts, {**rows.widths, name: 1}, rows.bound, rows.fresh | {name})

    def _left_over(self, relation: Relation, rows: Rows, name: str) -> Floats:
        """What an equality leaves for one factor; NaN where any value would do, or rounding may decide."""
        mine, other = relation.small, relation.large
        if name in dict(other.powers):
            mine, other = other, mine
        over, under = (self._product(product, rows, name) for product in (other, mine))
        unclear = (np.maximum(np.abs(over), np.abs(under)) > EXACT_BELOW) | (under == 0)
        return np.where(unclear, math.nan, over / np.where(unclear, 1.0, under))

    def _product(self, product: Product, rows: Rows, without: str) -> Floats:
        result: Floats = np.asarray(float(product.factor))
        for name, power in product.powers:
            if name != without:
                result = result * self._chosen(rows, name) ** power
        return result

    def _chosen(self, rows: Rows, name: str) -> Floats:
        if name in self.fixed:
            return self.fixed[name][rows.group]
        return self.domains[name].at(rows.starts[name])

    def _extended(self, rows: Rows, new: Mapping[str, int]) -> Rows:
        """The rows times the values of some variables, along an axis each."""
        rank = 1 + len(new)
        starts: dict[str, Positions] = {}
        widths = {**rows.widths, **new}
        outside: Flags = np.zeros((), dtype=np.bool_)
        shape = [len(rows)]
        for axis, (name, width) in enumerate(new.items(), start=1):
            whole, count = self._width(rows, name), len(self.domains[name])
            steps = np.arange(0, min(whole, count), width).reshape(-1, *[1] * (rank - 1 - axis))
            shape.append(len(steps))
            if name in rows.starts:
                steps = rows.starts[name].reshape(-1, *[1] * (rank - 1)) + steps
                outside = outside | (steps >= count)
                steps = np.minimum(steps, count - 1)
            starts[name] = steps
        for name, column in rows.starts.items():
            starts.setdefault(name, column.reshape(-1, *[1] * (rank - 1)))
        group = rows.group.reshape(-1, *[1] * (rank - 1))
        box = self._box(group, starts, widths)
        changed = rows.fresh.union(new)
        missed = outside | self._missed(box, changed)
        points = math.prod(shape)
        if missed.ndim == 0:
            kept = np.arange(0 if missed else points)
        else:
            kept = np.flatnonzero(~np.broadcast_to(missed, shape))
        where = np.unravel_index(kept, shape)
        flat = {name: _pick(column, where) for name, column in starts.items()}
        groups = rows.group[where[0]]
        bound = rows.bound[where[0]]
        if (kept.size and not changed.isdisjoint(self.term_reads)) or not rows.widths:
            if kept.size >= DENSE * points:
                total = np.broadcast_to(self._bound(box), shape).ravel()[kept]
            else:
                total = np.broadcast_to(self._bound(self._box(groups, flat, widths)), kept.shape)
            bound = np.where(np.isnan(total), -math.inf, total)
        return Rows(groups, flat, widths, bound)

    def box(self, rows: Rows) -> dict[str, Box]:
        """Bounds of every variable, one entry a row; the same number for those that are open."""
        return self._box(rows.group, rows.starts, rows.widths)

    def _box(self, group: Positions, starts: Mapping[str, Positions], widths: Mapping[str, int]) -> dict[str, Box]:
        box: dict[str, Box] = {}
        for name, domain in self.domains.items():
            if name in self.fixed:
                value = self.fixed[name][group]
                box[name] = value, value
            elif name in starts:
                box[name] = domain.stretch(starts[name], widths[name])
            else:
                box[name] = domain.hull
        return box

    def _bound(self, box: Mapping[str, Box]) -> Values:
        total: Values = 0.0
        for low, _ in self.cost.over(box):
            total = total + low
        return total

    def _missed(self, box: Mapping[str, Box], changed: frozenset[str]) -> Flags:
        """Which points miss a limit for certain. A limit without a value at a point of none other is an error."""
        reading = tuple(
            i for i, reads in self.limit_reads.items() if not reads or not changed.isdisjoint(reads)
        )
        program = self._parts.get(reading)
        if program is None:
            program = self._parts[reading] = self.problem.compiled.limits.part(reading)
        missed: Flags = np.zeros((), dtype=np.bool_)
        doubtful: list[tuple[Limit, Flags]] = []
        for place, slot, use in zip(reading, program.outputs, program.over(box), strict=True):
            limit = self.problem.limits[place]
            large: Values = self.risky[place] and self.problem.compiled.limits.part([place]).largest(box)
            missed = missed | certainly_missed(limit, use, large)
            if use[0] is use[1]:
                if self.risky[place]:
                    doubtful.append((limit, np.asarray(large) > 0))
                if not program.steps[slot].defined:
                    doubtful.append((limit, np.isnan(use[0])))
        for limit, flags in doubtful:
            wrong = flags & ~missed
            if wrong.any():
                self._refuse(limit, wrong, box)
        return missed

    def _refuse(self, limit: Limit, wrong: Flags, box: Mapping[str, Box]) -> None:
        """Names a limit that has no value, or none that is exact, and the first such point."""
        names = sorted(limit.reads, key=list(self.domains).index)
        columns = np.broadcast_arrays(wrong, *(box[name][0] for name in names))
        first = int(np.argmax(columns[0]))
        values = {name: int(column.flat[first]) for name, column in zip(names, columns[1:], strict=True)}
        place = self.problem.limits.index(limit)
        program = self.problem.compiled.limits.part([place])
        [used] = program.at({name: np.float64(value) for name, value in values.items()})
        where = f" at {point(values)}" if values else ""
        if np.isnan(used):
            raise SolverError(f"limit {limit.name!r} of {self.problem.name!r} has no value{where}:\n    {limit}")
        raise inexact(f"limit {limit.name!r} of {self.problem.name!r}", str(limit), values)


def _pick(column: Positions, where: tuple[Positions, ...]) -> Positions:
    """What a broadcast column holds at some places of the whole block."""
    axes = zip(column.shape, where[-column.ndim :], strict=True)
    taken = [i for n, i in axes if n != 1]
    squeezed = column.reshape([n for n in column.shape if n != 1])
    if not taken:
        return np.broadcast_to(squeezed, where[0].shape)
    return squeezed[tuple(taken)]
