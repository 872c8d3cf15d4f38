"""Where the arrays of a pass lie: tensors of the caller, working memory, weights laid out for products.

In: `Programs` and chosen sizes, then operands and arrays one by one. Out: `PassArrays`: views, work arrays and panels
as a template sees them, and the C++ that names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rekern.loops.program import Place, Program
from rekern.printers.cpp import Packed, identifier, indent
from rekern.printers.cpp_names import own_part
from rekern.schedules.passes import CpuSizes, Panels, Pointer, Slot, Source, View, WorkArray
from rekern.schedules.programs import Programs
from rekern.schedules.reading import reads, reads_elementwise
from rekern.schedules.team import why_no_team
from rekern.spec import Operand
from rekern.trace import cells_of


class PassArrays:
    """The tensors of the caller that a pass takes, its working memory, and how its text names both."""

    def __init__(self, programs: Programs, sizes: CpuSizes) -> None:
        self.programs = programs
        self.spec = programs.spec
        self.sizes = sizes
        self.lane = programs.lane
        self.rows = programs.rows
        self.tile = {self.lane: f"{self.lane}_TILE"} if self.lane is not None and sizes.tile else {}
        self.slots: list[Slot] = []
        self.views: list[View] = []
        self.work: dict[str, WorkArray] = {}
        self.packed: dict[str, Packed] = {}
        self.packed_slots: dict[Place, int] = {}
        self.masks: set[str] = set()
        self.temporaries: dict[str, Pointer] = {}
        self.walks: set[str] = set()
        self.team = why_no_team(programs) is None
        self.turning: set[Place] = set()  # arrays that a team writes by turns

    # -- memory

    def memory_order(self, dims: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(dims, key=lambda d: d == self.lane))

    def row(self, dim: str) -> str:
        return self.tile.get(dim, f"dims.{dim}_row")

    def size(self, dims: Iterable[str]) -> str:
        order = self.memory_order(dims)
        return " * ".join([*(f"dims.{d}" for d in order[:-1]), self.row(order[-1])]) if order else "1"

    def add_work(self, name: str, size: str, private: bool = False) -> str:
        known = self.work.get(name)
        if known is not None and known.size != size:  # two programs of the pass use one name for two arrays
            size = f"({known.size} > {size} ? {known.size} : {size})"
        self.work[name] = WorkArray(name, size, private)
        return name

    def this_turn(self, name: str, size: str, turn: str = "turn") -> str:
        """Where the array that a step works on begins, of two that are written by turns."""
        return f"work.{name} + {turn} * dims.batch_rows * {size}"

    # -- tensors of the caller

    def view(
        self,
        slot: Slot,
        dims: tuple[str, ...],
        *,
        mine: bool = False,
        padded: bool = False,
        written: bool = False,
        suffix: str = "tensor",
    ) -> View:
        """The view of a tensor.

        Args:
            mine: Only the first task of a row of columns reads or writes it.
            padded: Its rows have room for whole vectors.
            written: A step writes it and nobody reads it soon.
        """
        number = len(self.slots)
        self.slots.append(slot)
        name = f"{identifier((slot.operand, slot.cell))}_{suffix}"
        shared = mine and self.lane is not None and self.lane not in dims
        arguments = [f"call.tensors[{number}]", "head", "group", "first_columns" if shared else "true"]
        order = sorted(range(len(dims)), key=lambda n: dims[n] == self.lane)
        if order:
            counts = {n: f"dims.{dims[n]}" for n in order}
            if padded:
                counts[order[-1]] = self.row(dims[order[-1]])
            parts = (f"{{{n}, {counts[n]}, {'first_column' if dims[n] == self.lane else '0'}}}" for n in order)
            arguments += [f"{{{', '.join(parts)}}}", self.row(dims[order[-1]])]
        if self.team:
            arguments.append(self.own([dims[n] for n in order]))
        construct = f"({', '.join(arguments)})"
        if written and self.programs.streamed:
            construct = f" = Array{construct}.written(call.past_caches)"
        view = View(name, slot, construct, len(dims), self.size(dims))
        self.views.append(view)
        return view

    def cells(self, operand: Operand) -> list[Place]:
        return [(operand.name, cell) for cell in cells_of(operand.dims)]

    # -- text

    def at(self, name: str, size: str) -> str:
        """Where the array of one batch row begins."""
        if not self.rows:
            return name
        return f"{name} + row * ({size})" if " " in size else f"{name} + row * {size}"

    def fill(self, array: WorkArray, axes: tuple[str, ...], value: str) -> str:
        """Fills the array of one batch row, or the part of a member of a team."""
        if self.team:
            return f"fill({self.at(array.name, array.size)}, {self.own(axes)}, {value});"
        return f"fill({self.at(array.name, array.size)}, {array.size}, {value});"

    def own(self, axes: Sequence[str]) -> str:
        """The part of the last of `axes` that a member of a team has in hand; the leader has what has none."""
        return own_part(axes[-1]) if axes else "leader_only"

    def each_row(self, lines: Iterable[str], now: bool = True) -> tuple[str, ...]:
        """`lines` for every batch row in hand. `now`: with `batch` and `time` of this step."""
        lines = list(lines)
        if not lines and (self.rows or not now):
            return ()
        first = ["const Sequence& sequence = call.sequences[first_sequence + row];"] if self.rows else []
        if now:
            first += ["const int64_t batch = sequence.batch, time = sequence.at(step, call.reverse);"]
        if not self.rows:
            return (*first, *lines)
        return ("for (int row = 0; row < rows; ++row) {", *indent([*first, *lines]), "}")

    # -- weights and states

    def params(self, *programs: Program) -> tuple[str, ...]:
        """Parameters into working memory, once a task; weights that are only contracted are packed instead."""
        lines = []
        packed = {part.place for p in self.packed.values() for part in p.parts}
        read = set().union(*map(reads, programs))
        elementwise = set().union(*map(reads_elementwise, programs))
        for o in self.spec.of_kind("param"):
            for place in self.cells(o):
                if place not in read:
                    continue
                self.packed_slots[place] = len(self.slots)
                name = identifier(place)
                if place in packed and place not in elementwise:
                    self.slots.append(Slot("param", *place))
                    continue
                view = self.view(Slot("param", *place), o.axes)
                if not o.axes:
                    lines.append(f"const real {name} = {view.name}.one(0, 0);")
                else:
                    self.work[name] = WorkArray(name, view.size)
                    lines.append(f"const real* {name} = {view.name}.view(work.{name}, 0, 0);")
        return tuple(lines)

    def _panels(self, packed: Packed) -> Panels:
        sources = (
            Source(self.packed_slots[p.place], *((0, 1) if p.transposed else (1, 0))) for p in packed.parts
        )
        return Panels(packed.name, packed.depth, packed.width, tuple(sources))

    def state_arrays(self, prefix: str = "") -> list[tuple[Operand, Place, WorkArray]]:
        return [
            (o, place, WorkArray(identifier((prefix + o.name, place[1])), self.size(o.axes)))
            for o in self.spec.states
            for place in self.cells(o)
        ]
