"""Where the rows lie that a streamed forward pass keeps for its gradient.

In: `Programs`, the checked `Arguments` of a call, numbers of a vector. Out: how many numbers all rows take, and the
layout of each kind of row in the tensor that holds them. Rows have room for whole vectors, so that a kernel uses them
where they are.
"""

from __future__ import annotations

import math

from torch import Tensor

from rekern.loops.program import Place
from rekern.runtime.arguments import Arguments
from rekern.runtime.launch import Layout
from rekern.schedules.programs import Programs

LEAD = ("B", "T", "H")


def row_count(programs: Programs, arguments: Arguments, lanes: int) -> int:
    """Numbers of all rows together."""
    return sum(math.prod(_shape(programs, arguments, lanes, place)) for place in programs.saved)


def row_layout(programs: Programs, arguments: Arguments, lanes: int, saved: Tensor, place: Place) -> Layout:
    """Where the rows of `place` lie in `saved`: one kind of row after the other."""
    first = 0
    for other in programs.saved:
        shape = _shape(programs, arguments, lanes, other)
        if other == place:
            break
        first += math.prod(shape)
    axes, order = programs.saved[place], _memory_order(programs, place)
    tensor = saved[first : first + math.prod(shape)].view(shape)
    if axes:
        tensor = tensor.permute(0, 1, 2, *(3 + order.index(n) for n in range(len(axes))))
    return Layout(tensor, LEAD, tuple(i.dim for i in axes))


def _memory_order(programs: Programs, place: Place) -> list[int]:
    """The axes of a row as they lie: the lane last."""
    axes = programs.saved[place]
    return sorted(range(len(axes)), key=lambda n: axes[n].dim == programs.lane)


def _shape(programs: Programs, arguments: Arguments, lanes: int, place: Place) -> list[int]:
    """[B, T, H, ...], the last axis rounded up to whole vectors; a single number takes a vector too."""
    axes = programs.saved[place]
    lengths = [arguments.sizes[axes[n].dim] for n in _memory_order(programs, place)] or [1]
    lengths[-1] = -(-lengths[-1] // lanes) * lanes
    return [arguments.batch, arguments.time, arguments.heads, *lengths]
