"""What is to be explained, on any kind of machine, before it is put into words.

In: problems and their best solutions. Out: a frozen `Case`; `gpu` and `cpu` make one, `explain` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rekern.explain.values import Ceilings, Floor, Part, Subject
from rekern.solver import Infeasible, Problem, Solution

Parts = Callable[[str, Solution], tuple[Part, ...]]


@dataclass(frozen=True)
class Case:
    """A call with the best choice of every schedule.

    Args:
        problems: Of each schedule that applies.
        best: Best schedule first, with its best sizes.
        refused: Schedules that do not apply, with the reason.
        unfit: Schedules of which no sizes fit.
        parts: What a choice of a schedule consists of.
        floors: Of the passes, from what they consist of.
    """

    subject: Subject
    problems: Mapping[str, Problem]
    best: tuple[tuple[str, Solution], ...]
    refused: Mapping[str, str]
    unfit: Mapping[str, Infeasible]
    parts: Parts
    floors: Callable[[tuple[Part, ...]], tuple[Floor, ...]]
    ceilings: Ceilings | None

    @property
    def problem(self) -> Problem:
        """Of the chosen schedule."""
        return self.problems[self.best[0][0]]

    @property
    def solution(self) -> Solution:
        """What was chosen."""
        return self.best[0][1]


def held_at(problem: Problem, values: Mapping[str, int]) -> Problem:
    """The same problem with some variables held at a value; figures are left out.

    >>> from rekern.solver import Variable
    >>> print(held_at(Problem("demo", [Variable("rows", 1, 8), Variable("columns", 1, 8)]), {"rows": 3}))
    demo
        rows in {3}
        columns in {1, 2, 3, 4, 5, 6, 7, 8}
    """
    variables = [replace(v, choices=(values[v.name],)) if v.name in values else v for v in problem.variables]
    return Problem(problem.name, variables, problem.limits, problem.cost)


def readers(problem: Problem) -> dict[str, tuple[str, ...]]:
    """For each variable the terms of the cost that read it.

    >>> from rekern.solver import Variable
    >>> rows, columns = Variable("rows", 1, 8), Variable("columns", 1, 8)
    >>> cost = {"load": 1e-9 * rows.symbol * columns.symbol, "store": 1e-9 * rows.symbol}
    >>> readers(Problem("demo", [rows, columns], cost=cost))
    {'rows': ('load', 'store'), 'columns': ('load',)}
    """
    reads = {term: {symbol.name for symbol in formula.free_symbols} for term, formula in problem.cost.items()}
    return {v.name: tuple(term for term, names in reads.items() if v.name in names) for v in problem.variables}
