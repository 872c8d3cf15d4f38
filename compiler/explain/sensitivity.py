"""How the best time depends on one size.

In: a problem and its best choice. Out: a `Sensitivity`: the size held at each of its values, all others chosen anew.
"""

from __future__ import annotations

from rekern.explain.case import held_at, readers
from rekern.explain.values import Point, Sensitivity
from rekern.solver import Infeasible, Problem, Solution, Variable, solve

MOST_POINTS = 12  # of a table that a person reads


def sensitivity(problem: Problem, solution: Solution) -> Sensitivity:
    """Of the size that most terms of the cost read; among equals the one declared first."""
    variable = main_variable(problem)
    chosen = solution.values[variable.name]
    points = tuple(_point(problem, variable.name, value, solution.cost) for value in shown_values(variable, chosen))
    return Sensitivity(variable.name, chosen, points)


def main_variable(problem: Problem) -> Variable:
    """The variable that most terms read, of those with more than one value."""
    read_by = readers(problem)
    return max(problem.variables, key=lambda v: (len(v.values()) > 2, len(read_by[v.name])))


def shown_values(variable: Variable, chosen: int) -> list[int]:
    """All values, or some that are evenly spaced among them, in ascending order; the chosen one is among them.

    >>> shown_values(Variable("columns", 1, 100), 17)
    [1, 10, 17, 19, 28, 37, 46, 55, 64, 73, 82, 91, 100]
    """
    values = sorted(variable.values())
    if len(values) > MOST_POINTS:
        last = MOST_POINTS - 1
        values = [values[n * (len(values) - 1) // last] for n in range(MOST_POINTS)]
    return sorted({*values, chosen})


def _point(problem: Problem, name: str, value: int, best: float) -> Point:
    try:
        found = solve(held_at(problem, {name: value}))
    except Infeasible as error:
        return Point(value, None, None, {}, ", ".join(conflict.limit.name for conflict in error.conflicts))
    return Point(value, found.cost, found.cost - best, dict(found.terms), "")
