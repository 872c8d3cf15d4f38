"""The time loop in Triton: a block keeps the states of its columns, or of its sequences, for all steps.

In: `Programs`, sizes, a variant. Out: the `TritonPass` of the forward pass (with or without what the gradient needs)
or of the gradient. A gradient that keeps every step walks back over what is kept; one that keeps blocks runs each
block of steps again into a scratch of its own, and walks it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rekern import ir
from rekern.gradient import cotangent
from rekern.ir import Read
from rekern.loops.program import Assign, Place, Role
from rekern.printers.triton import ROWS, Held, StepPrinter, StepText
from rekern.printers.triton_names import Names
from rekern.schedules.gpu.work import power_of_two
from rekern.schedules.programs import Programs
from rekern.schedules.triton.arrays import Arrays, Axes, Pointer
from rekern.schedules.triton.order import few_at_once, largest
from rekern.schedules.triton.passes import Argument, Constant, PassName, Recorded, Sizes, TritonPass, Variant
from rekern.spec import Operand
from rekern.trace import Dim, cells_of

PARTS = ("params", "states", "checkpoint", "block_states", "last")  # that a kernel may lack

# Loads stand first in a step, so that they are under way together. With more numbers alive than so many a thread, of
# the 255 registers that it has at most, they wait until they are needed: a late load costs less than a spill.
LATE_LOADS = 48
LANES = 32


class TimeLoop:
    """Builds one pass."""

    def __init__(self, programs: Programs, name: PassName, sizes: Sizes, variant: Variant) -> None:
        self.programs, self.spec, self.name = programs, programs.spec, name
        self.sizes, self.variant = sizes, variant
        lane, lengths = programs.lane, dict(sizes.lengths)
        tile = {a: sizes.columns if a == lane else power_of_two(n) for a, n in lengths.items()}
        padded = frozenset(a for a, n in lengths.items() if n % tile[a])
        axes = (*(a for a in self.spec.axes if a != lane), *([lane] if lane else []))
        self.tile = tile
        self.column_tiles = -(-lengths[lane] // sizes.columns) if lane else 1
        self.held = Held(self._roles(), axes, padded, programs.rows, variant.precision)
        words = [w for a in axes for w in (a, f"{a}_BLOCK", f"{a}_TILE", f"at_{a}", f"in_{a}")]
        self.names = Names([*words, *FUNCTIONS])
        self.arrays = Arrays(self.held, sizes, variant, self.names, lane)
        self.functions: set[str] = set()
        self.shapes: dict[str, tuple[str, ...]] = {}
        self.lines: dict[str, list[str]] = {}
        self.crowded = programs.rows and sizes.stages == 1

    def _roles(self) -> dict[str, Role]:
        found: dict[str, Role] = {}
        for program in (self.programs.forward, self.programs.silent_recording, self.programs.backward):
            found |= program.roles
        return found

    # -- pieces of text

    def part(self, name: str, lines: Iterable[str]) -> None:
        self.lines.setdefault(name, []).extend(lines)

    def tensors(self, operands: Iterable[Operand]) -> list[tuple[Operand, tuple[int, ...]]]:
        return [(o, cell) for o in operands for cell in cells_of(o.dims)]

    def shape(self, axes: Axes) -> str:
        names = ["ROWS" if isinstance(a, str) else self.block(a.dim) for a in axes]
        return f"[{', '.join(names)}]"

    def block(self, axis: str) -> str:
        """The constant that says how long tensors are along an axis."""
        return f"{axis}_TILE" if axis == self.programs.lane else f"{axis}_BLOCK"

    def fitted(self, text: str, own: Axes, wanted: Axes) -> str:
        """A value as a tensor of all the axes of an array."""
        if own == wanted:
            return text
        if own:
            places = ", ".join(":" if a in own else "None" for a in wanted)
            text = f"{text}[{places}]" if text.isidentifier() else f"({text})[{places}]"
            return f"tl.broadcast_to({text}, {self.shape(wanted)})"
        return f"tl.full({self.shape(wanted)}, {text}, tl.float32)" if wanted else text

    def step(self, assigns: tuple[Assign, ...]) -> StepText:
        """The text of one step."""
        printer = StepPrinter(self.held, self.names)
        found = printer.print(assigns)
        self.functions |= found.functions
        self.shapes |= {n: tuple(a if isinstance(a, str) else a.dim for a in axes) for n, axes in found.axes.items()}
        return found

    # -- what passes share

    def operands(self, read: set[Place]) -> dict[str, Pointer]:
        """Pointers to the caller's inputs and parameters, as far as formulas read them."""
        names = {name for name, _ in read}
        found = {}
        for o in self.spec.of_kind("input", "param"):
            if o.name in names:
                lead = "strided" if o.kind == "input" else "param"
                use = "input" if o.kind == "input" else "param"
                found[o.name] = self.arrays.pointer(use, o.name, o.dims, lead, o.name, self.variant.dtype(o.name))  # type: ignore[arg-type]
        return found

    def load_rows(self, pointers: Mapping[str, Pointer], read: set[Place], step: str) -> list[str]:
        """Loads of the inputs of a step."""
        places = [(o.name, cell) for o, cell in self.tensors(self.spec.of_kind("input"))]
        return [f"{self.names.of(p)} = {self.arrays.load(pointers[p[0]], p[1], step)}" for p in places if p in read]

    def load_params(self, pointers: Mapping[str, Pointer], text: Iterable[StepText], read: set[Place]) -> list[str]:
        """Loads of parameters, once: those that are factors of products as they are multiplied with."""
        products = dict.fromkeys(w for t in text for w in t.weights)
        lines = []
        for place, second in products:
            array = pointers[place[0]]
            # A product sums over the first axis of what is loaded: the second of the caller's is turned to be it.
            if second:
                address, axes = self.arrays.turned_address(array, place[1]), self.arrays.axes(array.dims, False)[::-1]
            else:
                address, axes = self.arrays.address(array, place[1]), self.arrays.axes(array.dims, False)
            mask = self.arrays.mask(axes, None)
            load = f"tl.load({address}, mask={mask}, other=0.0)" if mask else f"tl.load({address})"
            lines.append(f"{self.names.weight(place, second)} = {load}")
        for o, cell in self.tensors(self.spec.of_kind("param")):
            place = (o.name, cell)
            if place in read:
                lines.append(f"{self.names.of(place)} = {self.arrays.load(pointers[o.name], cell)}")
        return lines

    def every_read(self, *programs: tuple[Assign, ...]) -> set[Place]:
        """All that formulas read."""
        nodes = ir.walk([a.value for assigns in programs for a in assigns])
        return {(n.operand, n.component) for n in nodes if isinstance(n, Read)}

    def plain_reads(self, *programs: tuple[Assign, ...]) -> set[Place]:
        """What formulas read as values of the step: factors of matrix products are not."""
        nodes = ir.walk([a.value for assigns in programs for a in assigns], self.held.children)
        return {(n.operand, n.component) for n in nodes if isinstance(n, Read)}

    def state_lines(
        self, values: Mapping[Place, str], axes: Mapping[Place, Axes], targets: Mapping[Place, Place]
    ) -> list[str]:
        """The new values of states take the places of the old ones; of sequences that have ended they stay."""
        lines = []
        for target, place in targets.items():
            operand = self.spec.operand(place[0].removeprefix("d:"))
            wanted = self.arrays.axes(operand.dims)
            name, text = self.names.of(place), self.fitted(values[target], axes[target], wanted)
            if self.held.rows and self.variant.packed:
                text = f"tl.where({self.spread_rows('alive', wanted)}, {text}, {name})"
            if text != name:
                lines.append(f"{name} = {text}")
        return lines

    def spread_rows(self, text: str, axes: Axes) -> str:
        if len(axes) == 1:
            return text
        return f"{text}[{', '.join(':' if a == ROWS else 'None' for a in axes)}]"

    def restarts(self, values: Mapping[str, str]) -> list[str]:
        """States of sequences that restart before this step take `values`."""
        lines = []
        for o, cell in self.tensors(self.spec.states):
            if o.name in values:
                prefix = "" if values[o.name] != "cotangent" else "d:"
                name = self.names.of((prefix + o.name, cell))
                value = "0.0" if prefix else values[o.name]
                condition = self.spread_rows("restart", self.arrays.axes(o.dims)) if self.held.rows else "restart"
                lines.append(f"{name} = tl.where({condition}, {value}, {name})")
        return lines

    def initials(self) -> dict[str, str]:
        return {o.name: repr(o.init) if abs(o.init) != float("inf") else f'float("{o.init}")' for o in self.spec.states}

    def restart_line(self, step: str = "t") -> list[str]:
        """Whether a sequence restarts before this step."""
        if self.held.rows:
            return [f"restart = tl.load(reset + {step} * reset_time, mask=alive, other=0) != 0"]
        return [f"restart = tl.load(reset + {step} * reset_time) != 0"]

    def constants(self) -> tuple[Constant, ...]:
        lengths, lane = dict(self.sizes.lengths), self.programs.lane
        found = []
        for axis in self.held.axes:
            found.append(Constant(axis, lengths[axis], f"length of axis {axis}"))
            if axis == lane:
                found.append(Constant(f"{axis}_TILE", self.tile[axis], f"columns of {axis} that a block keeps"))
            else:
                why = (
                    "the same"
                    if axis not in self.held.padded
                    else f"{axis}, padded: tensors of Triton have powers of two"
                )
                found.append(Constant(f"{axis}_BLOCK", self.tile[axis], why))
        if self.column_tiles > 1:
            found.append(Constant("COLUMN_TILES", self.column_tiles, f"blocks that share the columns of {lane}"))
        if self.held.rows:
            found.append(Constant("ROWS", self.sizes.rows, "sequences of a block, which read the weights together"))
        found.append(Constant("STAGES", self.sizes.stages, "steps whose loads are in flight"))
        if self.programs.keep == "blocks" and self.name != "forward":
            found.append(Constant("BLOCK", self.sizes.block, "steps between two states that are kept for the gradient"))
        return tuple(found)

    def place(self) -> list[str]:
        """Where a block begins: its sequences, rows and columns."""
        packed, reverse, rows = self.variant.packed, self.variant.reverse, self.held.rows
        keeps_blocks = self.programs.keep == "blocks" and self.name != "forward"
        lines = []
        if packed:
            mask = ", mask=exists, other=0" if rows else ""
            lines += [f"begin = tl.minimum(tl.maximum(tl.load(boundaries + sequence{mask}), 0), time)"]
            lines += [f"end = tl.minimum(tl.maximum(tl.load(boundaries + sequence + 1{mask}), begin), time)"]
            lines += (
                ["lengths = (end - begin).to(tl.int32)", "steps = tl.max(lengths, axis=0)"]
                if rows
                else ["steps = (end - begin).to(tl.int32)"]
            )
            lines += ["block_row = begin // BLOCK + sequence"] * keeps_blocks
            lines += ["begin = end - 1"] * reverse
            lines += ["row = begin * heads + head"]
        else:
            lines += ["batch = sequence", "steps = time"]
            lines += ["begin = time - 1"] * reverse
            lines += ["block_row = batch * tl.cdiv(time, BLOCK)"] * keeps_blocks
            lines += [f"row = (batch * time{' + begin' if reverse else ''}) * heads + head"]
        lines += [f"row_step = {'-' if reverse else ''}heads", "state_row = sequence * heads + head"]
        if self.name == "backward":
            lines += ["slot_row = program.to(tl.int64) * BLOCK"] * keeps_blocks
            if rows:
                lines += ["copy_row = program"]
            elif self.column_tiles > 1:
                lines += ["copy_row = (sequence * COLUMN_TILES + column_tile) * heads + head"]
            else:
                lines += ["copy_row = state_row"]
        if rows:
            lines += ["at_row = tl.arange(0, ROWS)"] * (keeps_blocks and self.name == "backward")
            lines += [] if packed else ["alive = exists"]
        if self.variant.reset:
            start = " + ".join(["begin * reset_time"] * (packed or reverse) + ["batch * reset_batch"] * (not packed))
            lines += [f"reset += {start}", *(["reset_time = -reset_time"] * reverse)]
        for axis in self.held.axes:
            block = self.block(axis)
            if axis == self.programs.lane and self.column_tiles > 1:
                lines += [f"tile_{axis} = tl.arange(0, {block})", f"at_{axis} = column_tile * {block} + tile_{axis}"]
            elif axis == self.programs.lane:
                lines += [f"tile_{axis} = tl.arange(0, {block})", f"at_{axis} = tile_{axis}"]
            else:
                lines += [f"at_{axis} = tl.arange(0, {block})"]
            lines += [f"in_{axis} = at_{axis} < {axis}"] * (axis in self.held.padded)
        return lines

    def walk(self, prefix: str, step: str) -> list[str]:
        """The lines of a step, in order."""
        alive = [f"alive = exists & ({step} < lengths)"] if self.held.rows and self.variant.packed else []
        loads = self.lines.get(prefix + "loads", [])
        rest = [x for part in ("step", "stores", "update") for x in self.lines.get(prefix + part, [])]
        sizes = self._sizes_of_tensors()
        ordered = few_at_once(rest, sizes)
        if self.crowded or largest(loads + ordered, sizes) > LATE_LOADS * self.sizes.warps * LANES:
            return alive + few_at_once(loads + rest, sizes)
        return alive + loads + ordered

    def _sizes_of_tensors(self) -> dict[str, int]:
        lengths = {**self.tile, ROWS: self.sizes.rows}
        return {name: math.prod(lengths[axis] for axis in shape) for name, shape in self.shapes.items()}

    def finish(
        self, recorded: tuple[Recorded, ...] = (), parts: frozenset[str] = frozenset(), slot: int = 0
    ) -> TritonPass:
        """The view for the template."""
        counts = [Argument(n, "count", "i32") for n in ("sequences", "time", "heads")]
        if self.variant.packed:
            counts.append(Argument("boundaries", "pointer", "*i64", "boundaries"))
        if self.variant.reset:
            counts.append(Argument("reset", "pointer", "*i8", "reset"))
            axes = ("time",) if self.variant.packed else ("batch", "time")
            counts += [Argument(f"reset_{a}", "stride", "i64", "reset", "", a) for a in axes]
        scalars = [
            Argument(self.names.of((o.name, ())), "scalar", "fp32", None, o.name) for o in self.spec.of_kind("scalar")
        ]
        back_step = "(first + i)" if self.programs.keep == "blocks" and self.name == "backward" else "t"
        lines: dict[str, list[str]] = {
            **{part: [] for part in PARTS}, "begin": self.arrays.begin, **self.lines, "place": self.place(),
            "walk": self.walk("", back_step), "again": self.walk("again_", back_step),
        }  # fmt: skip
        return TritonPass(
            self.name, self.spec.name, self.sizes, self.variant, self.held.rows, self.programs.keep == "blocks",
            self.constants(), tuple(sorted(closure(self.functions))), (*self.arrays.arguments, *scalars, *counts),
            {n: tuple(found) for n, found in lines.items()}, recorded, parts, self.column_tiles, slot,
            self.shapes, self.crowded,
        )  # fmt: skip


