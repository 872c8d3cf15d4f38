"""Columns of a matrix state that a task owns: a register tile.

In: `Programs`, a `Shape`, a machine. Out: the problem that its sizes solve: as many vectors as their sums have
registers, and the steps of a block in the second-level cache.
"""

from __future__ import annotations

from sympy import ceiling

from rekern.hwmodels import Machine
from rekern.schedules.cpu.counts import (
    MOST_BLOCK,
    READ_BACK,
    ROW_OVERHEAD,
    register_sums,
    slot_rows,
    state_rows,
    vector_operations,
)
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import Programs
from rekern.solver import Limit, Problem, Variable

SPARE_REGISTERS = 6  # broadcast scalars, loads in flight and the constants of the loop


def tile_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Columns of a matrix state: as many vectors as their sums have registers, and little padding."""
    cpu = machine.cpu
    assert cpu is not None and programs.lane is not None
    number = 8 if shape.double else 4
    lanes = cpu.vector_bytes // number
    length = dict(shape.lengths)[programs.lane]
    vectors = Variable("vectors", 1, 8)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    v, b = vectors.symbol, block.symbol
    rows = state_rows(programs, shape)
    passes = (programs.forward, programs.silent_recording, programs.backward)
    sums = max(register_sums(p) for p in passes)
    slot = slot_rows(programs, shape) * v * cpu.vector_bytes
    tiles = ceiling(length / (v * lanes))
    tasks = shape.sequences * shape.heads
    waves = ceiling(tasks * tiles / shape.threads) / tasks
    operations = sum(vector_operations(p) for p in passes)
    return Problem(
        f"the column tile of {programs.spec.name}",
        (vectors, block),
        (
            Limit(
                "registers",
                sums * v + SPARE_REGISTERS,
                at_most=cpu.vector_registers,
                unit="registers",
                reason="sums over the rows of the state stay in registers",
            ),
            Limit(
                "block_in_cache",
                (b + 1) * slot,
                at_most=max(cpu.l2_bytes // 2, number * lanes * 5 * slot_rows(programs, shape)),
                unit="bytes",
                reason=READ_BACK,
            ),
        ),
        {
            "arithmetic": waves * rows * v * operations / cpu.fma_per_cycle / cpu.clock_hz,
            "loops": waves * rows * ROW_OVERHEAD * len(passes) / cpu.clock_hz,
            "kept_states": waves * 2 * rows * v * cpu.vector_bytes / b / cpu.dram_bytes_per_s,
        },
    )
