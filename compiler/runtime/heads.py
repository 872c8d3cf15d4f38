"""Heads of an elementwise call as columns of one head.

In: checked `Arguments`. Out: the same call with H = 1 and rows H times as long, where heads lie side by side in every
tensor: memory is then walked from end to end, and not in pieces of a head. Numbers never meet along the row, so the
results are the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from rekern.runtime.arguments import Arguments
from rekern.schedules.programs import Programs

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)

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
        tensors={n: row_of_columns(t) for n, t in arguments.tensors.items()},
        state={n: row_of_columns(t) for n, t in arguments.state.items()},
        sizes={**arguments.sizes, programs.lane: length},
        heads=1,
    )


def row_of_columns(tensor: MaybeTensor) -> MaybeTensor:
    """[..., H, D] as [..., 1, H * D]."""
    return tensor if tensor is None else tensor.flatten(-2).unsqueeze(-2)


def row_of_heads(tensor: MaybeTensor, heads: int) -> MaybeTensor:
    """[..., 1, H * D] as [..., H, D]."""
    return tensor if tensor is None else tensor.reshape(*tensor.shape[:-2], heads, tensor.shape[-1] // heads)
