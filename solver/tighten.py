"""Cuts values that no point within the limits can have, so that less is left to search.

In: a problem. Out: the values that each variable may still have. What is cut is cut for certain: the bounds
of a formula over a box hold at each of its points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from rekern.solver.boxes import Box
from rekern.solver.grid import Domains
from rekern.solver.problem import Limit, Problem, programs

TRIED_SINGLY = 64      # values; of a longer interval only the two ends are cut, by bisection
ROUNDS = 8             # what one variable loses may let another lose more
CAUTION = 1e-9         # relative; exp and log differ by rounding between a box and its points


def tighten(problem: Problem, limits: Iterable[Limit]) -> Domains | None:
    """Values of each variable that `limits` may allow; None if they certainly exclude each other."""
    wanted = set(limits)
    program = programs(problem)[0]
    domains: dict[str, Sequence[int]] = {v.name: v.values() for v in problem.variables}
    box: dict[str, Box] = {name: _hull(values) for name, values in domains.items()}

    def excluded(name: str, part: Sequence[int]) -> bool:
        bounds = program.over({**box, name: _hull(part)})
        uses = zip(problem.limits, bounds, strict=True)
        return any(_missed(limit, use) for limit, use in uses if limit in wanted)

    for _ in range(ROUNDS):
        before = dict(domains)
        for name, values in before.items():
            kept = _cut(values, partial(excluded, name))
            if not kept:
                return None
            domains[name], box[name] = kept, _hull(kept)
        if domains == before:
            break
    return domains


def least_use(problem: Problem, limit: Limit) -> float:
    """A bound of what any point uses of a limit: from below, or from above for `at_least`."""
    box = {v.name: _hull(v.values()) for v in problem.variables}
    low, high = programs(problem)[0].over(box)[problem.limits.index(limit)]
    return low if limit.at_least is None else high


def _hull(values: Sequence[int]) -> Box:
    if isinstance(values, range):
        return float(values[0]), float(values[-1])
    return float(min(values)), float(max(values))


def _missed(limit: Limit, use: Box) -> bool:
    caution = CAUTION * max(1.0, abs(limit.bound)) if math.isfinite(limit.bound) else 0.0
    return use[0] > limit.bound + caution if limit.at_least is None else use[1] < limit.bound - caution


def _cut(values: Sequence[int], excluded: Callable[[Sequence[int]], bool]) -> Sequence[int]:
    """The values that are left: of few, those not excluded one by one; of many, without the excluded ends."""
    if len(values) <= TRIED_SINGLY or not isinstance(values, range):
        kept = tuple(value for value in values if not excluded((value,)))
        return values if len(kept) == len(values) else kept
    low = _first(len(values), lambda n: not excluded(values[: n + 1]))
    values = values[low:]
    high = _first(len(values), lambda n: not excluded(values[len(values) - 1 - n :]))
    return values[: len(values) - high]


def _first(count: int, holds: Callable[[int], bool]) -> int:
    """The least n < count at which `holds`, which stays true once it is; `count` if there is none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
