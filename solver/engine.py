"""Branch and bound over blocks of partial choices.

In: a problem, and the values that are left of each domain. Out: `Outcome`: the choices that may be the cheapest,
and a bound that no other choice is below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekern.solver.best import Best
from rekern.solver.boxes import Box
from rekern.solver.clock import Clock
from rekern.solver.divisors import relations
from rekern.solver.domains import Domains, Floats, Positions, domains_of
from rekern.solver.frontier import BLOCK_POINTS, Frontier, Rows
from rekern.solver.limit import Limit
from rekern.solver.parts import Split, choosing_order, split
from rekern.solver.problem import Problem
from rekern.solver.tighten import tighten

FIRST_DIVE = 4096       # points of a block until there is a choice to compare with
FIRST_CELLS = 16         # cells of the separator whose parts are solved first, for the same reason
SMALL = 1 << 15         # points that are looked at as they are: less work than to divide them


def certainly_met(limit: Limit, use: Box) -> bool:
    """Whether a limit holds wherever its use is within these bounds."""
    low, high = use
    return bool(high <= limit.bound) if limit.at_least is None else bool(low >= limit.bound)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found.

    Args:
        chosen: Positions in the domains, one row a choice, one column a variable; the best may be anywhere.
        complete: Nothing was left out except what cannot be among the best.
        bound: No choice costs less, unless it is in `chosen`. Seconds.
    """

    chosen: Positions
    complete: bool
    bound: float


def candidates(problem: Problem, clock: Clock) -> Domains | None:
    """Values worth looking at; None if the limits certainly exclude each other."""
    domains = domains_of(problem)
    few = math.prod(map(len, domains.values())) <= SMALL
    return domains if few else tighten(problem, problem.limits, clock)


def search(
    problem: Problem,
    domains: Domains,
    top: int,
    clock: Clock,
    anything: bool = False,
) -> Outcome:
    """The choices that may be the `top` cheapest within the limits.

    Args:
        anything: The first choice that is found will do.

    Raises:
        SolverError: a limit or the cost has no value, or none that is exact, at some choice.
    """
    return _Search(problem, domains, top, clock, anything).run()


