"""The time loop in Triton: a block keeps the states of its columns, or of its sequences, for all steps.

In: `Programs`, sizes, a variant. Out: the `TritonPass` of the forward pass (with or without what the gradient needs)
or of the gradient. A gradient that keeps every step walks back over what is kept; one that keeps blocks runs each
block of steps again into a scratch of its own, and walks it back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from rekern import ir
from rekern.gradient import cotangent
from rekern.ir import Read
from rekern.loops.program import Assign, Place, Role
from rekern.printers.triton import ROWS, Held, StepPrinter, StepText
from rekern.printers.triton_names import Names
from rekern.schedules.gpu.work import power_of_two
from rekern.schedules.programs import Programs
from rekern.schedules.triton.arrays import Arrays, Axes, Lead, Pointer
from rekern.schedules.triton.functions import FUNCTIONS, closure
from rekern.schedules.triton.order import few_at_once, largest
from rekern.schedules.triton.passes import (
    Argument,
    Constant,
    PartName,
    PassName,
    Recorded,
    Sizes,
    TritonPass,
    Use,
    Variant,
)  # fmt: skip
from rekern.schedules.triton.segments import place_of_segment, place_of_sequence, read_later
from rekern.spec import Operand
from rekern.trace import Dim, cells_of

NOTHING: Mapping[str, tuple[Dim, ...]] = {}
PARTS = ("params", "states", "checkpoint", "block_states", "park", "resume", "last")  # that a kernel may lack

# Loads stand first in a step, so that they are under way together. With more numbers alive than so many a thread, of
# the 255 registers that it has at most, they wait until they are needed: a late load costs less than a spill.
LATE_LOADS = 48
LANES = 32


class TimeLoop:
    """Builds one pass."""

    def __init__(
        self, programs: Programs, name: PassName, sizes: Sizes, variant: Variant, part: PartName = "whole",
        lane: str | None = None, products: Iterable[str] = (),
        extra: Mapping[str, tuple[Dim, ...]] = NOTHING, blocks: bool | None = None,
    ) -> None:  # fmt: skip
        """Begin a pass.

        Args:
            part: Which kernel of a host's loop it is.
            lane: Of such a kernel: the axis that its blocks share out.
            products: Arrays that formulas read in place of products.
            extra: Dims of values that are held like states and are none of the spec's.
            blocks: Whether steps are kept by blocks; None: as the programs say, for passes of the gradient.
        """
        self.part_name = part
        self.lane = lane = programs.lane if part == "whole" else lane
        self.products = frozenset(products)
        self.programs, self.spec, self.name = programs, programs.spec, name
        self.sizes, self.variant, self.extra = sizes, variant, extra
        self.blocks = name in ("recording", "backward") and programs.keep == "blocks" if blocks is None else blocks
        self.backward = name in ("backward", "backward_summary")
        lengths = dict(sizes.lengths)
        tile = {a: sizes.columns if a == lane else power_of_two(n) for a, n in lengths.items()}
        padded = frozenset(a for a, n in lengths.items() if n % tile[a])
        axes = (*(a for a in self.spec.axes if a != lane), *([lane] if lane else []))
        self.tile = tile
        self.column_tiles = -(-lengths[lane] // sizes.columns) if lane else 1
        rows = programs.rows or part != "whole"
        self.held = Held(self._roles(), axes, padded, lengths, rows, variant.precision)
        words = [w for a in axes for w in (a, f"{a}_BLOCK", f"{a}_TILE", f"at_{a}", f"in_{a}")]
        self.names = Names([*words, *FUNCTIONS])
        self.arrays = Arrays(self.held, sizes, variant, self.names, lane)
        self.functions: set[str] = set()
        self.shapes: dict[str, tuple[str, ...]] = {}
        self.lines: dict[str, list[str]] = {}
        self.crowded = (programs.rows or (self.blocks and lane is None)) and sizes.stages == 1

    def _roles(self) -> dict[str, Role]:
        found: dict[str, Role] = dict.fromkeys(self.products, "row")
        for program in (self.programs.forward, self.programs.silent_recording, self.programs.backward):
            found |= program.roles
        return {**found, **dict.fromkeys(self.extra, "state")}

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
        return f"{axis}_TILE" if axis == self.lane else f"{axis}_BLOCK"

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
                use: Use = "input" if o.kind == "input" else "param"
                lead: Lead = "strided" if o.kind == "input" else "param"
                found[o.name] = self.arrays.pointer(use, o.name, o.dims, lead, o.name, self.variant.dtype(o.name))
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
            # A product sums over the first axis of what is loaded: a matrix that is summed over its second is turned.
            load = self.arrays.load_matrix(pointers[place[0]], place[1], second)
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

    def dims(self, name: str) -> tuple[Dim, ...]:
        """Of a state, its cotangent, or what is held like one."""
        return self.extra[name] if name in self.extra else self.spec.operand(name.removeprefix(cotangent(""))).dims

    def state_lines(
        self, values: Mapping[Place, str], axes: Mapping[Place, Axes], targets: Mapping[Place, Place],
        guarded: bool | None = None,
    ) -> list[str]:  # fmt: skip
        """The new values of states take the places of the old ones; of sequences that have ended they stay."""
        guarded = self.variant.packed if guarded is None else guarded
        new: dict[str, str] = {}
        for target, place in targets.items():
            wanted = self.arrays.axes(self.dims(place[0]))
            name, text = self.names.of(place), self.fitted(values[target], axes[target], wanted)
            if self.held.rows and guarded:
                text = f"tl.where({self.spread_rows('alive', wanted)}, {text}, {name})"
            new[name] = text
        return self.together(new)

    def together(self, new: Mapping[str, str]) -> list[str]:
        """Assignments that all read the values before them: a state may become what another one was."""
        first, then = [], []
        for name, text in new.items():
            if any(other != name and re.search(rf"\b{other}\b", text) for other in new):
                aside = self.names.fresh(f"new_{name}")
                first.append(f"{aside} = {text}")
                text = aside
            if text != name:
                then.append(f"{name} = {text}")
        return [*first, *then]

    def spread_rows(self, text: str, axes: Axes) -> str:
        if len(axes) == 1:
            return text
        return f"{text}[{', '.join(':' if a == ROWS else 'None' for a in axes)}]"

    def added(self, text: StepText, target: Place, dims: tuple[Dim, ...]) -> str:
        """A parameter's cotangent, added up over sequences in registers."""
        axes, own, value = self.arrays.axes(dims, False), text.value_axes[target], text.values[target]
        if self.held.rows and own and isinstance(own[0], str):
            wanted = (own[0], *axes)
            value = self.fitted(value, own, wanted)
            value = f"tl.sum(tl.where({self.spread_rows('alive', wanted)}, {value}, 0.0), axis=0)"
        else:
            value = self.fitted(value, own, axes)
        return f"{self.names.of(target)} += {value}"

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
        lengths, lane = dict(self.sizes.lengths), self.lane
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
            what = "which read the weights together" if self.part_name == "whole" else "a row of each"
            found.append(Constant("ROWS", self.sizes.rows, f"sequences of a block, {what}"))
        if self.part_name == "whole":
            found.append(Constant("STAGES", self.sizes.stages, "steps whose loads are in flight"))
        if self.sizes.segment:
            found.append(Constant("SEGMENT", self.sizes.segment, "steps of a segment of time"))
        if self.blocks:
            found.append(Constant("BLOCK", self.sizes.block, "steps between two states that are kept for the gradient"))
        return tuple(found)

    def place(self) -> list[str]:
        """Where a block begins: its sequences, rows and columns."""
        packed, reverse, rows = self.variant.packed, self.variant.reverse, self.held.rows
        keeps_blocks = self.blocks
        if self.sizes.segment:
            joins = self.name in ("join", "backward_join")
            lines = place_of_sequence(self.variant) if joins else place_of_segment(self.variant, keeps_blocks)
        elif packed:
            lines = []
            mask = ", mask=exists, other=0" if rows else ""
            lines += [f"begin = tl.minimum(tl.maximum(tl.load(boundaries + sequence{mask}), 0), time)"]
            lines += [f"end = tl.minimum(tl.maximum(tl.load(boundaries + sequence + 1{mask}), begin), time)"]
            lines += [f"{'lengths' if rows else 'steps'} = (end - begin).to(tl.int32)"]
            lines += ["steps = tl.max(lengths, axis=0)"] * (rows and self.part_name == "whole")
            lines += ["block_row = begin // BLOCK + sequence"] * keeps_blocks
            lines += ["begin = end - 1"] * reverse
            lines += ["row = begin * heads + head"]
        else:
            lines = ["batch = sequence", *(["steps = time"] * (self.part_name == "whole"))]
            lines += ["begin = time - 1"] * reverse
            lines += ["block_row = batch * tl.cdiv(time, BLOCK)"] * keeps_blocks
            lines += [f"row = (batch * time{' + begin' if reverse else ''}) * heads + head"]
        if not self.sizes.segment:
            lines += [f"row_step = {'-' if reverse else ''}heads", "state_row = sequence * heads + head"]
        if self.backward:
            lines += ["slot_row = program.to(tl.int64) * BLOCK"] * keeps_blocks
            if rows:
                lines += [f"copy_row = {'program' if self.part_name == 'whole' else 'block'}"]
            elif self.column_tiles > 1:
                sequence = "segment_row" if self.sizes.segment else "sequence"
                lines += [f"copy_row = ({sequence} * COLUMN_TILES + column_tile) * heads + head"]
            else:
                lines += ["copy_row = state_row"]
        if rows:
            lines += ["at_row = tl.arange(0, ROWS)"] * (keeps_blocks and self.backward)
            lines += ["alive = exists"] * (not packed and self.part_name == "whole")
            lines += ["product_row = head * sequences + sequence"] * (self.part_name != "whole")
        if self.variant.reset:
            moved = packed or reverse or self.sizes.segment > 0
            start = " + ".join(["begin * reset_time"] * moved + ["batch * reset_batch"] * (not packed))
            lines += [f"reset += {start}", *(["reset_time = -reset_time"] * reverse)]
        for axis in self.held.axes:
            block = self.block(axis)
            if axis == self.lane and self.column_tiles > 1:
                lines += [f"tile_{axis} = tl.arange(0, {block})", f"at_{axis} = column_tile * {block} + tile_{axis}"]
            elif axis == self.lane:
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

    def call_arguments(self) -> list[Argument]:
        """Arguments that are not operands: numbers of the call, boundaries of sequences, restarts."""
        step = ["t"] if self.part_name in ("begin", "part", "step") else []
        counts = [Argument(n, "count", "i32") for n in (*step, "sequences", "time", "heads")]
        if self.variant.packed:
            counts.append(Argument("boundaries", "pointer", "*i64", "boundaries"))
        if self.variant.reset:
            counts.append(Argument("reset", "pointer", "*i8", "reset"))
            axes = ("time",) if self.variant.packed else ("batch", "time")
            counts += [Argument(f"reset_{a}", "stride", "i64", "reset", "", a) for a in axes]
        scalars = self.spec.of_kind("scalar")
        return [*(Argument(self.names.of((o.name, ())), "scalar", "fp32", None, o.name) for o in scalars), *counts]

    def finish(
        self, recorded: tuple[Recorded, ...] = (), parts: frozenset[str] = frozenset(), slot: int = 0
    ) -> TritonPass:
        """The view for the template."""
        arguments = (*self.arrays.arguments, *self.call_arguments())
        back_step = "(first + i)" if self.blocks and self.backward else "t"
        lines: dict[str, list[str]] = {
            **{part: [] for part in PARTS}, "begin": self.arrays.begin, **self.lines,
            "walk": self.walk("", back_step), "again": self.walk("again_", back_step),
        }  # fmt: skip
        lines["place"] = read_later(self.place(), [line for part in lines.values() for line in part])
        return TritonPass(
            self.name, self.spec.name, self.sizes, self.variant, self.held.rows, self.blocks,
            self.constants(), tuple(sorted(closure(self.functions))), arguments,
            {n: tuple(found) for n, found in lines.items()}, recorded, parts, self.column_tiles, slot, self.part_name,
            self.shapes, self.crowded,
        )  # fmt: skip


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


def product_dtype(programs: Programs, variant: Variant) -> str:
    """Of vectors that are multiplied after the loop: that of the weights."""
    weights = {variant.dtype(t.weight[0]) for t in programs.weight_terms[0]}
    return weights.pop() if len(weights) == 1 else "fp32"


def results_of(programs: Programs) -> list[Operand]:
    """Operands whose cotangents a pass adds up: parameters that are not products after the loop."""
    added = {a.target[0] for a in programs.backward.assigns if a.add}
    return [o for o in programs.spec.of_kind("param") if cotangent(o.name) in added]
