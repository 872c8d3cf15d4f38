"""The gradient of a time loop in Triton.

In: `Programs`, sizes, a variant. Out: its `TritonPass`. States are walked backwards as cotangents in registers; what
the steps were is read from what the forward pass kept, or found again block by block.
"""

from __future__ import annotations

from collections.abc import Mapping

from rekern.gradient import cotangent
from rekern.loops.program import NEXT, Assign, Place
from rekern.printers.triton import StepText
from rekern.schedules.programs import Programs
from rekern.schedules.triton.arrays import Axes, Pointer
from rekern.schedules.triton.forward import BLOCK_ROW
from rekern.schedules.triton.passes import Sizes, TritonPass, Use, Variant
from rekern.schedules.triton.rows import Rows
from rekern.schedules.triton.time_loop import TimeLoop, kept_rows, product_dtype, results_of, vectors_of
from rekern.trace import Dim, cells_of

AT = "(first + i)"  # the step of place i of a block


def backward_pass(programs: Programs, sizes: Sizes, variant: Variant) -> TritonPass:
    """Cotangents of inputs, parameters and first states."""
    return Backward(programs, sizes, variant).build()


class Backward:
    """Builds the gradient."""

    def __init__(self, programs: Programs, sizes: Sizes, variant: Variant) -> None:
        self._begin(TimeLoop(programs, "backward", sizes, variant))

    def _begin(self, loop: TimeLoop) -> None:
        self.loop, self.programs, self.spec, self.variant = loop, loop.programs, loop.spec, loop.variant
        self.arrays, self.names, self.blocks = loop.arrays, loop.names, loop.blocks
        self.step = AT if self.blocks else "t"
        self.parts: set[str] = set()

    def build(self) -> TritonPass:
        loop, programs, arrays = self.loop, self.programs, self.arrays
        again = programs.silent_recording.assigns if self.blocks else ()
        back = programs.backward.assigns
        pointers = loop.operands(loop.every_read(again, back))
        d_out = self._given(self.spec.step.output_dims)
        d_last = self._states("d_state_out", "d_{}_exit" if self.loop.sizes.segment else "d_{}_last")
        rows = Rows(loop, kept_rows(programs), masked=not self.blocks)
        kept = self._kept(rows)
        checkpoints = self._checkpoints()
        results = self._results()
        # The cotangents on entry of segments have been joined before these run.
        d_first = {} if self.loop.sizes.segment else self._states("d_state_in", "d_{}_first")
        copies = {
            cotangent(o.name): arrays.pointer("d_param", o.name, o.dims, "copy", f"d_{o.name}_sum")
            for o in results_of(programs)
        }
        if self.blocks:
            self._again(again, pointers, d_out, results, rows, kept, checkpoints)
        text = loop.step(back)
        self._back(text, back, pointers, d_out, results, rows, kept, copies)
        self._ends(d_last, d_first, copies, [text])
        if loop.crowded and self.blocks:
            self._park(d_first)
        reads = loop.plain_reads(again, back)
        texts = [text, self.again_text] if self.blocks else [text]
        loop.part("params", loop.load_params(pointers, texts, reads))
        return loop.finish(rows.recorded, frozenset(self.parts), rows.slot)

    def _given(self, outputs: Mapping[str, tuple[Dim, ...]]) -> dict[str, Pointer]:
        """Cotangents of outputs."""
        return {
            n: self.arrays.pointer(
                "d_output", n, dims, "strided", cotangent(n).replace(":", "_"), self.variant.dtype(n)
            )
            for n, dims in outputs.items()
        }

    def _kept(self, rows: Rows) -> Pointer:
        return rows.declare("scratch" if self.blocks else "recorded", "steps_of_block" if self.blocks else "kept")

    def _checkpoints(self) -> dict[str, Pointer]:
        return {
            o.name: self.arrays.pointer("checkpoint", o.name, o.dims, "checkpoint", f"{o.name}_kept")
            for o in self.spec.states
            if self.blocks
        }

    def _states(self, use: Use, word: str) -> dict[str, Pointer]:
        return {
            o.name: self.arrays.pointer(
                use, o.name, o.dims, "state", word.format(o.name), parts=use == "d_state_in" and self._is_shared(o.dims)
            )
            for o in self.spec.states
        }

    def _is_shared(self, dims: tuple[Dim, ...]) -> bool:
        """Whether every tile of columns has a part of a cotangent: cotangents are sums, and so are their tiles."""
        return self.loop.column_tiles > 1 and self.programs.lane not in dims

    def _once(self, load: str, dims: tuple[Dim, ...]) -> str:
        """A cotangent that is given, in one of the tiles that share it."""
        return f"tl.where(column_tile == 0, {load}, 0.0)" if self._is_shared(dims) else load

    def _results(self) -> dict[str, Pointer]:
        """Cotangents of inputs, and vectors for products after the loop, by the name of the array."""
        found = {}
        for o in self.spec.of_kind("input"):
            parts = self._is_shared(o.dims)
            if parts:
                self.parts.add(o.name)
            whole = parts or o.name in self.variant.shared_heads
            dtype = "fp32" if whole else self.variant.dtype(o.name)
            found[cotangent(o.name)] = self.arrays.pointer(
                "d_input", o.name, o.dims, "step", f"d_{o.name}_out", dtype, parts
            )
        for name, dims in vectors_of(self.programs).items():
            word = name.replace(":", "_")
            dtype = product_dtype(self.programs, self.variant)
            found[name] = self.arrays.pointer("vector", name, dims, "step", f"{word}_out", dtype)
        return found

    # -- the loops

    def _again(
        self, assigns: tuple[Assign, ...], pointers: dict[str, Pointer], d_out: dict[str, Pointer],
        results: dict[str, Pointer], rows: Rows, scratch: Pointer, checkpoints: dict[str, Pointer],
    ) -> None:  # fmt: skip
        """A block of steps forward, into the scratch."""
        loop, arrays, names = self.loop, self.arrays, self.names
        read = loop.plain_reads(assigns)
        states = loop.tensors(self.spec.states)
        text = self.again_text = loop.step(assigns)
        loop.part(
            "block_states",
            (
                f"{names.of((o.name, c))} = {arrays.load(checkpoints[o.name], c, BLOCK_ROW, 'exists')}"
                for o, c in states
            ),
        )
        loop.part("again_loads", [*loop.load_rows(pointers, read, AT), *self._d_outputs(d_out, read, AT)])
        if self.variant.reset:
            loop.part("again_loads", [*loop.restart_line(AT), *loop.restarts(loop.initials())])
        loop.part("again_step", text.lines)
        for place in rows.places:
            value, own = self._value(text, place, rows)
            loop.part(
                "again_stores",
                [rows.store(scratch, place, loop.fitted(value, own, arrays.axes(rows.places[place])), "i")],
            )
        loop.part("again_stores", self._store_results(text, assigns, results))
        targets = {(NEXT + o.name, cell): (o.name, cell) for o, cell in states}
        loop.part("again_update", loop.state_lines(text.values, text.value_axes, targets))

    def _value(self, text: StepText, place: Place, rows: Rows) -> tuple[str, Axes]:
        if place in text.values:
            return text.values[place], text.value_axes[place]
        return self.names.of(place), self.arrays.axes(rows.places[place])

    def _back(
        self, text: StepText, assigns: tuple[Assign, ...], pointers: dict[str, Pointer], d_out: dict[str, Pointer],
        results: dict[str, Pointer], rows: Rows, kept: Pointer | None, copies: dict[str, Pointer],
    ) -> None:  # fmt: skip
        """A step backwards; without `kept` it reads nothing of what the forward pass has found."""
        loop, names = self.loop, self.names
        read = loop.plain_reads(assigns)
        place_step = "i" if self.blocks else "t"
        loop.part("loads", [*loop.load_rows(pointers, read, self.step), *self._d_outputs(d_out, read, self.step)])
        if kept:
            loop.part("loads", (f"{names.of(p)} = {rows.load(kept, p, place_step)}" for p in rows.places if p in read))
        if self.variant.reset:
            loop.part("loads", loop.restart_line(self.step))
        loop.part("step", text.lines)
        loop.part("stores", self._store_results(text, assigns, results))
        for a in assigns:
            if a.target[0] in copies:
                loop.part("stores", [loop.added(text, a.target, copies[a.target[0]].dims)])
        targets = {(cotangent(o.name), c): (cotangent(o.name), c) for o, c in loop.tensors(self.spec.states)}
        loop.part("update", loop.state_lines(text.values, text.value_axes, targets))
        if self.variant.reset:
            loop.part("update", loop.restarts(dict.fromkeys((o.name for o in self.spec.states), "cotangent")))

    def _d_outputs(self, d_out: dict[str, Pointer], read: set[Place], step: str) -> list[str]:
        found = []
        for n, dims in self.spec.step.output_dims.items():
            for cell in cells_of(dims):
                place = (cotangent(n), cell)
                if place in read:
                    found.append(f"{self.names.of(place)} = {self._once(self.arrays.load(d_out[n], cell, step), dims)}")
        return found

    def _store_results(self, text: StepText, assigns: tuple[Assign, ...], results: dict[str, Pointer]) -> list[str]:
        lines = []
        for a in assigns:
            if a.target[0] in results:
                pointer = results[a.target[0]]
                value = self.loop.fitted(
                    text.values[a.target], text.value_axes[a.target], self.arrays.axes(pointer.dims)
                )
                lines.append(self.arrays.store(pointer, a.target[1], value, self.step))
        return lines

    # -- before and after

    def _park(self, d_first: dict[str, Pointer]) -> None:
        """Cotangents of the states lie in memory, where those of the first states will be, while a block runs again."""
        for o, cell in self.loop.tensors(self.spec.states):
            name = self.names.of((cotangent(o.name), cell))
            self.loop.part("park", [self.arrays.store(d_first[o.name], cell, name, rows="exists")])
            self.loop.part("resume", [f"{name} = {self.arrays.load(d_first[o.name], cell, rows='exists')}"])

    def _ends(
        self, d_last: dict[str, Pointer], d_first: dict[str, Pointer], copies: dict[str, Pointer], texts: list[StepText]
    ) -> None:
        loop, arrays, names = self.loop, self.arrays, self.names
        for o, cell in loop.tensors(self.spec.states):
            name = names.of((cotangent(o.name), cell))
            loop.part("states", [f"{name} = {self._once(arrays.load(d_last[o.name], cell, rows='exists'), o.dims)}"])
            if d_first:
                loop.part("last", [arrays.store(d_first[o.name], cell, name, rows="exists")])
        added = {a.target for a in self.programs.backward.assigns if a.add}
        for target, pointer in copies.items():
            for cell in cells_of(pointer.dims):
                name, axes = names.of((target, cell)), arrays.axes(pointer.dims, False)
                start = f"tl.zeros({loop.shape(axes)}, tl.float32)" if axes else "0.0"
                if (target, cell) in added:
                    loop.part("states", [f"{name} = {start}"])
                    loop.part("last", [arrays.store(pointer, cell, name)])
