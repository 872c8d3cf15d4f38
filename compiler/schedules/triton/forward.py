"""The forward pass of a time loop in Triton.

In: `Programs`, sizes, a variant, whether a gradient follows. Out: its `TritonPass`.
"""

from __future__ import annotations

from rekern.loops.program import NEXT
from rekern.schedules.programs import Programs
from rekern.schedules.triton.passes import Recorded, Sizes, TritonPass, Variant
from rekern.schedules.triton.rows import Rows
from rekern.schedules.triton.time_loop import TimeLoop, kept_rows

BLOCK_ROW = "(block_row + block) * heads + head"


def forward_pass(programs: Programs, sizes: Sizes, variant: Variant, record: bool) -> TritonPass:
    """New states and outputs of every step; with `record` what the gradient reads too.

    Of segments, the first states are those on entry; the last ones have been found before.
    """
    loop = TimeLoop(programs, "recording" if record else "forward", sizes, variant)
    spec, arrays, names = programs.spec, loop.arrays, loop.names
    results = {a.target[0] for a in programs.forward.assigns} - {o.name for o in spec.states}
    outputs = tuple(a for a in programs.forward.assigns if a.target[0] in results)
    keeps_steps = record and programs.keep == "steps"
    assigns = (*programs.silent_recording.assigns, *outputs) if keeps_steps else programs.forward.assigns
    read = loop.plain_reads(assigns)
    pointers = loop.operands(loop.every_read(assigns))
    states = loop.tensors(spec.states)
    begin = "entry" if sizes.segment else "first"
    first = {o.name: arrays.pointer("state_in", o.name, o.dims, "state", f"{o.name}_{begin}") for o in spec.states}
    out = {
        n: arrays.pointer("output", n, dims, "step", n, variant.dtype(n)) for n, dims in spec.step.output_dims.items()
    }
    ends = () if sizes.segment else spec.states
    last = {o.name: arrays.pointer("state_out", o.name, o.dims, "state", f"{o.name}_last") for o in ends}
    text = loop.step(assigns)
    loop.part(
        "states", (f"{names.of((o.name, c))} = {arrays.load(first[o.name], c, rows='exists')}" for o, c in states)
    )
    loop.part("params", loop.load_params(pointers, [text], read))
    loop.part("loads", loop.load_rows(pointers, read, "t"))
    if variant.reset:
        loop.part("loads", [*loop.restart_line(), *loop.restarts(loop.initials())])
    loop.part("step", text.lines)
    for n in spec.step.output_dims:
        for cell in (c for t, c in text.values if t == n):
            loop.part("stores", [arrays.store(out[n], cell, text.values[n, cell])])
    recorded: tuple[Recorded, ...] = ()
    if keeps_steps:
        rows = Rows(loop, kept_rows(programs), masked=True)
        pointer = rows.declare("recorded", "kept")
        for place in rows.places:
            value = text.values[place] if place in text.values else names.of(place)
            own = text.value_axes.get(place, arrays.axes(rows.places[place]))
            loop.part("stores", [rows.store(pointer, place, loop.fitted(value, own, arrays.axes(rows.places[place])))])
        recorded = rows.recorded
    elif record:
        kept = {
            o.name: arrays.pointer("checkpoint", o.name, o.dims, "checkpoint", f"{o.name}_kept") for o in spec.states
        }
        loop.part(
            "checkpoint",
            (arrays.store(kept[o.name], c, names.of((o.name, c)), BLOCK_ROW, "exists") for o, c in states),
        )
    prefix = NEXT if keeps_steps else ""
    targets = {(prefix + o.name, cell): (o.name, cell) for o, cell in states}
    loop.part("update", loop.state_lines(text.values, text.value_axes, targets))
    stored = ((last[o.name], c, names.of((o.name, c))) for o, c in loop.tensors(ends))
    loop.part("last", (arrays.store(array, c, name, rows="exists") for array, c, name in stored))
    return loop.finish(recorded, slot=sum(r.count for r in recorded))
