"""From the addresses of tensors to one call of a compiled pass.

In: a built pass, checked `Arguments`, and how the tensor of every slot is laid out. Out: a `Prepared` pass, which
fills in addresses and calls. All that depends on shapes only is written down once, because a call of a small problem
takes less time than it takes to write it down. The structs mirror templates/cpp/arrays.h.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rekern.runtime import panels
from rekern.runtime.arguments import Arguments, longest_first
from rekern.runtime.passes import BuiltPass
from rekern.schedules.cpu.shape import RunSizes
from rekern.schedules.passes import Slot
from rekern.trace import Dim

DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
MOST_AXES = 4
TENSOR_FIELDS = 7 + MOST_AXES
WORD = 8
LONG = ctypes.c_int64

STEPS_WORTH_PANELS = 3  # fewer products cost less than laying out all panels for them
WORTH_KEEPING = 1 << 16  # bytes of panels; fewer are laid out as soon as they are looked up
_kinds: dict[object, int] = {}  # of panels, by all that they depend on but the weights themselves
_numbers = itertools.count()


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
        ("team", LONG),
        ("panels", ctypes.c_void_p),
        ("panels_state", LONG),
    ]


@dataclass(frozen=True)
class Layout:
    """How a tensor is laid out: its implicit axes by name, then the axes of the operand.

    number: which of the addresses of a call is that of its first element.
    tensor: one of its shape, strides and dtype; its numbers are not looked at.
    offset: numbers from that address to the first element.
    """

    number: int
    tensor: Tensor
    lead: tuple[str, ...]
    dims: tuple[Dim, ...]
    cell: tuple[int, ...] = ()
    offset: int = 0


def record(layout: Layout, heads: int) -> tuple[int, list[int]]:
    """A tensor as the fields of `struct Tensor`; first what is to be added to its address."""
    tensor, lead = layout.tensor, layout.lead
    strides = tensor.stride()
    bytes_ = tensor.element_size()
    by_lead = {axis: strides[n] * bytes_ for n, axis in enumerate(lead)}
    offset = layout.offset
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
    padding = [0] * (MOST_AXES - len(axes))
    return offset * bytes_, [
        0,
        DTYPE_CODES[tensor.dtype],
        by_lead.get("P", 0),  # one copy for each column group: they write side by side
        batch,
        by_lead.get("T", 0),
        by_lead.get("H", 0),
        heads // own_heads,
        *axes,
        *padding,
    ]


@dataclass(frozen=True)
class Frame:
    """The structs of one call in memory. `scalars` is a view of the part that holds them; `panels` is its own memory
    for the few panels that are not worth keeping.
    """

    words: ctypes.Array[LONG]
    scalars: ctypes.Array[ctypes.c_double]
    address: int
    panels: Tensor | None


class Prepared:
    """A pass with all fields of its call filled in but the addresses of tensors and the values of scalars."""

    def __init__(
        self,
        built: BuiltPass,
        arguments: Arguments,
        run: RunSizes,
        groups: int,
        layout_of: Callable[[Slot], Layout | None],
        scalar_count: int,
        reset: Tensor | None,
        reverse: bool,
        numbers: tuple[int, int],
    ) -> None:
        """`numbers`: which of the addresses of a call are those of `reset` and of the saved values."""
        self._run = built.library.run
        sequences = longest_first(arguments.sequences) if built.rows else list(arguments.sequences)
        before = [0]
        for first in range(0, len(sequences), run.rows):
            before.append(before[-1] + sequences[first][2])
        words = [0] * (ctypes.sizeof(Call) // WORD)
        fills: list[tuple[int, int, int]] = []

        def append(field: str, values: Sequence[int]) -> None:
            self._pointers.append((_word(field), len(words)))
            words.extend(values or [0])

        self._pointers: list[tuple[int, int]] = []
        fields: list[int] = []
        for slot in built.interface.slots:
            layout = layout_of(slot)
            if layout is None:
                fields += [0] * 6 + [1] + [0] * MOST_AXES
                continue
            if layout.tensor.numel():
                offset, found = record(layout, arguments.heads)
                fills.append((len(words) + len(fields), layout.number, offset))
                fields += found
            else:
                fields += record(layout, arguments.heads)[1]
        append("tensors", fields)
        append("sizes", [arguments.sizes[axis] for axis in built.axes])
        append("sequences", [x for s in sequences for x in s])
        append("steps_before", before)
        self._scalars_at, self._scalar_count = len(words), scalar_count
        append("scalars", [0] * scalar_count)
        if reset is not None and reset.numel():
            fills.append((_word("reset"), numbers[0], 0))
        fills.append((_word("saved"), numbers[1], 0))
        known = {
            "reset_batch": reset.stride(0) if reset is not None else 0,
            "reset_time": reset.stride(1) if reset is not None else 0,
            "sequence_count": len(sequences),
            "heads": arguments.heads,
            "rows": run.rows,
            "block": run.block,
            "ahead": run.ahead,
            "columns": run.columns,
            "groups": groups,
            "reverse": int(reverse),
            "threads": run.threads,
            "past_caches": int(run.past_caches),
            "team": run.team,
        }
        for name, value in known.items():
            words[_word(name)] = value
        self._words = bytes((LONG * len(words))(*words))
        self._fills = tuple(fills)
        self._real = arguments.real
        self._own_panels = 0
        sized = self._frame()
        self.saved_size: int = built.library.saved_size(sized.address)
        self._panels_size: int = built.library.panels_size(sized.address)
        self._keeps = self._panels_size * self._real.itemsize > WORTH_KEEPING
        self._short = before[-1] < STEPS_WORTH_PANELS
        if not (self._keeps or self._short):
            self._own_panels = self._panels_size
        self._frames: list[Frame] = [self._frame()]  # threads that call at one time have one each
        weights = [w for n in built.interface.weights if (w := layout_of(built.interface.slots[n]))]
        self._weights = tuple(dict.fromkeys(w.number for w in weights))
        kind = (
            built.library,
            arguments.heads,
            *(arguments.sizes[axis] for axis in built.axes),
            *((w.number, *record(w, arguments.heads)[1], w.offset, w.cell) for w in weights),
        )
        self._kind = _kinds.setdefault(kind, next(_numbers))

    def _frame(self) -> Frame:
        words = (LONG * (len(self._words) // WORD)).from_buffer_copy(self._words)
        address = ctypes.addressof(words)
        for field, start in self._pointers:
            words[field] = address + WORD * start
        scalars = (ctypes.c_double * self._scalar_count).from_buffer(words, WORD * self._scalars_at)
        own = torch.empty(self._own_panels, dtype=self._real, device="cpu") if self._own_panels else None
        words[PANELS] = 0 if own is None else own.data_ptr()
        return Frame(words, scalars, address, own)

    def __call__(self, addresses: Sequence[int], scalars: Sequence[float], operands: Sequence[Tensor]) -> None:
        """Run the pass. `operands` are those whose addresses come first.

        Raises:
            MemoryError: working memory could not be had.
        """
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._frame()
        words = frame.words
        for place, number, offset in self._fills:
            words[place] = addresses[number] + offset
        for n, value in enumerate(scalars):
            frame.scalars[n] = value
        if self._keeps:
            key = (self._kind, *[addresses[n] for n in self._weights])
            entry = panels.take(key, [operands[n] for n in self._weights], self._panels_size, self._real)
            words[PANELS] = 0 if self._short and entry.state == panels.NOT_MARKED else entry.address
            words[PANELS_STATE] = entry.state
            failed = self._run(frame.address)
            if not failed:
                panels.put(key, entry)
        else:
            failed = self._run(frame.address)
        self._frames.append(frame)
        if failed:
            raise MemoryError("no memory for the working arrays of a kernel")


def _word(field: str) -> int:
    """Where a field of `struct Call` stands, in words."""
    return int(getattr(Call, field).offset) // WORD


PANELS, PANELS_STATE = _word("panels"), _word("panels_state")