# The functions of the language that Triton does not have, with those that they call.
FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": (), "tanh": (), "log_sigmoid": ("log1p",), "softplus": ("log1p",), "silu": (), "gelu": (),
    "relu": (), "square": (), "sign": (), "expm1": (), "log1p": (), "logaddexp": ("log1p",),
}  # fmt: skip


def closure(functions: set[str]) -> set[str]:
    """`functions` and those that they call."""
    return functions | {other for name in functions for other in FUNCTIONS[name]}


def kept_rows(programs: Programs) -> dict[Place, tuple[Dim, ...]]:
    """What the gradient reads of every step beside the operands: old states and sums, with their dims."""
    read = programs.saved
    found: dict[Place, tuple[Dim, ...]] = {}
    for (name, cell), axes in read.items():
        found[name.removeprefix("saved:"), cell] = tuple(i.dim for i in axes)
    return found


def vectors_of(programs: Programs) -> dict[str, tuple[Dim, ...]]:
    """The vectors that a gradient writes down for products after the loop."""
    return {name: (index.dim,) for name, (index, _) in programs.weight_terms[1].items()}


def results_of(programs: Programs) -> list[Operand]:
    """Operands whose cotangents a pass adds up: parameters that are not products after the loop."""
    added = {a.target[0] for a in programs.backward.assigns if a.add}
    return [o for o in programs.spec.of_kind("param") if cotangent(o.name) in added]
