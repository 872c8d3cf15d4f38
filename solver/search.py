"""Finds the cheapest choices within the limits, by looking at every one.

In: a `Problem`. Out: `Solution`s, best first; or the error that says why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rekern.solver.conflict import explain
from rekern.solver.errors import SolverError
from rekern.solver.frozen import FrozenMap
from rekern.solver.grid import Block, Domains, Positions, blocks, feasible
from rekern.solver.points import Values
from rekern.solver.problem import Problem, programs
from rekern.solver.solution import Solution, slack
from rekern.solver.text import nearest, point
from rekern.solver.tighten import tighten

LARGEST_SPACE = 50_000_000      # points: seconds, not minutes
WORTH_TIGHTENING = 100_000      # points; fewer are looked at in less time than bounds take
TIE_BITS = 40                   # costs that agree in so many leading bits (12 digits) are the same cost


@overload
def solve(problem: Problem, top: None = None) -> Solution: ...
@overload
def solve(problem: Problem, top: int) -> tuple[Solution, ...]: ...
def solve(problem: Problem, top: int | None = None) -> Solution | tuple[Solution, ...]:
    """The cheapest choice of values that meets all limits, or the cheapest few.

    Exact: every choice is looked at. Choices of equal cost (to 12 digits) are ordered by their values, the
    first variable first, each in the order of `Variable.values`; so the result never depends on the machine.

    Args:
        top: How many solutions to return, best first; fewer where fewer exist. None: the best, by itself.

    Raises:
        Infeasible: no choice meets all limits.
        SolverError: there are more than 50 million choices left after bounds were tightened, or a limit or
            the cost has no value at some choice.

    >>> from rekern.solver import Limit, Problem, Variable, solve
    >>> rows, columns = Variable("rows", 1, 16), Variable("columns", 1, 8)
    >>> r, c = rows.symbol, columns.symbol
    >>> tile = Limit("registers", r * c + c + 1, at_most=32, unit="registers")
    >>> print(solve(Problem("a register tile", [rows, columns], [tile], {"loads": 1e-9 / r + 1e-9 / c})))
    rows=5, columns=5: 0.4 ns, proven best
        loads      0.4 ns (100%)
        registers  31 of at most 32 registers
    """
    if top is not None and top < 1:
        raise SolverError(f"top = {top}, expected at least 1")
    best = _Best(top or 1)
    for block in blocks(_space(problem)):
        positions = feasible(problem, block)
        if positions.size:
            best.offer(block, positions, _cost(problem, block, positions))
    if not best.found:
        raise explain(problem, LARGEST_SPACE)
    solutions = tuple(_solution(problem, values, proven=True) for _, values in best.found)
    return solutions[0] if top is None else solutions


def evaluate(problem: Problem, values: Mapping[str, int]) -> Solution:
    """What a given choice costs and uses, whether or not it meets the limits.

    Raises:
        SolverError: a variable has no value here, or one outside its domain.
    """
    names = [v.name for v in problem.variables]
    for name in values:
        if name not in names:
            raise SolverError(f"{problem.name!r} has no variable {name!r}. {nearest(name, names)}".rstrip())
    for variable in problem.variables:
        if variable.name not in values:
            raise SolverError(f"no value is given for {variable.name!r} of {problem.name!r}")
        if values[variable.name] not in variable.values():
            raise SolverError(f"{variable.name} = {values[variable.name]} is outside {variable}")
    return _solution(problem, {name: values[name] for name in names}, proven=False)


class _Best:
    """The `top` cheapest points offered so far, the earlier offered first among equals."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.found: list[tuple[float, dict[str, int]]] = []

    def offer(self, block: Block, positions: Positions, cost: NDArray[np.float64]) -> None:
        rounded = _rounded(cost)
        if len(self.found) == self.top:
            better = np.flatnonzero(rounded < self.found[-1][0])
            rounded, positions = rounded[better], positions[better]
        if len(rounded) > self.top:
            keep = np.flatnonzero(rounded <= np.partition(rounded, self.top - 1)[self.top - 1])
            rounded, positions = rounded[keep], positions[keep]
        order = np.argsort(rounded, kind="stable")[: self.top]
        new = [(float(rounded[i]), block.point(int(positions[i]))) for i in order]
        self.found = sorted([*self.found, *new], key=lambda pair: pair[0])[: self.top]


def _rounded(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    mantissa, exponent = np.frexp(cost)
    rounded: NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(mantissa, TIE_BITS)), exponent - TIE_BITS)
    return rounded


def _space(problem: Problem) -> Domains:
    """The values to search."""
    if problem.points <= WORTH_TIGHTENING:
        return {v.name: v.values() for v in problem.variables}
    domains = tighten(problem, problem.limits)
    if domains is None:
        raise explain(problem, LARGEST_SPACE)
    points = math.prod(map(len, domains.values()))
    if points > LARGEST_SPACE:
        sizes = ", ".join(f"{name} {len(values):,}" for name, values in domains.items())
        raise SolverError(
            f"{problem.name!r} has {points:.2g} choices within its bounds, more than {LARGEST_SPACE:,}\n"
            f"    {sizes}\n"
            "try: a smaller interval, multiple_of, divides or powers_of_two for the largest of them."
        )
    return domains


def _cost(problem: Problem, block: Block, positions: Positions) -> NDArray[np.float64]:
    """Seconds at the given points of a block."""
    # Most parts of a formula read few variables: over the axes of the block they are fewer numbers.
    dense = positions.size * 4 >= block.points
    total: Values = 0.0
    for term in programs(problem)[1].at(block.axes if dense else block.select(positions)):
        total = total + term
    cost = block.spread(total)[positions] if dense else np.broadcast_to(total, positions.shape)
    wrong = np.flatnonzero(~np.isfinite(cost))
    if wrong.size:
        _solution(problem, block.point(int(positions[wrong[0]])), proven=False)     # names the term
    return cost


def _solution(problem: Problem, values: dict[str, int], proven: bool) -> Solution:
    at: dict[str, Values] = {name: np.float64(value) for name, value in values.items()}
    limits, terms = (program.at(at) for program in programs(problem))
    seconds = {name: float(value) for name, value in zip(problem.cost, terms, strict=True)}
    for name, value in seconds.items():
        if not math.isfinite(value):
            formula = problem.cost[name]
            raise SolverError(
                f"cost term {name!r} of {problem.name!r} is {value} at {point(values)}:\n    {formula}"
            )
    slacks = {limit.name: slack(limit, float(use)) for limit, use in zip(problem.limits, limits, strict=True)}
    return Solution(FrozenMap(values), sum(seconds.values()), FrozenMap(seconds), FrozenMap(slacks), proven)
