"""Where the arrays of a Triton kernel are: its arguments, addresses, loads and stores as text.

In: dims of an operand, the sizes of a launch. Out: lines. Of the caller's arrays by step, strides are arguments; what
the launch itself makes lies dense, a row of `[.., step, head]` after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rekern import ir
from rekern.ir import Index
from rekern.printers.triton import ROWS, Held
from rekern.printers.triton_names import Names
from rekern.schedules.triton.passes import Argument, Sizes, Use, Variant
from rekern.trace import Cell, Dim, named

Lead = Literal["strided", "step", "state", "param", "checkpoint", "copy", "product"]
Axes = tuple[Index | str, ...]


@dataclass(frozen=True)
class Pointer:
    """An argument that points to an array. `lead`: how its rows are found; `parts`: a copy for each tile of columns."""

    name: str
    lead: Lead
    dims: tuple[Dim, ...]
    dtype: str
    parts: bool = False


@dataclass
class Arrays:
    """The arrays of one kernel, as they are declared."""

    held: Held
    sizes: Sizes
    variant: Variant
    names: Names
    lane: str | None
    arguments: list[Argument] = field(default_factory=list)
    begin: list[str] = field(default_factory=list)

    # -- arguments

    def pointer(
        self,
        use: Use,
        operand: str,
        dims: tuple[Dim, ...],
        lead: Lead,
        word: str,
        dtype: str = "fp32",
        parts: bool = False,
    ) -> Pointer:
        """Declare an array; the lines that find the rows of this block go to `begin`."""
        name = self.names.fresh(f"{word}_at" if lead in ("strided", "param") else word)
        self.arguments.append(Argument(name, "pointer", f"*{dtype}", use, operand))
        if lead == "strided":
            head = self._head(operand, name)
            packed, reverse = self.variant.packed, self.variant.reverse
            by = {a: f"{name}_{a}" for a in (("time", "head") if packed else ("batch", "time", "head"))}
            for axis, stride in by.items():
                self._number(stride, "stride", use, operand, axis)
            time = by["time"]
            start = [] if packed else [f"batch * {by['batch']}"]
            start += [f"begin * {time}"] * (packed or reverse or self.sizes.segment > 0)
            self.begin.append(f"{name} += {' + '.join([*start, head + ' * ' + by['head']])}")
            if reverse:
                self.begin.append(f"{time} = -{time}")
        elif lead == "param":
            self.begin.append(f"{name} += {self._times(self._head(operand, name), self._count(dims))}")
        if parts:
            part = self._number(f"{name}_part", "stride", use, operand, "part")
            self.begin.append(f"{name} += column_tile * {part}")
        return Pointer(name, lead, dims, dtype, parts)

    def _head(self, operand: str, name: str) -> str:
        if operand not in self.variant.shared_heads:
            return "head"
        return f"(head // {self._number(f'{name}_shared', 'group', None, operand)})"

    def _number(
        self, name: str, kind: Literal["stride", "group"], use: Use | None, operand: str, axis: str = ""
    ) -> str:
        self.arguments.append(Argument(name, kind, "i64" if kind == "stride" else "i32", use, operand, axis))
        return name

    # -- addresses

    def size(self, dims: tuple[Dim, ...]) -> int:
        """Numbers of one row."""
        lengths = dict(self.sizes.lengths)
        return math.prod(lengths[d] if isinstance(d, str) else d for d in dims)

    def axes(self, dims: tuple[Dim, ...], rows: bool | None = None) -> Axes:
        """The axes of a tensor with these dims."""
        own = self.held.order(ir.canonical_axes(named(dims)))
        return (ROWS, *own) if (self.held.rows if rows is None else rows) else own

    def address(self, array: Pointer, cell: Cell, step: str = "t") -> str:
        """Where the numbers of one cell are."""
        rows = self.held.rows and array.lead not in ("param", "copy")
        axes = self.axes(array.dims, rows)
        size = self._count(array.dims)
        match array.lead:
            case "strided":
                start = f"{self._spread(array.name, axes, rows)} + {step} * {array.name}_time"
            case "step":
                row = f"row + {step} * row_step"
                start = f"{array.name} + {self._times(self._spread(f'({row})', axes, rows), size)}"
            case "state":
                start = f"{array.name} + {self._times(self._spread('state_row', axes, rows), size)}"
            case "product":
                start = f"{array.name} + {self._times(self._spread('product_row', axes, rows), size)}"
            case "checkpoint":
                start = f"{array.name} + {self._times(self._spread(f'({step})', axes, rows), size)}"
            case "param":
                start = array.name
            case "copy":
                start = f"{array.name} + {self._times('copy_row', size)}"
        return " + ".join([start, *self._offsets(array.dims, cell, axes)])

    def load_matrix(self, array: Pointer, cell: Cell, turned: bool) -> str:
        """A matrix as the caller has it, or its transpose; in its own dtype."""
        first, second = ir.canonical_axes(named(array.dims))
        axes: Axes = (second, first) if turned else (first, second)
        address = " + ".join([array.name, *self._offsets(array.dims, cell, axes)])
        mask = self.mask(axes, None)
        return f"tl.load({address}, mask={mask}, other=0.0)" if mask else f"tl.load({address})"

    def _offsets(self, dims: tuple[Dim, ...], cell: Cell, axes: Axes) -> list[str]:
        """The terms for the named axes and for the literal cell."""
        indices, cells = iter(ir.canonical_axes(named(dims))), iter(cell)
        found: list[str] = []
        for n, dim in enumerate(dims):
            stride = self._count(dims[n + 1 :])
            if isinstance(dim, str):
                found.append(self._times(self._spread_index(next(indices), axes), stride))
            elif (number := next(cells)) > 0:
                found.append(self._times(str(number), stride) if number > 1 or not stride else stride)
        return found

    def _spread_index(self, index: Index, axes: Axes) -> str:
        if len(axes) == 1:
            return f"at_{index.dim}"
        return f"at_{index.dim}[{', '.join(':' if a == index else 'None' for a in axes)}]"

    @staticmethod
    def _spread(text: str, axes: Axes, rows: bool) -> str:
        """A number of each sequence, as a tensor of `axes`."""
        if not rows or len(axes) == 1:
            return text
        return f"{text}[{', '.join(':' if a == ROWS else 'None' for a in axes)}]"

    @staticmethod
    def _count(dims: Sequence[Dim]) -> str:
        """How many numbers an array with these dims has, as text."""
        return " * ".join(str(d) for d in dims if d != 1)

    @staticmethod
    def _times(text: str, count: str) -> str:
        if not count:
            return text
        return f"{text} * {count}" if " * " not in count else f"{text} * ({count})"

    # -- masks, loads and stores

    def mask(self, axes: Axes, rows: str | None = "alive") -> str | None:
        """Which places of a tensor exist; `rows`: the mask of the sequences."""
        found = [self._mask_of(axis, axes, rows) for axis in axes if self._is_masked(axis, rows)]
        return " & ".join(found) or None

    def _is_masked(self, axis: Index | str, rows: str | None) -> bool:
        return rows is not None if isinstance(axis, str) else axis.dim in self.held.padded

    @staticmethod
    def _mask_of(axis: Index | str, axes: Axes, rows: str | None) -> str:
        name = rows if isinstance(axis, str) else f"in_{axis.dim}"
        if len(axes) == 1:
            return str(name)
        return f"{name}[{', '.join(':' if a == axis else 'None' for a in axes)}]"

    def load(self, array: Pointer, cell: Cell, step: str = "t", rows: str = "alive") -> str:
        """The numbers of one cell as float32, zeros where there are none."""
        axes = self.axes(array.dims, self.held.rows and array.lead not in ("param", "copy"))
        mask = self.mask(axes, rows)
        text = self.address(array, cell, step)
        text = f"tl.load({text}, mask={mask}, other=0.0)" if mask else f"tl.load({text})"
        return text if array.dtype in ("fp32", "fp64") else f"{text}.to(tl.float32)"

    def store(self, array: Pointer, cell: Cell, value: str, step: str = "t", rows: str = "alive") -> str:
        """Write the numbers of one cell."""
        axes = self.axes(array.dims, self.held.rows and array.lead not in ("param", "copy"))
        mask = self.mask(axes, rows)
        return f"tl.store({self.address(array, cell, step)}, {value}{f', mask={mask}' if mask else ''})"
