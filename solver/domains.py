"""The values that a variable may still have, and what is known of all of them at once.

In: values in the order of preference. Out: a `Domain`: values at positions, as arrays, and the bounds of a
stretch of positions. An interval of 2**60 values is never listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rekern.solver.boxes import Box
from rekern.solver.problem import Problem

Positions = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Domain:
    """Values in the order of preference, so that positions compare as values are preferred.

    >>> Domain(range(3, 12, 4)).at(np.array([0, 2]))
    array([ 3., 11.])
    """

    values: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def listed(self) -> Floats | None:
        """All values; None for an interval."""
        return None if isinstance(self.values, range) else np.array(self.values, dtype=np.float64)

    @cached_property
    def exact(self) -> NDArray[np.int64]:
        """All values as whole numbers, of a domain that is listed."""
        return np.array(self.values, dtype=np.int64)

    @cached_property
    def ascending(self) -> bool:
        """Whether values and positions are in the same order."""
        return isinstance(self.values, range) or all(
            a < b for a, b in zip(self.values, self.values[1:], strict=False)
        )

    @cached_property
    def hull(self) -> Box:
        """The least and the greatest value."""
        low, high = min_max(self.values)
        bound = float(low)
        return bound, bound if low == high else float(high)

    def at(self, positions: Positions) -> Floats:
        """The values at these positions."""
        if self.listed is not None:
            return self.listed[positions]
        assert isinstance(self.values, range)
        return (self.values.start + self.values.step * positions).astype(np.float64)

    def stretch(self, starts: Positions, width: int) -> Box:
        """Bounds of the values at `width` positions from each start, of which the last may be past the end."""
        if width == 1:
            value = self.at(starts)
            return value, value
        assert self.ascending
        return self.at(starts), self.at(np.minimum(starts + (width - 1), len(self) - 1))

    def find(self, values: Floats) -> tuple[Positions, NDArray[np.bool_]]:
        """The position of each value, and whether it is there."""
        if isinstance(self.values, range):
            offset = (values - self.values.start) / self.values.step
            there = (offset == np.floor(offset)) & (offset >= 0) & (offset < len(self))
            return np.where(there, offset, 0).astype(np.int64), there
        assert self.listed is not None
        order = self._order
        place = np.minimum(np.searchsorted(self.listed, values, sorter=order), len(self) - 1)
        positions = order[place]
        return positions, self.listed[positions] == values

    @cached_property
    def _order(self) -> Positions:
        assert self.listed is not None
        return np.argsort(self.listed, kind="stable").astype(np.int64)


Domains = Mapping[str, Domain]


def min_max(values: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest of some values, of an interval without listing it.

    >>> min_max(range(1, 2**60))
    (1, 1152921504606846975)
    """
    return (values[0], values[-1]) if isinstance(values, range) else (min(values), max(values))


def domains_of(problem: Problem) -> dict[str, Domain]:
    """All values of each variable."""
    return {v.name: Domain(v.values()) for v in problem.variables}
