"""Where the rows lie that a streamed forward pass keeps for its gradient.

In: the rows that a pass keeps, the checked `Arguments` of a call, numbers of a vector. Out: how many numbers all rows
take, and the layout of each kind of row in the memory that holds them. Rows have room for whole vectors, so that a
kernel uses them where they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rekern.loops.program import Place
from rekern.runtime.arguments import Arguments
from rekern.runtime.launch import Layout
from rekern.runtime.passes import SavedRow

LEAD = ("B", "T", "H")


@dataclass(frozen=True)
class SavedRows:
    """All rows of a call, one kind of row after the other. `lane`: the axis that lies last in each."""

    rows: Sequence[SavedRow]
    lane: str | None
    arguments: Arguments
    lanes: int

    def count(self) -> int:
        """Numbers of all rows together."""
        return sum(math.prod(self._shape(axes)) for _, axes in self.rows)

    def layout(self, place: Place, number: int) -> Layout:
        """Where the rows of `place` lie. `number`: which of the addresses of a call is that of the memory."""
        first = 0
        for other, axes in self.rows:
            shape = self._shape(axes)
            if other == place:
                break
            first += math.prod(shape)
        tensor = torch.empty(shape, dtype=self.arguments.real, device="meta")
        order = self._memory_order(axes)
        if axes:
            tensor = tensor.permute(0, 1, 2, *(3 + order.index(n) for n in range(len(axes))))
        return Layout(number, tensor, LEAD, axes, offset=first)

    def _memory_order(self, axes: Sequence[str]) -> list[int]:
        return sorted(range(len(axes)), key=lambda n: axes[n] == self.lane)

    def _shape(self, axes: Sequence[str]) -> list[int]:
        """[B, T, H, ...], the last axis rounded up to whole vectors; a single number takes a vector too."""
        lengths = [self.arguments.sizes[axes[n]] for n in self._memory_order(axes)] or [1]
        lengths[-1] = -(-lengths[-1] // self.lanes) * self.lanes
        return [self.arguments.batch, self.arguments.time, self.arguments.heads, *lengths]
