"""The schedule scan in Triton: what a segment makes of the states on entry, and how segments are joined.

In: `Programs` and the `Summary`s of a spec, sizes with a segment, a variant. Out: a `TritonPass` for each launch. A
summary walks a segment from a neutral entry, and what becomes of the entry beside it; a join walks the segments of a
sequence. The last launch is the pass of the time loop, with segments in the place of sequences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rekern import ir
from rekern.gradient import cotangent
from rekern.ir import Node, Read
from rekern.loops.program import Assign, Place
from rekern.schedules.gpu.work import power_of_two
from rekern.schedules.programs import Programs
from rekern.schedules.scan import NEUTRAL, THROUGH, UNCHANGED, Summary
from rekern.schedules.triton.arrays import Pointer
from rekern.schedules.triton.backward import Backward
from rekern.schedules.triton.factors import factor, factors, sources
from rekern.schedules.triton.passes import PassName, Sizes, TritonPass, Use, Variant
from rekern.schedules.triton.rows import Rows
from rekern.schedules.triton.time_loop import TimeLoop, kept_rows
from rekern.trace import Dim, cells_of

END = "end:"  # the mark of what a segment ends with from a neutral entry
SEGMENT_ROW = "segment_row * heads + head"
# A join does next to nothing with a number, so smaller tiles than those of the segments cost nothing and fill more SMs.
JOIN_NUMBERS = 1024  # of a tile
LEAST_COLUMNS = 8  # float32 numbers of a sector of a cache line, which is moved as a whole
JOIN_BYTES = 32768  # in flight: a block's share of shared memory on every GPU where several are to be resident


def summary_pass(level: Summary, lane: str | None, sizes: Sizes, variant: Variant) -> TritonPass:
    """What each segment makes of the states of one level, given the states on entry of earlier levels."""
    loop = TimeLoop(replace(level.programs, lane=lane), "summary", sizes, variant)
    spec, arrays, names = loop.spec, loop.arrays, loop.names
    assigns = loop.programs.forward.assigns
    read = loop.plain_reads(assigns)
    pointers = loop.operands(loop.every_read(assigns))
    start = {n: NEUTRAL[join] for n, join in level.joins.items()}
    start |= {THROUGH + n: UNCHANGED[join] for n, join in level.joins.items()}
    known = tuple(o for o in spec.states if o.name not in start)
    own = tuple(o for o in spec.states if o.name in start)
    entry = {o.name: arrays.pointer("entry", o.name, o.dims, "state", f"{o.name}_entry") for o in known}
    found = {o.name: arrays.pointer("summary", o.name, o.dims, "state", f"{word(o.name)}_found") for o in own}
    text = loop.step(assigns)
    loop.part("params", loop.load_params(pointers, [text], read))
    loop.part(
        "states", (f"{names.of((o.name, c))} = {arrays.load(entry[o.name], c)}" for o, c in loop.tensors(known))
    )
    loop.part("states", filled(loop, {(o.name, c): start[o.name] for o, c in loop.tensors(own)}))
    loop.part("loads", loop.load_rows(pointers, read, "t"))
    if variant.reset:
        loop.part("loads", [*loop.restart_line(), *loop.restarts(loop.initials())])
    loop.part("step", text.lines)
    places = [(o.name, c) for o, c in loop.tensors(spec.states)]
    loop.part("update", loop.state_lines(text.values, text.value_axes, {p: p for p in places}))
    loop.part("last", (arrays.store(found[o.name], c, names.of((o.name, c))) for o, c in loop.tensors(own)))
    return loop.finish()


def join_pass(programs: Programs, level: Summary, sizes: Sizes, variant: Variant) -> TritonPass:
    """The states of one level on entry of every segment, and after the last."""
    values: dict[Place, Node] = {}
    for name, join in level.joins.items():
        o = programs.spec.operand(name)
        for cell in cells_of(o.dims):
            entry, through, end = (ir.read(m + name, cell, ir.canonical_axes(o.axes)) for m in ("", THROUGH, END))
            if join == "sum":
                values[name, cell] = ir.add(ir.mul(through, entry), end)
            else:
                values[name, cell] = ir.build(join, ir.add(through, entry), end)
    summaries = {END + n: n for n in level.joins} | {THROUGH + n: THROUGH + n for n in level.joins}
    ends: tuple[Use, str] = ("state_out", "last")
    return _join("join", programs, sizes, variant, values, summaries, ("state_in", "first"), "entry", ends)


def backward_join_pass(programs: Programs, sizes: Sizes, variant: Variant) -> TritonPass:
    """The cotangents of the states at the exit of every segment, and of the first states."""
    found = factors(programs)
    values: dict[Place, Node] = {}
    for o in programs.spec.states:
        axes = ir.canonical_axes(o.axes)
        for cell in cells_of(o.dims):
            terms: list[Node] = [ir.read(END + cotangent(o.name), cell, axes)]
            for source in sources(programs):
                if (factor(o.name, source), cell) in found:
                    by = ir.read(factor(o.name, source), cell, axes)
                    terms.append(ir.mul(by, ir.read(cotangent(source[0]), source[1], axes)))
            values[cotangent(o.name), cell] = ir.total(terms)
    summaries = {END + cotangent(o.name): cotangent(o.name) for o in programs.spec.states}
    summaries |= {name: name for name, _ in found}
    ends: tuple[Use, str] = ("d_state_out", "last")
    first: tuple[Use, str] = ("d_state_in", "first")
    return _join("backward_join", programs, sizes, variant, values, summaries, ends, "exit", first)


def backward_summary_pass(programs: Programs, sizes: Sizes, variant: Variant) -> TritonPass:
    """What each segment makes of the cotangents of the states at its exit."""
    return BackwardSummary(programs, sizes, variant).build()


class BackwardSummary(Backward):
    """The steps of a segment backwards: no cotangent is known at its exit, so the factors of all are walked."""

    def __init__(self, programs: Programs, sizes: Sizes, variant: Variant) -> None:
        self.factors = factors(programs)
        states = {(cotangent(o.name), c): o.dims for o in programs.spec.states for c in cells_of(o.dims)}
        own = tuple(a for a in programs.backward.assigns if a.target in states)
        back = (*own, *self.factors.values())
        kept = kept_rows(programs)
        reads = {(n.operand, n.component) for n in ir.walk([a.value for a in back]) if isinstance(n, Read)}
        self.reads_kept = bool(reads & kept.keys())
        extra = {name: programs.spec.states[0].dims for name, _ in self.factors}  # the same for all states of a scan
        blocks = programs.keep == "blocks" and self.reads_kept
        self._begin(TimeLoop(programs, "backward_summary", sizes, variant, extra, blocks))
        self.back = back
        self.walked = [*states, *self.factors]

    def build(self) -> TritonPass:
        """The kernel."""
        loop, arrays, back = self.loop, self.arrays, self.back
        again = tuple(a for a in self.programs.silent_recording.assigns if self.blocks and a.target[0] not in self._d())
        read = loop.plain_reads(again, back)
        pointers = loop.operands(loop.every_read(again, back))
        outputs = self.spec.step.output_dims
        d_out = self._given({n: dims for n, dims in outputs.items() if cotangent(n) in {name for name, _ in read}})
        rows = Rows(loop, kept_rows(self.programs), masked=not self.blocks)
        kept = self._kept(rows) if self.reads_kept else None
        checkpoints = self._checkpoints()
        found = {
            name: arrays.pointer("summary", name, loop.dims(name), "state", f"{word(name)}_found")
            for name in dict.fromkeys(name for name, _ in self.walked)
        }
        if self.blocks and kept:
            self._again(again, pointers, d_out, {}, rows, kept, checkpoints)
        text = loop.step(back)
        self._back(text, back, pointers, d_out, {}, rows, kept, {})
        loop.part("update", loop.state_lines(text.values, text.value_axes, {p: p for p in self.factors}))
        if self.variant.reset:
            loop.part("update", (f"{(n := self.names.of(p))} = tl.where(restart, 0.0, {n})" for p in self.factors))
        units = {(factor(n, (n, c)), c) for (n, c) in sources(self.programs)}
        loop.part("states", filled(loop, {p: float(p in units) for p in self.walked}))
        loop.part("last", (arrays.store(found[name], c, self.names.of((name, c))) for name, c in self.walked))
        texts = [text, self.again_text] if self.blocks else [text]
        loop.part("params", loop.load_params(pointers, texts, read))
        return loop.finish(rows.recorded if kept else (), slot=rows.slot if kept else 0)

    def _d(self) -> set[str]:
        return {cotangent(o.name) for o in self.spec.operands}


# -- lines


def word(name: str) -> str:
    """A word for what is found of a state or a cotangent."""
    return name.replace(":", "_")


def filled(loop: TimeLoop, values: Mapping[Place, float]) -> list[str]:
    """Tensors of one number each, before the first step."""
    lines = []
    for place, value in values.items():
        text = repr(value) if abs(value) != float("inf") else f'float("{value}")'
        lines.append(f"{loop.names.of(place)} = {loop.fitted(text, (), loop.arrays.axes(loop.dims(place[0])))}")
    return lines


def _join(
    name: PassName, programs: Programs, sizes: Sizes, variant: Variant, values: Mapping[Place, Node],
    summaries: Mapping[str, str], given: tuple[Use, str], between: str, result: tuple[Use, str],
) -> TritonPass:  # fmt: skip
    """A walk over the segments of a sequence.

    Args:
        values: The step of each state (or cotangent), from the values on entry and `summaries`.
        summaries: What is found of segments, by the name in the formulas.
        given, result: Where the walk starts, and what it leaves; `between`: a word for what each segment gets.
    """
    state_of = {n: programs.spec.operand(n.removeprefix(cotangent(""))) for n, _ in values}
    shape = next(iter(state_of.values())).dims  # all states of a scan have the same axes
    # Restarts are in the summaries.
    sizes, variant = join_sizes(programs, sizes, len(summaries)), replace(variant, reset=False)
    loop = TimeLoop(programs, name, sizes, variant, dict.fromkeys(summaries, shape))
    arrays, names = loop.arrays, loop.names

    def declare(use: Use, at: str) -> dict[str, Pointer]:
        return {n: arrays.pointer(use, o.name, shape, "state", f"{word(n)}_{at}") for n, o in state_of.items()}

    first, last = declare(*given), declare(*result)
    entry = {
        n: arrays.pointer("entry", o.name, shape, "checkpoint", f"{word(n)}_{between}") for n, o in state_of.items()
    }
    found = {
        n: arrays.pointer("summary", operand, shape, "checkpoint", f"{word(operand)}_found")
        for n, operand in summaries.items()
    }
    text = loop.step(tuple(Assign(p, ir.canonical_axes(_named(shape)), node) for p, node in values.items()))
    read = loop.plain_reads(tuple(Assign(p, (), node) for p, node in values.items()))
    loop.part("states", (f"{names.of(p)} = {arrays.load(first[p[0]], p[1])}" for p in values))
    loads = (p for n in summaries for p in ((n, c) for c in cells_of(shape)) if p in read)
    loop.part("loads", (f"{names.of(p)} = {arrays.load(found[p[0]], p[1], SEGMENT_ROW)}" for p in loads))
    loop.part("step", text.lines)
    loop.part("stores", (arrays.store(entry[n], c, names.of((n, c)), SEGMENT_ROW) for n, c in values))
    loop.part("update", loop.state_lines(text.values, text.value_axes, {p: p for p in values}))
    loop.part("last", (arrays.store(last[n], c, names.of((n, c))) for n, c in values))
    return loop.finish()


def join_sizes(programs: Programs, sizes: Sizes, loads: int) -> Sizes:
    """Of a join that loads so many values for a segment."""
    dims = programs.spec.states[0].dims
    lengths = dict(sizes.lengths)
    rows = math.prod(power_of_two(lengths[d]) for d in dims if isinstance(d, str) and d != programs.lane)
    columns = min(sizes.columns, max(LEAST_COLUMNS, JOIN_NUMBERS // rows))
    fit = JOIN_BYTES // (loads * rows * max(1, columns) * 4)
    return replace(sizes, columns=columns, stages=max(1, min(sizes.stages, fit)))


def _named(dims: Sequence[Dim]) -> tuple[str, ...]:
    return tuple(d for d in dims if isinstance(d, str))
