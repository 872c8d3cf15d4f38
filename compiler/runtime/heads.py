"""Heads of an elementwise call as columns of one head.

In: checked `Arguments`. Out: the same call with H = 1 and rows H times as long, where heads lie side by side in every
tensor: memory is then walked from end to end, and not in pieces of a head. Numbers never meet along the row, so the
results are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        tensors=as_columns(arguments.tensors),
        state=as_columns(arguments.state),
        sizes={**arguments.sizes, programs.lane: length},
        heads=1,
    )


def as_columns(tensors: Mapping[str, MaybeTensor]) -> dict[str, MaybeTensor]:
    """Each [..., H, D] as [..., 1, H * D]."""
    return {n: t if t is None else t.flatten(-2).unsqueeze(-2) for n, t in tensors.items()}


def as_heads(tensors: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Each [..., 1, H * D] as [..., H, D]."""
    return {n: t.reshape(*t.shape[:-2], heads, t.shape[-1] // heads) for n, t in tensors.items()}
