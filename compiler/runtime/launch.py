"""From tensors to one call of a compiled pass.

In: a `Pass`, its library, checked `Arguments`, and the tensor for every slot. Out: the call's effect on the
result tensors. The structs mirror templates/cpp/arrays.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rekern.runtime.arguments import Arguments, longest_first
from rekern.schedules.cpu.shape import RunSizes
from rekern.schedules.passes import Pass, Slot
from rekern.trace import Dim

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
MOST_AXES = 4
TENSOR_FIELDS = 7 + MOST_AXES
LONG = ctypes.c_int64


class Call(ctypes.Structure):
    """`struct Call` of the generated code."""

    _fields_ = [
        ("tensors", ctypes.c_void_p),
        ("scalars", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("sequences", ctypes.c_void_p),
        ("steps_before", ctypes.c_void_p),
        ("reset", ctypes.c_void_p),
        ("reset_batch", LONG),
        ("reset_time", LONG),
        ("saved", ctypes.c_void_p),
        ("sequence_count", LONG),
        ("heads", LONG),
        ("rows", LONG),
        ("block", LONG),
        ("ahead", LONG),
        ("columns", LONG),
        ("groups", LONG),
        ("reverse", LONG),
        ("threads", LONG),
        ("past_caches", LONG),
    ]


@dataclass(frozen=True)
class Layout:
    """How a tensor of the caller is laid out: its implicit axes by name, then the axes of the operand."""

    tensor: Tensor
    lead: tuple[str, ...]
    dims: tuple[Dim, ...]
    cell: tuple[int, ...] = ()


def record(layout: Layout, heads: int) -> list[int]:
    """A tensor as the fields of `struct Tensor`."""
    tensor, lead = layout.tensor, layout.lead
    strides = tensor.stride()
    bytes_ = tensor.element_size()
    by_lead = {axis: strides[n] * bytes_ for n, axis in enumerate(lead)}
    offset = 0
    axes = []
    cell = iter(layout.cell)
    for n, dim in enumerate(layout.dims):
        stride = strides[len(lead) + n]
        if isinstance(dim, int):
            offset += next(cell) * stride
        else:
            axes.append(stride)
    own_heads = tensor.shape[lead.index("H")] if "H" in lead else heads
    batch = by_lead.get("B", by_lead.get("N", by_lead.get("U", 0)))
    address = tensor.data_ptr() + offset * bytes_ if tensor.numel() else 0
    padding = [0] * (MOST_AXES - len(axes))
    part = (
        by_lead["P"] if "P" in lead and tensor.shape[0] > 1 else 0
    )  # one copy: column groups write side by side
    group = heads // own_heads
    return [
        address,
        DTYPE_CODES[tensor.dtype],
        part,
        batch,
        by_lead.get("T", 0),
        by_lead.get("H", 0),
        group,
        *axes,
        *padding,
    ]


def prepare(
    view: Pass,
    arguments: Arguments,
    run: RunSizes,
    groups: int,
    layout_of: Callable[[Slot], Layout | None],
    scalars: Sequence[float],
    reset: Tensor | None,
    reverse: bool,
    saved: Tensor | None,
) -> tuple[Call, list[object]]:
    """A call and everything that must live as long as it."""
    fields: list[int] = []
    alive: list[object] = []
    for slot in view.slots:
        layout = layout_of(slot)
        if layout is None:
            fields += [0] * TENSOR_FIELDS
            fields[-TENSOR_FIELDS + 6] = 1
        else:
            fields += record(layout, arguments.heads)
            alive.append(layout.tensor)
    sequences = longest_first(arguments.sequences) if view.rows else list(arguments.sequences)
    before = [0]
    for first in range(0, len(sequences), run.rows):
        before.append(before[-1] + sequences[first][2])
    tensors = (LONG * len(fields))(*fields)
    numbers = (ctypes.c_double * max(1, len(scalars)))(*scalars)
    sizes = (LONG * max(1, len(view.axes)))(*(arguments.sizes[a] for a in view.axes))
    table = (LONG * (4 * len(sequences)))(*(x for s in sequences for x in s))
    steps = (LONG * len(before))(*before)
    call = Call(
        tensors=ctypes.addressof(tensors),
        scalars=ctypes.addressof(numbers),
        sizes=ctypes.addressof(sizes),
        sequences=ctypes.addressof(table),
        steps_before=ctypes.addressof(steps),
        reset=reset.data_ptr() if reset is not None and reset.numel() else None,
        reset_batch=reset.stride(0) if reset is not None else 0,
        reset_time=reset.stride(1) if reset is not None else 0,
        saved=saved.data_ptr() if saved is not None else None,
        sequence_count=len(sequences),
        heads=arguments.heads,
        rows=run.rows,
        block=run.block,
        ahead=run.ahead,
        columns=run.columns,
        groups=groups,
        reverse=int(reverse),
        threads=run.threads,
        past_caches=int(run.past_caches),
    )
    return call, [*alive, tensors, numbers, sizes, table, steps, reset, saved]


def launch(library: ctypes.CDLL, call: Call) -> None:
    """Run the pass.

    Raises:
        MemoryError: working memory could not be had.
    """
    if library.run(ctypes.addressof(call)) != 0:
        raise MemoryError("no memory for the working arrays of a kernel")
