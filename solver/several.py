"""The best choice over several problems, such as one for each schedule.

In: problems whose costs can be compared. Out: the best choices of all, each with its problem; and the problems
that have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rekern.solver.clock import PATIENCE, Clock
from rekern.solver.errors import OutOfTime, SolverError
from rekern.solver.infeasible import Infeasible
from rekern.solver.problem import Problem
from rekern.solver.report import rounded_cost
from rekern.solver.search import checked_top, native
from rekern.solver.solution import Solution


@dataclass(frozen=True, slots=True)
class Choice:
    """A solution and the problem that it solves."""

    problem: Problem
    solution: Solution


@dataclass(frozen=True, slots=True)
class Overall:
    """The best choices over several problems.

    Args:
        choices: Best first; where costs are equal, in the order of the problems.
        infeasible: Why each problem that has no choice has none.
    """

    choices: tuple[Choice, ...]
    infeasible: tuple[Infeasible, ...]


class NoneFits(SolverError):
    """None of several problems has a choice; `reasons` says why, one for each."""

    def __init__(self, reasons: tuple[Infeasible, ...]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "\n".join(["nothing fits:", *("  " + line for r in self.reasons for line in str(r).splitlines())])


def solve_all(problems: Iterable[Problem], top: int = 1, *, deadline: float | None = PATIENCE) -> Overall:
    """The cheapest choices over several problems. What one problem has found, no other has to beat twice.

    Args:
        top: How many choices to return, over all problems together.
        deadline: Seconds for all problems together. Later ones may then be left out, and nothing is proven.

    Raises:
        NoneFits: every problem is infeasible.
        OutOfTime: nothing was found before the deadline.
        SolverError: there is no problem, or one cannot be evaluated.
    """
    asked = tuple(problems)
    if not asked:
        raise SolverError("there is no problem to solve, expected at least one")
    checked_top(top)
    clock = Clock(deadline)
    found: list[Choice] = []
    reasons: list[Infeasible] = []
    late: list[OutOfTime] = []
    for problem in asked:
        ceiling = _cost(found[top - 1]) if len(found) >= top else math.inf
        try:
            solutions = native(problem, top, clock, ceiling)
        except Infeasible as reason:
            reasons.append(reason)
            continue
        except OutOfTime as reason:
            late.append(reason)
            continue
        found = sorted([*found, *(Choice(problem, s) for s in solutions)], key=_cost)[:top]
    if not found:
        raise late[0] if late else NoneFits(tuple(reasons))
    if late:
        found = [Choice(c.problem, c.solution.unproven()) for c in found]
    return Overall(tuple(found), tuple(reasons))


def _cost(choice: Choice) -> float:
    return rounded_cost(choice.solution.cost)
