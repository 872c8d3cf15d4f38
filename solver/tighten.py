"""Cuts values that no point within the limits can have, so that less is left to search.

In: a problem. Out: the values that each variable may still have. What is cut is cut for certain: the bounds
of a formula over a box hold at each of its points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rekern.solver.boxes import Box
from rekern.solver.clock import Clock
from rekern.solver.divisors import cut, relations
from rekern.solver.domains import Domain, Domains, domains_of, min_max
from rekern.solver.points import ROUNDING, Values
from rekern.solver.problem import Limit, Problem

PROBES = 64         # values, or stretches of an interval, that are tried one by one
ROUNDS = 40         # each makes the interval of a variable up to `PROBES` times shorter: 2**62 takes 11
LOSS = 1e-12        # of the largest number in a formula that rounds whole numbers: nothing closer is certain

Flags = NDArray[np.bool_]


def tighten(problem: Problem, limits: Iterable[Limit], clock: Clock) -> Domains | None:
    """Values of each variable that `limits` may allow; None if they certainly exclude each other.

    At the deadline: what is known by then.
    """
    wanted = set(limits)
    places = [i for i, limit in enumerate(problem.limits) if limit in wanted]
    domains = domains_of(problem)
    if not places:
        return domains
    related = relations(problem.limits[i] for i in places)
    program = problem.compiled.limits.part(places)
    large = program.inexact({name: domain.hull for name, domain in domains.items()})
    for _ in range(ROUNDS):
        before = {name: len(domain) for name, domain in domains.items()}
        for relation in related:
            domains.update(cut(relation, domains))
            if not all(len(domain) for domain in domains.values()) or clock.over:
                return domains if all(len(domain) for domain in domains.values()) else None
        probes = _Probes(domains)
        bounds = program.over(probes.box)
        excluded = np.zeros(probes.count, dtype=np.bool_)
        if any(large):
            large = program.inexact({name: domain.hull for name, domain in domains.items()})
        for place, bound, size in zip(places, bounds, large, strict=True):
            excluded |= certainly_missed(problem.limits[place], bound, size)
        for name, domain in domains.items():
            kept = probes.kept(name, excluded)
            if not kept:
                return None
            domains[name] = domain if len(kept) == len(domain) else Domain(kept)
        if all(len(domain) == before[name] for name, domain in domains.items()) or clock.over:
            break
    return domains


def certainly_missed(limit: Limit, use: Box, large: Values = 0.0) -> Flags:
    """Where bounds of what is used leave no doubt that the limit is missed.

    Args:
        large: The largest whole number that may have been rounded on the way, see `Program.inexact`.
    """
    caution = ROUNDING * abs(limit.bound) + LOSS * large
    if limit.at_least is None:
        return np.asarray(use[0] > limit.bound + caution)
    return np.asarray(use[1] < limit.bound - caution)


def least_use(problem: Problem, limit: Limit) -> float:
    """A bound of what any point uses of a limit: from below, or from above for `at_least`."""
    box = {name: domain.hull for name, domain in domains_of(problem).items()}
    low, high = problem.compiled.limits.over(box)[problem.limits.index(limit)]
    return float(low if limit.at_least is None else high)


class _Probes:
    """One box for each value of each variable, or for each stretch of a long interval: all others are open."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self.stretches = {name: _stretches(domain.values) for name, domain in domains.items()}
        self.domains = domains
        self.count = sum(map(len, self.stretches.values()))
        self.box: dict[str, Box] = {}
        self.first: dict[str, int] = {}
        first = 0
        for name, parts in self.stretches.items():
            low, high = domains[name].hull
            if low is high:
                self.box[name] = low, high
            else:
                lows, highs = np.full(self.count, low), np.full(self.count, high)
                ends = [min_max(part) for part in parts]
                lows[first : first + len(parts)] = [end[0] for end in ends]
                highs[first : first + len(parts)] = [end[1] for end in ends]
                self.box[name] = lows, highs
            self.first[name] = first
            first += len(parts)

    def kept(self, name: str, excluded: Flags) -> Sequence[int]:
        """The values that are left: of few, all that are not excluded; of many, without the excluded ends."""
        values, parts = self.domains[name].values, self.stretches[name]
        left = np.flatnonzero(~excluded[self.first[name] : self.first[name] + len(parts)])
        if left.size == len(parts):
            return values
        if len(parts) == len(values):
            kept = tuple(values[int(i)] for i in left)
            evenly = isinstance(values, range) and left.size and left[-1] - left[0] + 1 == left.size
            return values[int(left[0]) : int(left[-1]) + 1] if evenly else kept
        if not left.size:
            return ()
        if isinstance(values, range):
            width = -(-len(values) // PROBES)
            return values[int(left[0]) * width : (int(left[-1]) + 1) * width]
        return tuple(value for i in left for value in parts[int(i)])


def _stretches(values: Sequence[int]) -> list[Sequence[int]]:
    width = -(-len(values) // PROBES)
    return [values[start : start + width] for start in range(0, len(values), width)]
