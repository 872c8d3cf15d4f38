"""Rows that are streamed: which columns a task has, and whether results go past the caches.

In: `Programs`, a `Shape`, a machine. Out: the problem that its sizes solve: whole rows if the threads have work, else
just enough pieces; results past the caches if the data of a call do not fit in them, because an ordinary store reads
what it overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, ceiling

from rekern.hwmodels import Machine
from rekern.hwmodels.cpu import Cpu
from rekern.schedules.cpu.counts import MOST_BLOCK, READ_BACK, ROW_OVERHEAD, cells, slot_rows
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import Programs
from rekern.solver import Limit, Problem, Variable


@dataclass(frozen=True)
class Rows:
    """Rows of a step that are read and that are written, over the forward pass and its gradient."""

    read: int
    written: int


def stream_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Columns of a streamed row, steps of a block where not all states are kept, and the way of the results."""
    cpu = machine.cpu
    assert cpu is not None
    number = 8 if shape.double else 4
    lanes = cpu.vector_bytes // number
    lengths = dict(shape.lengths)
    whole = -(-lengths[programs.lane] // lanes) * lanes if programs.lane is not None else lanes
    columns = Variable("columns", lanes, whole, multiple_of=lanes)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    past_caches = Variable("past_caches", 0, 1)
    c, b, past = columns.symbol, block.symbol, past_caches.symbol
    tasks = shape.sequences * shape.heads
    rows = moved_rows(programs)
    waves = ceiling(tasks * ceiling(whole / c) / shape.threads)
    data = shape.tokens * shape.heads * (rows.read + rows.written) * whole * number
    read, kept, streamed = seconds_of_a_byte(cpu, data, shape.threads)
    costs: dict[str, Expr] = {
        "reads": waves * c * rows.read * number * read,
        "writes": waves * c * rows.written * number * (kept + past * (streamed - kept)),
        "rows": waves * (rows.read + rows.written) * ROW_OVERHEAD * 4 / cpu.clock_hz,
    }
    if programs.keep == "steps":
        return Problem(f"the columns of {programs.spec.name}", (columns, past_caches), (), costs)
    slot: Expr | int = slot_rows(programs, shape) * number
    if programs.lane is not None:
        slot = slot * c
    in_cache = Limit(
        "block_in_cache",
        (b + 1) * slot,
        at_most=max(cpu.l2_bytes // 2, 5 * slot_rows(programs, shape) * number * whole),
        unit="bytes",
        reason=READ_BACK,
    )
    costs["kept_states"] = slot / b / cpu.dram_bytes_per_s
    return Problem(f"the columns of {programs.spec.name}", (columns, block, past_caches), (in_cache,), costs)


def moved_rows(programs: Programs) -> Rows:
    """Inputs are read twice and their gradients written, outputs written and their gradients read, states saved."""
    inputs = sum(cells(o.dims) for o in programs.spec.of_kind("input"))
    outputs = sum(cells(dims) for dims in programs.spec.step.output_dims.values())
    saved = len(programs.saved) if programs.streamed else 0
    return Rows(2 * inputs + outputs + saved, inputs + outputs + saved)


def seconds_of_a_byte(cpu: Cpu, data: int, threads: int) -> tuple[float, float, float]:
    """What a byte costs that is read, written through the caches, written past them; `data` bytes in all."""
    streamed = 1 / (cpu.dram_stream_bytes_per_s or cpu.dram_bytes_per_s)
    if data <= threads * (cpu.l3_bytes_per_core or cpu.l2_bytes):
        near = 1 / (cpu.l3_bytes_per_s or cpu.l2_bytes_per_cycle * cpu.clock_hz)
        return near, near, streamed
    return streamed, 2 * streamed, streamed
