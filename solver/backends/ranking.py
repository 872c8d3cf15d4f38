"""What all back ends share: points are judged by the programs of the native search, whoever proposes them.

In: points of a problem, any number of times and in any order. Out: the best of them, as the native search ranks
them; so rounding never decides differently from one back end to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rekern.solver.points import ROUNDING, Values, quiet
from rekern.solver.problem import Limit, Problem, Variable, programs
from rekern.solver.report import cost_of, rounded, solutions
from rekern.solver.solution import Solution

Point = tuple[int, ...]
Flags = NDArray[np.bool_]
Columns = Mapping[str, Values]
BATCH = 4096    # points judged at a time: the arrays of a program fit the cache


class Ranking:
    """The `top` best feasible points offered so far: by cost to 12 digits, then by the values preferred."""

    def __init__(self, problem: Problem, top: int) -> None:
        self.problem, self.top = problem, top
        self.best: list[tuple[float, Point, Point]] = []    # cost, places of the values, values
        self._waiting: set[Point] = set()

    def offer(self, point: Point) -> None:
        """A point with each variable in its domain; whether it meets the limits is judged here."""
        self._waiting.add(point)
        if len(self._waiting) >= BATCH:
            self.judge()

    def judge(self) -> None:
        """Rank the points that wait.

        Raises:
            SolverError: a cost term has no value at a point that meets all limits.
        """
        points, self._waiting = list(self._waiting), set()
        columns = by_name(self.problem.variables, points)
        kept = np.flatnonzero(met(self.problem.limits, programs(self.problem)[0].at(columns), len(points)))
        points = [points[at] for at in kept]
        if not points:
            return
        with quiet():
            costs = cost_of(self.problem, points)
        if not np.isfinite(costs).all():
            solutions(self.problem, points, None)   # names the term
        ranks, worst = rounded(costs), self.worst
        new = [(float(ranks[at]), self._places(points[at]), points[at]) for at in np.flatnonzero(ranks <= worst)]
        self.best = sorted({*self.best, *new})[: self.top]

    @property
    def worst(self) -> float:
        """The cost above which a point gets no place; infinite while places are free."""
        return self.best[-1][0] if len(self.best) == self.top else math.inf

    def solutions(self, unproven: float | None) -> tuple[Solution, ...]:
        """The best, in order.

        Args:
            unproven: Seconds that any other choice costs at least; None: it is proven that none is cheaper.
        """
        return solutions(self.problem, [point for _, _, point in self.best], unproven)

    def _places(self, point: Point) -> Point:
        return tuple(v.values().index(value) for v, value in zip(self.problem.variables, point, strict=True))


def by_name(variables: Sequence[Variable], points: Sequence[Point]) -> dict[str, NDArray[np.float64]]:
    """One array a variable."""
    table = np.array(points, dtype=np.float64).reshape(len(points), len(variables))
    return {v.name: table[:, column] for column, v in enumerate(variables)}


def met(limits: Sequence[Limit], uses: Sequence[Values], count: int) -> Flags:
    """Which of `count` points meet all limits; a limit without a value is left to whoever reports it."""
    kept: Flags = np.ones(count, dtype=np.bool_)
    for limit, use in zip(limits, uses, strict=True):
        over = use - limit.bound if limit.at_least is None else limit.bound - use
        kept &= ~np.asarray(over > ROUNDING * abs(limit.bound))
    return kept
