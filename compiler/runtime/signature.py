"""What of a call's tensors decides how they are worked on, read as cheaply as it can be.

In: tensors. Out: a key under which the work of checking and laying out a call is kept, and whether their numbers may
be read straight from memory, past torch's dispatcher.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

dispatch_modes = torch._C._len_torch_dispatch_stack
function_mode = torch._C._is_torch_function_mode_enabled
transform = torch._C._functorch.peek_interpreter_stack
trace = torch._C._get_tracing_state
profile = torch._C._autograd._profiler_enabled

PLAIN = (Tensor, torch.nn.Parameter)
Key = tuple[object, ...]


class Options(NamedTuple):
    """What a call asks for beside its tensors. `scalars`: which of them are given."""

    reverse: bool
    threads: int
    record: bool
    one_step: bool
    in_place: bool
    scalars: tuple[bool, ...]


def signature(tensors: Iterable[Tensor | None]) -> Key:
    """All of the tensors but their numbers: the same for calls that are checked and laid out the same."""
    return tuple(
        [
            None
            if t is None
            else (t.shape, t.stride(), t.dtype, t.is_cpu, t.layout, t.__class__, t.is_neg(), t._is_zerotensor())
            for t in tensors
        ]
    )


def plain(tensors: Iterable[Tensor | None]) -> bool:
    """Whether the numbers of all tensors stand in memory as they are: no subclass, no negation that waits."""
    return all(t is None or (type(t) in PLAIN and not t.is_neg() and not t._is_zerotensor()) for t in tensors)


def in_memory(tensor: Tensor) -> Tensor:
    """The tensor with its numbers in memory as they are: torch sees to lists of tensors, not of optional ones."""
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    return tensor.resolve_neg()


def eager() -> bool:
    """Whether nobody watches or changes what operators do: no mode, transform, trace or profile is at work."""
    return not (
        dispatch_modes()
        or function_mode()
        or transform() is not None
        or forward_ad._current_level >= 0
        or trace() is not None
        or profile()
    )
