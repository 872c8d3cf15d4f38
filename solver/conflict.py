"""Why nothing fits: a smallest reason, and the point that comes closest.

In: a problem without a solution. Out: `Infeasible`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rekern.solver.grid import blocks, feasible, missed, used
from rekern.solver.infeasible import Conflict, Infeasible
from rekern.solver.points import Values
from rekern.solver.problem import Limit, Problem
from rekern.solver.solution import Slack, slack
from rekern.solver.tighten import least_use, tighten


def explain(problem: Problem, largest_space: int) -> Infeasible:
    """The error for a problem that is known to have no solution.

    Args:
        largest_space: Points that may be searched; in a larger space the conflict is proved from bounds.
    """
    if problem.points > largest_space:
        return _from_bounds(problem, largest_space)
    patterns = _patterns(problem)
    often = dict(zip(problem.limits, patterns.sum(axis=0), strict=True))

    def excludes_all(limits: Sequence[Limit]) -> bool:
        columns = [problem.limits.index(limit) for limit in limits]
        return bool(patterns[:, columns].any(axis=1).all())

    # What is missed most often is tried for removal last: one limit that alone is too much is found alone.
    order = sorted(problem.limits, key=lambda limit: often[limit])
    conflicting = _deletion_filter(problem, order, excludes_all)
    nearest, use = _nearest(problem, conflicting)
    return Infeasible(problem, tuple(map(Conflict, conflicting, use)), nearest, minimal=True)


def _from_bounds(problem: Problem, largest_space: int) -> Infeasible:
    """The error where the space is too large to look at every pattern of misses."""
    certain = True

    def excludes_all(limits: Sequence[Limit]) -> bool:
        nonlocal certain
        domains = tighten(problem, limits)
        if domains is None:
            return True
        if math.prod(map(len, domains.values())) > largest_space:
            certain = False
            return False
        part = Problem(problem.name, problem.variables, limits)
        return not any(feasible(part, block).size for block in blocks(domains))

    conflicting = _deletion_filter(problem, problem.limits[::-1], excludes_all)
    conflicts = tuple(Conflict(limit, slack(limit, least_use(problem, limit))) for limit in conflicting)
    return Infeasible(problem, conflicts, None, minimal=certain)


def _deletion_filter(
    problem: Problem, order: Iterable[Limit], excludes_all: Callable[[Sequence[Limit]], bool]
) -> list[Limit]:
    """A set of limits that excludes everything, and no longer does without any one of them."""
    kept = list(problem.limits)
    for limit in order:
        fewer = [k for k in kept if k is not limit]
        if excludes_all(fewer):
            kept = fewer
    return kept


def _patterns(problem: Problem) -> NDArray[np.bool_]:
    """Which limits are missed together at some point: distinct rows, one column a limit."""
    found: set[bytes] = set()
    for block in blocks({v.name: v.values() for v in problem.variables}):
        misses = [np.broadcast_to(miss, block.shape).ravel() for miss in missed(problem, block)]
        rows = np.stack(misses, axis=1)
        found.update(row.tobytes() for row in np.unique(rows, axis=0))
    return np.frombuffer(b"".join(sorted(found)), dtype=np.bool_).reshape(-1, len(problem.limits))


def _nearest(problem: Problem, limits: Sequence[Limit]) -> tuple[dict[str, int], list[Slack]]:
    """The first point with the least sum of relative misses of `limits`, and what it uses of each."""
    columns = [problem.limits.index(limit) for limit in limits]
    best = np.inf
    nearest: tuple[dict[str, int], list[Slack]] | None = None
    for block in blocks({v.name: v.values() for v in problem.variables}):
        uses = [used(problem, block)[column] for column in columns]
        total = sum(_relative_miss(limit, use) for limit, use in zip(limits, uses, strict=True))
        spread = block.spread(total)
        position = int(np.argmin(spread))
        if nearest is None or spread[position] < best:
            best = float(spread[position])
            at = [float(block.spread(use)[position]) for use in uses]
            slacks = [slack(limit, use) for limit, use in zip(limits, at, strict=True)]
            nearest = block.point(position), slacks
    assert nearest is not None
    return nearest


def _relative_miss(limit: Limit, use: Values) -> Values:
    over = use - limit.bound if limit.at_least is None else limit.bound - use
    return np.maximum(over, 0.0) / (abs(limit.bound) or 1.0)
