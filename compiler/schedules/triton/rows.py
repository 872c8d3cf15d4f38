"""Rows of a step that a kernel writes down for the gradient: one array, each value at its own place in a slot.

In: places with their dims. Out: stores and loads as text. In memory, slots lie dense; in a scratch, values have the
shape of tensors, padding included, so that nothing is masked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rekern.ir import Index
from rekern.loops.program import Place
from rekern.schedules.triton.arrays import Pointer
from rekern.schedules.triton.passes import Recorded, Use
from rekern.trace import Dim

if TYPE_CHECKING:
    from rekern.schedules.triton.time_loop import TimeLoop


class Rows:
    """The rows of one array. `masked`: without padding, one row for each step; else a scratch of this program."""

    def __init__(self, loop: TimeLoop, places: Mapping[Place, tuple[Dim, ...]], masked: bool) -> None:
        self.loop = loop
        self.places = places
        self.masked = masked
        lengths = dict(loop.sizes.lengths) if masked else loop.tile
        rows = 1 if masked or not loop.held.rows else loop.sizes.rows
        found, offset = [], 0
        for (name, cell), dims in places.items():
            count = rows * math.prod(lengths[d] if isinstance(d, str) else d for d in dims)
            found.append(Recorded(name, cell, dims, offset, count))
            offset += count
        self.recorded = tuple(found)
        self._by_place = {(r.name, r.cell): r for r in found}

    @property
    def slot(self) -> int:
        """Numbers of one step."""
        return sum(r.count for r in self.recorded)

    def declare(self, use: Use, word: str) -> Pointer:
        """The argument."""
        return self.loop.arrays.pointer(use, word, (), "step", word)

    def store(self, pointer: Pointer, place: Place, value: str, step: str = "t") -> str:
        """Write one value."""
        axes = self.loop.arrays.axes(self.places[place])
        mask = self.loop.arrays.mask(axes) if self.masked else None
        return f"tl.store({self._address(pointer, place, step)}, {value}{f', mask={mask}' if mask else ''})"

    def load(self, pointer: Pointer, place: Place, step: str = "t") -> str:
        """Read one value."""
        axes = self.loop.arrays.axes(self.places[place])
        mask = self.loop.arrays.mask(axes) if self.masked else None
        address = self._address(pointer, place, step)
        return f"tl.load({address}, mask={mask}, other=0.0)" if mask else f"tl.load({address})"

    def _address(self, pointer: Pointer, place: Place, step: str) -> str:
        loop, offset = self.loop, self._by_place[place].offset
        arrays, dims = loop.arrays, self.places[place]
        axes = arrays.axes(dims)
        at = f" + {offset}" if offset else ""
        if self.masked:
            start = arrays._spread(f"(row + {step} * row_step)", axes, loop.held.rows)
            return " + ".join([f"{pointer.name} + {start} * SLOT{at}", *arrays._offsets(dims, (), axes)])
        terms: list[str] = []
        stride = ""
        for axis in reversed(axes):
            name, own = ("at_row", "ROWS") if isinstance(axis, str) else (self._index(axis), loop.block(axis.dim))
            spread = name if len(axes) == 1 else f"{name}[{', '.join(':' if a == axis else 'None' for a in axes)}]"
            terms.append(arrays._times(spread, stride))
            stride = f"{own} * {stride}" if stride else own
        return " + ".join([f"{pointer.name} + (slot_row + {step}) * SLOT{at}", *reversed(terms)])

    def _index(self, axis: Index) -> str:
        """Places along an axis, from 0 on in every tile."""
        return f"tile_{axis.dim}" if axis.dim == self.loop.lane else f"at_{axis.dim}"
