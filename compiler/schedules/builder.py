"""Puts together what a template sees of one pass.

In: `Programs` and chosen sizes, then programs, operands and results one by one. Out: a `Pass`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rekern import ir
from rekern.loops.order import arrange
from rekern.loops.program import Assign, Place, Program
from rekern.loops.team import Between
from rekern.printers.cpp import WAIT, Early, Packed, StepPrinter, StepText, identifier, indent
from rekern.printers.cpp_memory import Beside
from rekern.printers.cpp_names import own_part
from rekern.schedules.carry import AFTER, Carried
from rekern.schedules.passes import (
    MOST_ROWS,
    Ahead,
    Body,
    CpuSizes,
    Panels,
    Pass,
    PassName,
    Pointer,
    Second,
    Slot,
    Source,
    View,
    WorkArray,
)
from rekern.schedules.programs import Programs
from rekern.schedules.reading import reads, reads_elementwise, reads_in_step
from rekern.schedules.team import shared, team
from rekern.spec import Operand
from rekern.trace import cells_of


class PassBuilder:
    """Collects the parts of one pass."""

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
        self.team = team(programs) is None
        self.turning: set[Place] = set()    # arrays that a team writes by turns

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

    def print(self, program: Program, results: Mapping[Place, View], early: bool) -> StepText:
        """The text of `program`. Where rows are streamed, the views in `results` write their rows themselves."""
        loops = arrange(program)
        streams = {place: view.name for place, view in results.items()} if self.programs.streamed else None
        vectors = self.sizes.tile // self.sizes.lanes
        sharing = shared(self.programs, program)
        text = StepPrinter(loops, self.tile, vectors, self.sizes.registers, streams, early, sharing).run()
        self.turning |= sharing.turning if sharing else set()
        products = {name: product for product in text.early for name in product.targets}
        for name, axes in loops.temporaries.items():
            if axes or self.rows:
                self.temporaries[name] = self._temporary(name, axes, text.beside.get(name), products.get(name))
        for name, count in text.row_sums.items():
            self.temporaries[name] = Pointer(name, f"work.{self.add_work(name, f'LANES * {count}')}")
        self.packed.update(text.packed)
        self.masks |= text.masks
        self.walks |= text.walks
        return text

    def _temporary(
        self, name: str, axes: tuple[ir.Index, ...], beside: Beside | None, early: Early | None
    ) -> Pointer:
        word, size = identifier((name, ())), self.size(i.dim for i in axes)
        turns = (name, ()) in self.turning
        copies = "call.ahead * " if early else "dims.turns * " if turns else ""
        count = f"{beside.count} * {size}" if beside else size
        array = self.add_work(beside.array if beside else word, copies + count, private=self.team and not axes)
        place = self.this_turn(array, count) if turns else f"work.{array}"
        return Pointer(word, place + (f" + {beside.position} * {size}" if beside and beside.position else ""), turns)

    def waits(self, program: Program) -> Callable[[Between], tuple[str, ...]]:
        """What to print before a phase of a step: the members of a team wait for each other, or nothing."""
        sharing = shared(self.programs, program)
        return lambda phase: (WAIT,) if sharing is not None and phase in sharing.waits else ()

    def _ahead_of_steps(
        self, text: StepText, views: Mapping[Place, View], waits: Callable[[Between], tuple[str, ...]]
    ) -> Ahead | None:
        """The products with inputs, and how their rows are read."""
        if not text.early:
            return None
        reads = []
        for place in dict.fromkeys(product.vector for product in text.early):
            view = views[place]
            name = self.add_work(identifier(place), f"call.ahead * {view.size}")
            reads.append(f"{view.name}.read(work.{name} + line * {view.size}, sequence.batch, time);")
        products = tuple(product.text for product in text.early)
        return Ahead(waits("factors"), tuple(reads), (*waits("products"), *products))

    def body(
        self,
        program: Program,
        rows_in: Mapping[Place, View],
        rows_out: Mapping[Place, View],
        *,
        carried: Carried | None = None,
        adds: bool = False,
        back: bool = False,
        early: bool = False,
    ) -> Body:
        """The step of `program`.

        carried: the same step with sums that the step before has taken: it is what runs, if there is one.
        adds: results without the lane are summed over the tasks of a row of columns.
        back: steps are walked from last to first.
        early: products with inputs are done for some steps at once.
        """
        if carried is not None:
            program = carried.step
        whole = {a.target for a in program.assigns if not (adds and self._lacks_lane(a))}
        text = self.print(program, {place: view for place, view in rows_out.items() if place in whole}, early)
        read = reads_in_step(program, {p.vector for p in text.early})
        declare: list[str] = []
        stage: list[str] = []
        flush: list[str] = []
        ahead = carried.ahead if carried is not None else ()
        views = [view for place, view in rows_in.items() if place in read or place in ahead]
        views += [rows_out[a.target] for a in program.assigns if program.roles[a.target[0]] == "result"]
        for place, view in rows_in.items():
            if place in read:
                self._stage(place, view, text, declare, stage)
        first: tuple[str, ...] = ()
        if carried is not None:
            first = self._first_sums(carried, rows_in, read)
            after = "step > 0 ? step - 1 : step" if back else "step + 1 < steps ? step + 1 : step"
            stage.append(f"const int64_t next_time = sequence.at({after}, call.reverse);  // the last step's: its own")
            for name, cell in ahead:
                self._stage((AFTER + name, cell), rows_in[name, cell], text, declare, stage, "next_time")
        for assign in program.assigns:
            if program.roles[assign.target[0]] != "result":
                continue
            view = rows_out[assign.target]
            name = self.add_work(identifier(assign.target), self.size(i.dim for i in assign.axes))
            scratch = self.at(f"work.{name}", view.size)
            summed = adds and self._lacks_lane(assign)
            if self.rows:
                declare.append(f"real* {name}[{_pointers(assign.target, text)}];")
            here = f"{name}[row]" if self.rows else name
            stage.append(
                f"{here if self.rows else f'real* {name}'} = "
                + (f"{scratch};" if summed else f"{view.name}.open({scratch}, batch, time);")
            )
            flush.append(
                f"{view.name}.{'put' if summed else 'close'}"
                + (f"(batch, time, {here}, first_of_group);" if summed else f"({here}, batch, time);")
            )
        again = self.each_row(flush) if self.rows else tuple(flush)
        waits = self.waits(program)
        prefetched = self._ahead(text, {**rows_in, **rows_out}, back)
        moved = []
        for product in text.early:
            for name in product.targets:
                row = f"{self.temporaries.pop(name).place} + step % call.ahead * count * {product.row}"
                moved.append(f"real* {identifier((name, ()))} = {row};")
        return Body(
            self._ahead_of_steps(text, rows_in, waits),
            (*declare, *waits("rows"), *self.each_row(stage), *prefetched, *moved),
            tuple(text.lines),
            again,
            self._fetch(views, back),
            first,
        )

    def second(self, program: Program, rows_in: Mapping[Place, View], rows_out: Mapping[Place, View]) -> Second:
        """Two steps of `program` at once, where the rows of the first are there already."""
        text = self.print(program, {}, early=False)
        stage: list[str] = []
        flush: list[str] = []
        for name, cell in sorted(reads(program)):
            if name.startswith(AFTER):
                view = rows_in[name.removeprefix(AFTER), cell]
                self._stage((name, cell), view, text, [], stage, "next_time")
        for assign in program.assigns:
            if program.roles[assign.target[0]] == "result":
                name = self.add_work(identifier(assign.target), self.size(i.dim for i in assign.axes))
                view = rows_out[assign.target[0].removeprefix(AFTER), assign.target[1]]
                time = "next_time" if assign.target[0].startswith(AFTER) else "time"
                if time == "next_time":
                    stage.append(f"real* {name} = {view.name}.open(work.{name}, batch, next_time);")
                flush.append(f"{view.name}.close({name}, batch, {time});")
        return Second(tuple(stage), tuple(text.lines), tuple(flush))

    def _first_sums(
        self, carried: Carried, rows_in: Mapping[Place, View], staged: set[Place]
    ) -> tuple[str, ...]:
        """The sums that no step before has taken, with the rows that only they read."""
        for name, axes in carried.axes.items():
            array = identifier((name, ()))
            size = self.size(i.dim for i in axes)
            self.temporaries[name] = Pointer(array, f"work.{self.add_work(array, size)}")
        text = self.print(carried.first, {}, early=False)
        lines: list[str] = []
        for place in sorted(reads(carried.first) - staged):
            if place in rows_in:
                self._stage(place, rows_in[place], text, [], lines)
        return (*lines, *text.lines)

    def _lacks_lane(self, assign: Assign) -> bool:
        return self.lane is not None and self.lane not in {i.dim for i in assign.axes}

    def _fetch(self, views: Iterable[View], back: bool) -> tuple[str, ...]:
        """Asks for the rows of a step to come, where a step is long enough to wait for them."""
        if not self.tile:
            return ()
        later, there = ("step - AHEAD", "step >= AHEAD") if back else ("step + AHEAD", "step + AHEAD < steps")
        lines = [f"const int64_t later = sequence.at({later}, call.reverse);"]
        lines += [f"{view.name}.fetch(batch, later);" for view in views]
        return (f"if ({there}) {{", *indent(lines), "}")

    def _ahead(self, text: StepText, views: Mapping[Place, View], back: bool) -> tuple[str, ...]:
        """Where the first batch row of the next step is, after the last one of this step."""
        lines = []
        for place, view in views.items():
            if place in text.ahead:
                name = identifier(place)
                first = f"{name}[0]" if place in text.copied else f"{view.name}.after({name}[0], ahead)"
                lines.append(f"{name}[rows] = {first};")
        if not lines:
            return ()
        forwards, backwards = ("-1", "1") if back else ("1", "-1")
        return (f"const int64_t ahead = call.reverse ? {backwards} : {forwards};  // steps to the next one", *lines)

    def _stage(
        self,
        place: Place,
        view: View,
        text: StepText,
        declare: list[str],
        stage: list[str],
        time: str = "time",
    ) -> None:
        name = identifier(place)
        copied = place in text.copied
        kind = "const real" if view.rank == 0 else "const real*"
        here = f"{name}[row]" if self.rows else f"{kind} {name}"
        if self.rows:
            element = kind.removeprefix("const ") if view.rank == 0 else kind
            declare.append(f"{element} {name}[{_pointers(place, text)}];")
        if view.rank == 0:
            stage.append(f"{here} = {view.name}.one(batch, {time});")
            return
        if place in self.turning:
            self.add_work(name, f"dims.turns * {view.size}")
            scratch = self.at(self.this_turn(name, view.size), view.size)
        else:
            self.add_work(name, view.size)
            scratch = self.at(f"work.{name}", view.size)
        how = "loose_view" if self.programs.streamed and not text.joins_lanes else "view"
        if copied:
            stage.append(f"{view.name}.read({scratch}, batch, {time});")
        stage.append(
            f"{here} = {scratch};" if copied else f"{here} = {view.name}.{how}({scratch}, batch, {time});"
        )

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

    def finish(self, name: PassName, **parts: object) -> Pass:
        spec = self.spec
        return Pass(
            name=name,
            title=f"{spec.name}, {name}",
            sizes=self.sizes,
            keep=self.programs.keep,
            most_rows=MOST_ROWS,
            axes=spec.axes,
            lane=self.lane,
            rows=self.rows,
            streamed=self.programs.streamed,
            scalars=tuple(identifier((o.name, ())) for o in spec.of_kind("scalar")),
            slots=tuple(self.slots),
            views=tuple(self.views),
            work=tuple(self.work.values()),
            packed=tuple(map(self._panels, self.packed.values())),
            masks=tuple(sorted(self.masks)),
            walks=tuple(sorted(self.walks)),
            temporaries=tuple(self.temporaries.values()),
            team=self.team,
            **parts,  # type: ignore[arg-type]  # a part for each field that is left
        )


def _pointers(place: Place, text: StepText) -> str:
    """How many pointers to rows an array has."""
    return "ROWS + 1" if place in text.ahead else "ROWS"
