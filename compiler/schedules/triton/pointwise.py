"""One pointwise kernel of the schedule `alternating`.

In: a `TimeLoop` whose part is not the whole, and the assignments of one stage, or of the last stage of a step and the
first of the next. Out: its `TritonPass`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rekern.gradient import cotangent
from rekern.loops.program import NEXT, Assign, Place
from rekern.printers.triton import StepText
from rekern.schedules.triton.arrays import Lead, Pointer
from rekern.schedules.triton.passes import TritonPass, Use
from rekern.schedules.triton.rows import Rows
from rekern.schedules.triton.stages import Stages
from rekern.schedules.triton.time_loop import TimeLoop, kept_rows, product_dtype, results_of, vectors_of
from rekern.trace import Dim, cells_of


@dataclass(frozen=True)
class Half:
    """What one kernel makes of one step: a stage. `is_next`: of the step after the one that the host is at."""

    assigns: tuple[Assign, ...]
    stage: int
    is_next: bool


class Pointwise:
    """Builds one kernel."""

    def __init__(self, loop: TimeLoop, stages: Stages) -> None:
        self.loop, self.stages = loop, stages
        self.spec, self.arrays, self.names = loop.spec, loop.arrays, loop.names
        self.backward, self.variant = loop.name == "backward", loop.variant
        self.rows = Rows(loop, kept_rows(loop.programs), masked=True)
        self.pointers: dict[tuple[Use, str], Pointer] = {}
        self.in_registers: set[Place] = set()  # states and parameters
        self.changed: dict[Place, None] = {}  # states that have to be written back

    def build(self, halves: Sequence[Half]) -> TritonPass:
        loop = self.loop
        loop.part("this_step", [])
        loop.part("next_step", [])
        for half in halves:
            loop.part("next_step" if half.is_next else "this_step", self._half(half))
        for name, cell in self.changed:
            loop.part("last", [self.arrays.store(self._state(name), cell, self._variable((name, cell)), rows="exists")])
        kept = any(operand == "kept" for _, operand in self.pointers)
        return loop.finish(self.rows.recorded if kept else (), slot=self.rows.slot if kept else 0)

    # -- arrays

    def _pointer(
        self, use: Use, operand: str, dims: tuple[Dim, ...], lead: Lead, word: str, dtype: str = "fp32"
    ) -> Pointer:
        """An array, which is declared where it is first needed."""
        if (use, operand) not in self.pointers:
            self.pointers[use, operand] = self.arrays.pointer(use, operand, dims, lead, word, dtype)
        return self.pointers[use, operand]

    def _state(self, name: str) -> Pointer:
        """A state, or in the gradient its cotangent."""
        o = self.spec.operand(name)
        use: Use = "d_state_in" if self.backward else "state_out"
        return self._pointer(use, name, o.dims, "state", f"d_{name}_state" if self.backward else f"{name}_state")

    def _variable(self, state: Place) -> str:
        name, cell = state
        return self.names.of((cotangent(name) if self.backward else name, cell))

    def _input(self, name: str) -> Pointer:
        if name in self.spec.step.output_dims and self.backward:
            word, dims = cotangent(name).replace(":", "_"), self.spec.step.output_dims[name]
            return self._pointer("d_output", name, dims, "strided", word, self.variant.dtype(name))
        o = self.spec.operand(name)
        return self._pointer("input", name, o.dims, "strided", name, self.variant.dtype(name))

    def _product(self, array: str) -> Pointer:
        made = self.stages.array(array)
        assert made is not None
        word = self.names.word((array, ()))
        return self._pointer("product", array, made.dims, "strided" if made.early else "product", word)

    def _result(self, name: str) -> Pointer | None:
        """Where a value is written; None: it is no array of its own."""
        programs, spec = self.loop.programs, self.spec
        word = name.replace(":", "_")
        if name in self.stages.vectors:
            dims, weight = self.stages.vectors[name]
            lead: Lead = "step" if self.loop.part_name == "inputs" else "product"
            return self._pointer("factor", name, dims, lead, self.names.word((name, ())), self.variant.dtype(weight))
        if self.backward:
            if name in vectors_of(programs):
                dtype = product_dtype(programs, self.variant)
                return self._pointer("vector", name, vectors_of(programs)[name], "step", f"{word}_out", dtype)
            for o in spec.of_kind("input"):
                if cotangent(o.name) == name:
                    dtype = "fp32" if o.name in self.variant.shared_heads else self.variant.dtype(o.name)
                    return self._pointer("d_input", o.name, o.dims, "step", f"{word}_out", dtype)
        elif name in spec.step.output_dims:
            return self._pointer("output", name, spec.step.output_dims[name], "step", name, self.variant.dtype(name))
        return None

    def _kept(self) -> Pointer:
        key: tuple[Use, str] = ("recorded", "kept")
        if key not in self.pointers:
            self.pointers[key] = self.rows.declare(*key)
        return self.pointers[key]

    # -- one stage of one step

    def _half(self, half: Half) -> list[str]:
        step = "next_t" if half.is_next else "t"
        text = self.loop.step(half.assigns)
        starts = half.stage == 0 and not self.backward and self.loop.part_name != "inputs"
        restarts = self.variant.reset and (starts or (self.backward and bool(self._states_of(half))))
        lines = self._alive(half, step)
        lines += self._loads(half, step)
        if restarts:
            lines += self.loop.restart_line(step)
        if restarts and starts:
            lines += self.loop.restarts(self.loop.initials())
            self.changed |= dict.fromkeys((o.name, cell) for o, cell in self.loop.tensors(self.spec.states))
        lines += text.lines
        lines += self._stores(half, text, step, starts)
        lines += self._updates(half, text)
        if restarts and not starts:
            lines += [
                f"{self._variable(p)} = tl.where({self._spread(p)}, 0.0, {self._variable(p)})"
                for p in self._states_of(half).values()
            ]
        return lines

    def _spread(self, state: Place) -> str:
        return self.loop.spread_rows("restart", self.arrays.axes(self.spec.operand(state[0]).dims))

    def _alive(self, half: Half, step: str) -> list[str]:
        """Which sequences have this step."""
        alive = f"exists & ({step} < lengths)" if self.variant.packed else "exists"
        # By tl.where and not by &: the interpreter of Triton 3.9 makes no mask of a tensor and one truth value.
        if half.is_next and self.backward:
            alive = f"tl.where(next_t >= 0, {alive}, False)"
        elif half.is_next and not self.variant.packed:
            alive = f"tl.where(next_t < time, {alive}, False)"
        lines = [f"next_t = t {'-' if self.backward else '+'} 1"] * half.is_next
        return [*lines, f"alive = {alive}"]

    def _states_of(self, half: Half) -> dict[Place, Place]:
        """The states that a stage gives new values, by target."""
        states = {o.name for o in self.spec.states}
        found = {}
        for a in half.assigns:
            name = a.target[0].removeprefix(NEXT)
            name = name.removeprefix(cotangent("")) if self.backward else name
            own = a.target[0] == cotangent(name) if self.backward else name in states
            if own and name in states and not a.add:
                found[a.target] = name, a.target[1]
        return found

    def _loads(self, half: Half, step: str) -> list[str]:
        loop, arrays, names = self.loop, self.arrays, self.names
        read = loop.plain_reads(half.assigns)
        places = [(o.name, cell) for o, cell in loop.tensors(self.spec.of_kind("input"))]
        lines = [f"{names.of(p)} = {arrays.load(self._input(p[0]), p[1], step)}" for p in places if p in read]
        if self.backward:
            for n, dims in self.spec.step.output_dims.items():
                d_out = [(cotangent(n), cell) for cell in cells_of(dims)]
                lines += [f"{names.of(p)} = {arrays.load(self._input(n), p[1], step)}" for p in d_out if p in read]
            kept = [p for p in self.rows.places if p in read]
            lines += [f"{names.of(p)} = {self.rows.load(self._kept(), p, step)}" for p in kept]
        for name, (array, cell) in self.stages.places.items():
            if (name, ()) in read:
                made = self.stages.array(array)
                assert made is not None
                place = cell if made.outputs > 1 else (0,)
                lines.append(f"{names.of((name, ()))} = {arrays.load(self._product(array), place, step)}")
        for o, cell in loop.tensors(self.spec.of_kind("param")):
            if (o.name, cell) in read and (o.name, cell) not in self.in_registers:
                self.in_registers.add((o.name, cell))
                pointer = self._pointer("param", o.name, o.dims, "param", o.name, self.variant.dtype(o.name))
                lines.append(f"{names.of((o.name, cell))} = {arrays.load(pointer, cell)}")
        return lines + self._state_loads(half, read)

    def _state_loads(self, half: Half, read: set[Place]) -> list[str]:
        """States that are read, restarted, written down for the gradient, or stay where a sequence has ended."""
        starts = half.stage == 0 and not self.backward and self.loop.part_name != "inputs"
        updated = self._states_of(half).values()
        lines = []
        for o, cell in self.loop.tensors(self.spec.states):
            place = o.name, cell
            variable = (cotangent(o.name) if self.backward else o.name), cell
            needed = variable in read or (place in updated and self._is_guarded(half))
            needed = needed or (starts and (self.variant.reset or self._writes_down(place)))
            if needed and place not in self.in_registers:
                self.in_registers.add(place)
                load = self.arrays.load(self._state(o.name), cell, rows="exists")
                lines.append(f"{self.names.of(variable)} = {load}")
        return lines

    def _writes_down(self, place: Place) -> bool:
        return self.loop.name == "recording" and place in self.rows.places

    def _is_guarded(self, half: Half) -> bool:
        """Whether some sequences of a block may not have this step."""
        return self.variant.packed or half.is_next

    def _stores(self, half: Half, text: StepText, step: str, starts: bool) -> list[str]:
        arrays, lines = self.arrays, []
        sums = {cotangent(o.name): o for o in results_of(self.loop.programs)} if self.backward else {}
        for a in half.assigns:
            if a.add and a.target[0] in sums:
                o = sums[a.target[0]]
                pointer = self._pointer("d_param", o.name, o.dims, "copy", f"d_{o.name}_sum")
                lines.append(f"{self.names.of(a.target)} = {arrays.load(pointer, a.target[1])}")
                lines.append(self.loop.added(text, a.target, o.dims))
                lines.append(arrays.store(pointer, a.target[1], self.names.of(a.target)))
            elif not self.backward and a.target in self.rows.places and self._writes_down(a.target):
                value = self.loop.fitted(
                    text.values[a.target], text.value_axes[a.target], arrays.axes(self.rows.places[a.target])
                )
                lines.append(self.rows.store(self._kept(), a.target, value, step))
            elif a.target not in self._states_of(half) and (into := self._result(a.target[0])):
                value = self.loop.fitted(text.values[a.target], text.value_axes[a.target], arrays.axes(into.dims))
                lines.append(arrays.store(into, a.target[1], value, step))
        if starts:
            states = {o.name for o in self.spec.states}
            old = [p for p in self.rows.places if p[0] in states and self._writes_down(p)]
            lines += [self.rows.store(self._kept(), p, self.names.of(p), step) for p in old]
        return lines

    def _updates(self, half: Half, text: StepText) -> list[str]:
        """New values of states take the places of the old ones."""
        targets = self._states_of(half)
        self.in_registers |= set(targets.values())
        self.changed |= dict.fromkeys(targets.values())
        prefix = cotangent("") if self.backward else ""
        variables = {target: (prefix + name, cell) for target, (name, cell) in targets.items()}
        return self.loop.state_lines(text.values, text.value_axes, variables, self._is_guarded(half))
