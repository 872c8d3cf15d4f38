"""Walks every point of a space in blocks that fit the cache, and tests the limits on each block.

In: the values that each variable may have. Out: blocks of points in lexicographic order, the first variable
slowest, and the points of a block that meet the limits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekern.solver.errors import SolverError
from rekern.solver.points import ROUNDING, Values
from rekern.solver.problem import Problem, programs
from rekern.solver.text import point

BLOCK_POINTS = 1 << 15     # 256 KiB an array: measured best of 2**13 to 2**20

Domains = Mapping[str, Sequence[int]]
Flags = NDArray[np.bool_]
Positions = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Block:
    """All points of a box: one array of values a variable, each along an axis of its own."""

    axes: Mapping[str, NDArray[np.float64]]
    domains: Domains

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(values) for values in self.domains.values())

    @property
    def points(self) -> int:
        """Points in the box."""
        return math.prod(self.shape)

    def point(self, position: int) -> dict[str, int]:
        """The point at a position in lexicographic order."""
        where = np.unravel_index(position, self.shape)
        return {name: values[int(i)] for (name, values), i in zip(self.domains.items(), where, strict=True)}

    def select(self, positions: Positions) -> dict[str, Values]:
        """The points at these positions, one flat array a variable."""
        where = np.unravel_index(positions, self.shape)
        return {name: axis.ravel()[i] for (name, axis), i in zip(self.axes.items(), where, strict=True)}

    def spread(self, values: Values) -> NDArray[np.float64]:
        """`values`, which may have axes of length 1, as one flat array over all points."""
        return np.broadcast_to(np.asarray(values, dtype=np.float64), self.shape).ravel()


def blocks(domains: Domains) -> Iterator[Block]:
    """The space in blocks of at most `BLOCK_POINTS` points, in lexicographic order."""
    steps: list[int] = []
    room = BLOCK_POINTS
    for values in reversed(list(domains.values())):
        steps.append(max(1, min(room, len(values))))
        room = room // len(values) if steps[-1] == len(values) else 1
    steps.reverse()
    starts = [range(0, len(values), step) for values, step in zip(domains.values(), steps, strict=True)]
    for corner in itertools.product(*starts):
        parts = {
            name: values[start : start + step]
            for (name, values), start, step in zip(domains.items(), corner, steps, strict=True)
        }
        axes = {
            name: np.array(part, dtype=np.float64).reshape(-1, *[1] * (len(parts) - 1 - axis))
            for axis, (name, part) in enumerate(parts.items())
        }
        yield Block(axes, parts)


def used(problem: Problem, block: Block) -> list[Values]:
    """What each limit uses at each point of a block, over the axes that it depends on.

    Raises:
        SolverError: a limit has no value at some point.
    """
    results = programs(problem)[0].at(block.axes)
    for limit, result in zip(problem.limits, results, strict=True):
        if np.isnan(result).any():
            where = block.point(int(np.argmax(np.isnan(block.spread(result)))))
            raise SolverError(
                f"limit {limit.name!r} of {problem.name!r} has no value at {point(where)}:\n    {limit}"
            )
    return results


def missed(problem: Problem, block: Block) -> list[Flags]:
    """Where each limit is missed, over the axes that it depends on."""
    flags: list[Flags] = []
    for limit, result in zip(problem.limits, used(problem, block), strict=True):
        over = result - limit.bound if limit.at_least is None else limit.bound - result
        flags.append(np.asarray(over > ROUNDING * abs(limit.bound)))
    return flags


def feasible(problem: Problem, block: Block) -> Positions:
    """Positions of the points of a block that meet all limits."""
    excluded: Flags = np.zeros((), dtype=np.bool_)
    for miss in missed(problem, block):
        excluded = excluded | miss
    if excluded.ndim == 0:
        return np.arange(0 if excluded else block.points)
    return np.flatnonzero(~np.broadcast_to(excluded, block.shape))
