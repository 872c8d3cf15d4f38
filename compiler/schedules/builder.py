"""Puts together what a template sees of one pass.

In: `Programs` and chosen sizes, then programs, operands and results one by one. Out: a `Pass`. Where arrays lie is
pass_arrays.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rekern import ir
from rekern.loops.order import arrange
from rekern.loops.program import NEXT, Assign, Place, Program
from rekern.loops.team import Between
from rekern.printers.cpp import WAIT, Early, StepPrinter, StepText, identifier, indent
from rekern.printers.cpp_memory import Beside
from rekern.schedules.carry import Carried
from rekern.schedules.pass_arrays import PassArrays
from rekern.schedules.passes import MOST_ROWS, Ahead, Body, Pass, PassName, Pointer, Second, View
from rekern.schedules.reading import reads, reads_in_step
from rekern.schedules.team import shared


class PassBuilder(PassArrays):
    """Collects the parts of one pass."""

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
                self._stage((NEXT + name, cell), rows_in[name, cell], text, declare, stage, "next_time")
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
        prefetched = self._ahead(text, {**rows_in, **rows_out})
        moved = []
        for product in text.early:
            for name in product.targets:
                row = f"{self.temporaries.pop(name).place} + step % call.ahead * count * {product.row}"
                moved.append(f"real* {identifier((name, ()))} = {row};")
        return Body(
            self._ahead_of_steps(text, rows_in, waits),
            (*declare, *waits("rows"), *_direction(text, back), *self.each_row(stage), *prefetched, *moved),
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
            if name.startswith(NEXT):
                view = rows_in[name.removeprefix(NEXT), cell]
                self._stage((name, cell), view, text, [], stage, "next_time")
        for assign in program.assigns:
            if program.roles[assign.target[0]] == "result":
                name = self.add_work(identifier(assign.target), self.size(i.dim for i in assign.axes))
                view = rows_out[assign.target[0].removeprefix(NEXT), assign.target[1]]
                time = "next_time" if assign.target[0].startswith(NEXT) else "time"
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

    def _ahead(self, text: StepText, views: Mapping[Place, View]) -> tuple[str, ...]:
        """Where the first batch row of the next step is, after the last one of this step."""
        lines = []
        for place, view in views.items():
            if place in text.ahead:
                name = identifier(place)
                first = f"{name}[0]" if place in text.copied else f"{view.name}.after({name}[0], ahead)"
                lines.append(f"{name}[rows] = {first};")
        return tuple(lines)

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
        at = f"batch, {time}, ahead" if place in text.ahead else f"batch, {time}"
        if copied:
            stage.append(f"{view.name}.read({scratch}, batch, {time});")
        stage.append(
            f"{here} = {scratch};" if copied else f"{here} = {view.name}.{how}({scratch}, {at});"
        )

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


def _direction(text: StepText, back: bool) -> tuple[str, ...]:
    """Which way the steps run, where rows of the next one are asked for."""
    forwards, backwards = ("-1", "1") if back else ("1", "-1")
    line = f"const int64_t ahead = call.reverse ? {backwards} : {forwards};  // steps to the next one"
    return (line,) if text.ahead else ()


def _pointers(place: Place, text: StepText) -> str:
    """How many pointers to rows an array has."""
    return "ROWS + 1" if place in text.ahead else "ROWS"