class _Search:
    def __init__(self, problem: Problem, domains: Domains, top: int, clock: Clock, anything: bool) -> None:
        self.problem, self.domains, self.top, self.clock, self.anything = problem, domains, top, clock, anything
        self.ceiling = math.inf     # what costs more, all parts together, is not among the best
        self.sizes = {name: float(len(domain)) for name, domain in domains.items()}
        self.points = math.prod(self.sizes.values())
        box = {name: domain.hull for name, domain in domains.items()}
        self.risky = problem.compiled.limits.inexact(box)
        # What no choice misses is not looked at again.
        uses = zip(problem.limits, problem.compiled.limits.over(box), self.risky, strict=True)
        self.active = [i for i, (limit, use, risky) in enumerate(uses) if risky or not certainly_met(limit, use)]
        self.risky_cost = any(problem.compiled.cost.inexact(box))
        self.limit_reads = problem.compiled.limit_reads
        self.term_reads = problem.compiled.term_reads
        self.related = relations(problem.limits)

    def run(self) -> Outcome:
        names = tuple(self.domains)
        if self.points > SMALL:
            read = [self.limit_reads[i] for i in self.active]
            found = split(names, [*read, *self.term_reads], self.sizes)
            if found.separator or len(found.parts) > 1:
                outcome = _Divided(self, found).run()
                if outcome is not None:
                    return outcome
        best = Best(names, self.top, np.zeros(1))
        every = self.active, range(len(self.problem.cost))
        frontier = self.frontier(names, {}, *every)
        root = frontier.root(np.zeros(1, dtype=np.int64), np.full(1, -math.inf))
        left = self.explore(frontier, root, best, np.zeros(1))
        bound = min([math.inf, *(float(rows.bound.min()) for rows in left if len(rows))])
        return Outcome(best.chosen, not left, bound)

    def frontier(
        self, names: Sequence[str], fixed: dict[str, Floats], limits: Sequence[int], terms: Sequence[int]
    ) -> Frontier:
        """The extension of rows by some variables, in the best order."""
        if self.points > SMALL:
            reads = [self.limit_reads[i] for i in limits]
            names = choosing_order(names, fixed, reads, self.sizes, self.related)
        return Frontier(
            self.problem, self.domains, fixed, names, limits, terms, self.related, self.risky
        )

    def explore(self, frontier: Frontier, root: Rows, best: Best, rest: Floats) -> list[Rows]:
        """Follows rows to their end, the most promising first; what is open at the deadline is returned.

        Args:
            rest: For each group the least that the other parts cost.
        """
        waiting = [root]
        while waiting:
            rows = waiting.pop()
            rows = self._promising(rows, best, rest)
            if not len(rows):
                continue
            if self.clock.over and rows.widths:
                return [*waiting, rows]
            size = max(1, BLOCK_POINTS // frontier.fan(rows))
            if not len(best.cost):
                size = min(size, max(1, FIRST_DIVE // frontier.fan(rows)) * len(best.window))
            if len(rows) > size:
                first = np.zeros(len(rows), dtype=np.bool_)
                if len(best.window) == 1:
                    first[np.argsort(rows.bound, kind="stable")[:size]] = True
                else:
                    first[:size] = True
                waiting.append(rows.take(~first))
                rows = rows.take(first)
            rows = frontier.extend(rows)
            if frontier.done(rows):
                self._check(rows, frontier)
                best.offer(self._promising(rows, best, rest))
                if self.anything and len(best.window) == 1 and len(best.cost):
                    return []
            else:
                waiting.append(rows)
        return []

    def _promising(self, rows: Rows, best: Best, rest: Floats) -> Rows:
        kept: NDArray[np.bool_] = best.promising(rows)
        if math.isfinite(self.ceiling):
            kept = kept & ~(rows.bound + rest[rows.group] > self.ceiling)
        return rows if kept.all() else rows.take(kept)

    def _check(self, rows: Rows, frontier: Frontier) -> None:
        """Raises where the cost is no number, or is computed from numbers that may have been rounded."""
        wrong = ~np.isfinite(rows.bound)
        if self.risky_cost and not wrong.any():
            wrong = np.broadcast_to(frontier.cost.largest(frontier.box(rows)) > 0, wrong.shape)
        if wrong.any():
            first = int(np.argmax(wrong))
            values = {name: int(v[rows.group[first]]) for name, v in frontier.fixed.items()}
            values |= {name: self.domains[name].values[int(c[first])] for name, c in rows.starts.items()}
            raise NoCost(values, frontier.terms)


class NoCost(Exception):
    """A term of the cost has no finite or no exact value at a choice, of which some values are known."""

    def __init__(self, values: dict[str, int], terms: Sequence[int]) -> None:
        super().__init__(values, terms)
        self.values, self.terms = values, terms


class _Divided:
    """Solves the parts of a problem for each choice of a separator, and adds them up."""

    def __init__(self, search: _Search, found: Split) -> None:
        self.search, self.split = search, found
        self.names = tuple(search.domains)

    def run(self) -> Outcome | None:
        """None: the parts cannot be compared, because their cost has no upper bound."""
        search = self.search
        cells = self._cells()
        fixed = {name: search.domains[name].at(column) for name, column in cells.starts.items()}
        low, high = self._bounds(fixed, len(cells))
        owner = [self._owner(reads) for reads in search.term_reads]
        if not np.isfinite(high).all() or np.isnan(low).any():
            return None
        size = np.maximum(np.abs(low), np.abs(high)).sum(axis=0)
        window = size * 2.0**-38
        parts = range(len(self.split.parts))
        least = np.zeros((len(self.split.parts), len(cells)))
        for term, part in enumerate(owner):
            if part is not None:
                least[part] += low[term]
        alone = sum((low[term] for term, part in enumerate(owner) if part is None), np.zeros(len(cells)))
        frontiers = []
        for names in self.split.parts:
            limits = [i for i in search.active if not search.limit_reads[i].isdisjoint(names)]
            terms = [i for i, part in enumerate(owner) if part is not None and self.split.parts[part] == names]
            frontiers.append(search.frontier(names, fixed, limits, terms))
        bests = [Best(names, search.top, window) for names in self.split.parts]
        combined = Best(self.names, search.top, np.full(1, window.max(initial=0.0)))
        waiting = np.lexsort((np.arange(len(cells)), alone + least.sum(axis=0)))
        count = FIRST_CELLS
        finished = True
        while len(waiting):
            total = alone + least.sum(axis=0)
            ceiling = float(combined.last_cost[0] + combined.window[0])
            batch = waiting[:count]
            batch = np.sort(batch[~(total[batch] > ceiling)])
            for part in parts:
                search.ceiling = ceiling
                rest = alone + np.delete(least, part, axis=0).sum(axis=0)
                # Where another part has no choice at all, this one need not be looked at.
                groups = batch[np.isfinite(rest[batch]) & ~(least[part][batch] + rest[batch] > ceiling)]
                root = frontiers[part].root(groups, least[part][groups])
                finished = not search.explore(frontiers[part], root, bests[part], rest) and finished
                if not finished:
                    break
                least[part][batch] = bests[part].least[batch]
            self._combine(cells, batch, bests, alone, combined, ceiling)
            if not finished or (search.anything and len(combined.cost)):
                break
            waiting = waiting[count:]
            count *= 8
        total = alone + least.sum(axis=0)
        bound = float(total[waiting].min()) if len(waiting) else math.inf
        return Outcome(combined.chosen, finished, bound)

    def _owner(self, reads: frozenset[str]) -> int | None:
        """The part that a term belongs to; None: it reads the separator alone."""
        return next((i for i, part in enumerate(self.split.parts) if not reads.isdisjoint(part)), None)

    def _cells(self) -> Rows:
        """All choices of the separator within the limits, as far as those can tell already."""
        search = self.search
        frontier = search.frontier(self.split.separator, {}, search.active, ())
        rows = frontier.extend(frontier.root(np.zeros(1, dtype=np.int64), np.zeros(1)))
        while not frontier.done(rows):
            rows = frontier.extend(rows)
        return rows

    def _bounds(self, fixed: dict[str, Floats], cells: int) -> tuple[Floats, Floats]:
        """Bounds of each term, one row a term, in each cell."""
        box = {name: domain.hull for name, domain in self.search.domains.items()}
        box |= {name: (values, values) for name, values in fixed.items()}
        bounds = self.search.problem.compiled.cost.over(box)
        shape = len(bounds), cells
        low, high = np.empty(shape), np.empty(shape)
        for term, (least, most) in enumerate(bounds):
            low[term], high[term] = least, most
        return low, high

    def _combine(
        self, cells: Rows, batch: Positions, bests: Sequence[Best], alone: Floats, combined: Best, ceiling: float
    ) -> None:
        """Adds up the parts of each cell, the cheapest cell first, until no cell can have a place."""
        total = alone + sum(best.least for best in bests)
        order = {name: column for column, name in enumerate(n for p in self.split.parts for n in p)}
        for cell in batch[np.argsort(total[batch], kind="stable")]:
            limit = min(ceiling, float(combined.last_cost[0] + combined.window[0]))
            if not total[cell] <= limit or math.isinf(total[cell]):
                break
            costs, chosen = np.full(1, alone[cell]), np.zeros((1, 0), dtype=np.int64)
            known: list[str] = []
            rest = total[cell] - alone[cell]
            for names, best in zip(self.split.parts, bests, strict=True):
                more, positions = best.of(int(cell))
                rest -= best.least[cell]
                sums = costs[:, None] + more[None, :]
                left, right = np.nonzero(sums + rest <= limit + combined.window[0])
                costs = sums[left, right]
                chosen = np.concatenate([chosen[left], positions[right]], axis=1)
                known += names
                costs, chosen = self._leading(known, costs, chosen, combined.window)
            starts = {name: np.full(len(costs), column[cell]) for name, column in cells.starts.items()}
            starts |= {name: chosen[:, column] for name, column in order.items()}
            combined.offer(Rows(np.zeros(len(costs), dtype=np.int64), starts, dict.fromkeys(starts, 1), costs))

    def _leading(
        self, names: Sequence[str], costs: Floats, chosen: Positions, window: Floats
    ) -> tuple[Floats, Positions]:
        """The sums that may still get a place: what is added to them later is the same for all."""
        if len(costs) <= self.search.top:
            return costs, chosen
        order = [name for name in self.names if name in names]
        column = {name: chosen[:, place] for place, name in enumerate(names)}
        rows = Rows(np.zeros(len(costs), dtype=np.int64), column, dict.fromkeys(names, 1), costs)
        leaders = Best(order, self.search.top, window)
        leaders.offer(rows)
        return leaders.cost, leaders.chosen[:, [order.index(name) for name in names]]
