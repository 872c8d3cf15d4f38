"""Columns of a row that is streamed.

In: `Programs`, a `Shape`, a machine. Out: the problem that its sizes solve: whole rows if the threads have work, else
just enough pieces.
"""

from __future__ import annotations

from sympy import Expr, ceiling

from rekern.hwmodels import Machine
from rekern.schedules.cpu.counts import MOST_BLOCK, READ_BACK, ROW_OVERHEAD, slot_rows
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import Programs
from rekern.solver import Limit, Problem, Variable


def stream_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Columns of a streamed row: whole rows if the threads have work, else just enough pieces."""
    cpu = machine.cpu
    assert cpu is not None
    number = 8 if shape.double else 4
    lanes = cpu.vector_bytes // number
    lengths = dict(shape.lengths)
    whole = -(-lengths[programs.lane] // lanes) * lanes if programs.lane is not None else lanes
    columns = Variable("columns", lanes, whole, multiple_of=lanes)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    c, b = columns.symbol, block.symbol
    tasks = shape.sequences * shape.heads
    rows = len(programs.spec.operands) + len(programs.spec.states)
    waves = ceiling(tasks * ceiling(whole / c) / shape.threads)
    slot: Expr | int = slot_rows(programs, shape) * number
    if programs.lane is not None:
        slot = slot * c
    return Problem(
        f"the columns of {programs.spec.name}",
        (columns, block),
        (
            Limit(
                "block_in_cache",
                (b + 1) * slot,
                at_most=max(cpu.l2_bytes // 2, 5 * slot_rows(programs, shape) * number * whole),
                unit="bytes",
                reason=READ_BACK,
            ),
        ),
        {
            "memory": waves * c * rows * number / cpu.dram_bytes_per_s,
            "rows": waves * rows * ROW_OVERHEAD * 4 / cpu.clock_hz,
            "kept_states": slot / b / cpu.dram_bytes_per_s,
        },
    )
