"""Heads of an elementwise call as columns of one head.

In: checked `Arguments`. Out: the same call with H = 1 and rows H times as long, where heads lie side by side in every
tensor: memory is then walked from end to end, and not in pieces of a head. Numbers never meet along the row, so the
results are the same.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rekern.runtime.arguments import Arguments
from rekern.schedules.programs import Programs


def merges(programs: Programs, arguments: Arguments) -> bool:
    """Whether the heads of a call can be columns. It depends on nothing but what a call and its gradient share."""
    lane, heads = programs.lane, arguments.heads
    if heads == 1 or lane is None or not programs.heads_are_columns:
        return False
    length = arguments.sizes[lane]
    return all(t.shape[-2] == heads and t.stride()[-2:] == (length, 1) for t in arguments.tensors.values())


def merged(programs: Programs, arguments: Arguments) -> Arguments:
    """The call with its heads as columns."""
    assert programs.lane is not None
    length = arguments.heads * arguments.sizes[programs.lane]
    return replace(
        arguments,
        tensors={n: as_columns(t) for n, t in arguments.tensors.items()},
        state={n: as_columns(t) for n, t in arguments.state.items()},
        sizes={**arguments.sizes, programs.lane: length},
        heads=1,
    )


def as_columns(tensor: Tensor) -> Tensor:
    """[..., H, D] as [..., 1, H * D]."""
    return tensor.reshape(*tensor.shape[:-2], 1, -1)


def as_heads(tensor: Tensor, heads: int) -> Tensor:
    """[..., 1, H * D] as [..., H, D]."""
    return tensor.reshape(*tensor.shape[:-2], heads, -1)
