"""How many choices each limit rules out.

In: a problem. Out: counts, for a reader who asks what the limits do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekern.solver.domains import domains_of
from rekern.solver.problem import Problem
from rekern.solver.tighten import certainly_missed

MOST_POINTS = 1 << 21       # looked at one by one: a fraction of a second
BLOCK_POINTS = 1 << 15


@dataclass(frozen=True, slots=True)
class Rejections:
    """Choices of a problem that its limits rule out.

    Args:
        points: All choices, before any limit.
        feasible: Choices that meet all limits.
        by: Choices that each limit rules out, by the limit's name.
        alone: Choices that each limit rules out and no other does: what it costs to have this limit.
    """

    points: int
    feasible: int
    by: dict[str, int]
    alone: dict[str, int]


def rejections(problem: Problem) -> Rejections | None:
    """Exact counts; None where there are more than about two million choices to count.

    >>> from rekern.solver import Limit, Variable
    >>> rows = Variable("rows", 1, 10)
    >>> limits = Limit("few", rows.symbol, 8), Limit("even", rows.symbol % 2, 0)
    >>> rejections(Problem("rows of a tile", [rows], limits))
    Rejections(points=10, feasible=4, by={'few': 2, 'even': 5}, alone={'few': 1, 'even': 4})
    """
    if problem.points > MOST_POINTS:
        return None
    names = [limit.name for limit in problem.limits]
    by, alone = (np.zeros(len(names), dtype=np.int64) for _ in range(2))
    feasible = 0
    for point in _points(problem):
        count = len(next(iter(point.values()), [0]))
        missed: NDArray[np.bool_] = np.zeros((len(names), count), dtype=np.bool_)
        uses = problem.compiled.limits.at(point)
        for place, (limit, use) in enumerate(zip(problem.limits, uses, strict=True)):
            # A limit without a value rules out too: the search refuses such a choice.
            missed[place] = certainly_missed(limit, (use, use)) | np.isnan(use)
        together = missed.sum(axis=0)
        feasible += int((together == 0).sum())
        by += missed.sum(axis=1)
        alone += (missed & (together == 1)).sum(axis=1)
    return Rejections(
        problem.points,
        feasible,
        dict(zip(names, by.tolist(), strict=True)),
        dict(zip(names, alone.tolist(), strict=True)),
    )


def _points(problem: Problem) -> Iterator[dict[str, NDArray[np.float64]]]:
    """All choices, some at a time, one array a variable."""
    domains = domains_of(problem)
    shape = [len(domain) for domain in domains.values()]
    for start in range(0, problem.points, BLOCK_POINTS):
        block = np.arange(start, min(start + BLOCK_POINTS, problem.points))
        places = np.unravel_index(block, shape) if shape else ()
        yield {name: domain.at(p) for (name, domain), p in zip(domains.items(), places, strict=True)}
