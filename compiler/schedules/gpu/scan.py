"""Schedule `scan`: time is cut into segments that run in parallel, on two levels.

In: a `Call`. Out: its `Design`, or why the schedule does not apply. The first launch finds what each segment
makes of the state on entry, a short one joins the segments, the third runs every segment from its true entry.
It reads the inputs twice, so it pays where sequences, heads and channels do not fill the chip.
"""

from __future__ import annotations

import sympy

from rekern import ir
from rekern.ir import Read
from rekern.schedules.gpu import time_loop, work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design, tiles, warps
from rekern.schedules.gpu.launches import Launch
from rekern.schedules.programs import programs
from rekern.schedules.scan import summaries
from rekern.solver import Variable
from rekern.spec import Recurrence

SHORTEST = 16  # steps of a segment; the summary of a shorter one is as large as the segment
NUMBERS_OF_SUMMARY = 2  # what is kept of the entry, and what is added


def refusal(call: Call) -> str | None:
    """Why `call` has no scan over time; None: it has."""
    found = summaries(call.spec)
    if not isinstance(found, tuple):
        return str(found)
    if work.state(call).exchanges:
        return "a step sums along another axis, so channels are not independent"
    if turned := _turned(call.spec):
        return f"a step reads state {turned!r} with its axes turned, so channels are not independent"
    if programs(call.spec).rows:
        return "a step multiplies a weight with a vector: sequences share the block that holds it"
    return None


def _turned(spec: Recurrence) -> str | None:
    """A state of which a new state reads other numbers than those at its own place."""
    nodes = ir.walk(n for o in spec.states for n in spec.step.states[o.name].values())
    reads = (n for n in nodes if isinstance(n, Read) and n.operand in spec.step.states)
    return next((n.operand for n in reads if n.indices != ir.canonical_axes(spec.operand(n.operand).axes)), None)


def design(call: Call) -> Design:
    """The sizes of both passes."""
    found = _pass(call, "forward", work.forward(call), 1)
    return found + _pass(call, "backward", work.backward(call), 2) if call.gradient else found


def _pass(call: Call, name: str, todo: work.Work, walks: int) -> Design:
    """`walks`: how often the segment is run; the gradient runs it forward first."""
    gpu, state = call.gpu, work.state(call)
    found = summaries(call.spec)
    levels = len(found) if isinstance(found, tuple) else 1
    most = max(SHORTEST, min(4096, work.power_of_two(call.time)))
    segment = Variable(f"{name} segment", SHORTEST, most, powers_of_two=True)
    warp = warps(f"{name} warps", gpu)
    unroll = Variable(f"{name} steps in flight", 1, 16, powers_of_two=True)
    s, flight = segment.symbol, unroll.symbol
    segments = tiles(call.time, s)
    lanes = warp.symbol * gpu.warp_threads
    blocks = call.rows * tiles(state.columns, lanes) * segments
    tokens = call.rows * call.time
    moved = tokens * todo.elements * call.element_bytes
    numbers = call.rows * state.elements
    summary = numbers * segments * NUMBERS_OF_SUMMARY * 4
    chain = time_loop.CHAIN_CYCLES / gpu.clock_hz
    loaded = todo.shared_elements + -(-todo.lane_elements // state.columns)  # for one step of one column
    registers = lanes * (state.padded_column_rows * NUMBERS_OF_SUMMARY + flight * loaded)
    summaries_launch = Launch(
        f"{name}.summaries", blocks, s, warp.symbol, call.dtype,
        tile_elements=registers,
        dram_bytes=walks * moved + summary,
        l2_bytes=walks * moved + summary,
        flops=2 * walks * tokens * todo.flops,
        special=walks * tokens * todo.special,
        latency=chain,
        load_latency=gpu.dram_latency_seconds, stages=flight,
        times=levels,
    )  # fmt: skip
    join = Launch(
        f"{name}.join", sympy.Integer(-(-numbers // gpu.warp_threads)), segments, sympy.Integer(1), call.dtype,
        dram_bytes=2 * summary,
        l2_bytes=2 * summary,
        flops=4 * numbers * segments,
        latency=chain,
        load_latency=gpu.l2_latency_seconds,
        times=levels,
    )  # fmt: skip
    apply = Launch(
        f"{name}.apply", blocks, walks * s, warp.symbol, call.dtype,
        tile_elements=registers,
        dram_bytes=walks * moved + summary,
        l2_bytes=walks * moved + summary,
        flops=walks * tokens * todo.flops,
        special=walks * tokens * todo.special,
        latency=chain,
        load_latency=gpu.dram_latency_seconds, stages=flight,
    )  # fmt: skip
    return Design((segment, warp, unroll), (summaries_launch, join, apply))
