"""Columns of a matrix state that a task owns: a register tile.

In: `Programs`, a `Shape`, a machine. Out: the problem that its sizes solve: as many vectors as their sums have
registers, and the steps of a block in the second-level cache.
"""

from __future__ import annotations

from collections.abc import Iterable

from sympy import Expr, Rational

from rekern.hwmodels import Cpu, Machine
from rekern.printers.cpp_nests import SPARE_REGISTERS
from rekern.schedules.cpu.counts import (
    MOST_BLOCK,
    READ_BACK,
    ROW_OVERHEAD,
    ROW_SUM,
    STEP_OVERHEAD,
    Walk,
    columns_and_rest,
    shared_numbers,
    walks,
)
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import Programs
from rekern.solver import Limit, Problem, Variable
from rekern.solver.formulas import AtMost, Most, RoundedUp, When

KEPT_MOVES = 4  # a state that is kept is written, which reads it, read, and makes room for itself
SHARED_MOVES = 4  # a row that all tiles read is read forward and backward, and its cotangent read and written
CHAIN = 2  # cycles from row to row, with two sets of sums


def tile_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Columns of a matrix state: as many vectors as their sums have registers, and little padding.

    Wider tiles share what a row and a step cost among more columns; the state of a narrower one stays nearer.
    """
    cpu = machine.cpu
    assert cpu is not None and programs.lane is not None
    number = 8 if shape.double else 4
    lanes = cpu.vector_bytes // number
    length = dict(shape.lengths)[programs.lane]
    vectors = Variable("vectors", 1, 8)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    v, b = vectors.symbol, block.symbol
    rows, rest = columns_and_rest(programs, shape, kept=False)
    slot_rows, slot_rest = columns_and_rest(programs, shape, kept=True)
    passes = [(walks(p), steps) for p, steps in programs.loop_steps]
    every = [(walk, steps) for found, steps in passes for walk in found]
    sums = max([1, *(walk.sums for walk, _ in every)])
    slot = slot_rows * v * cpu.vector_bytes + slot_rest * number
    tiles = RoundedUp(length / (v * lanes))
    tasks = shape.sequences * shape.heads
    waves = RoundedUp(tasks * tiles / shape.threads) / tasks
    state = rows * v * cpu.vector_bytes + rest * number
    touched = sum(Rational(walk.arrays, steps) for walk, steps in every)
    far = When(AtMost(state, cpu.l1_bytes), 0, state * touched / cpu.l2_bytes_per_cycle)
    per_row = sum((ROW_OVERHEAD + ROW_SUM * walk.row_sums) / steps for walk, steps in every)
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
                ((b + 1) if programs.reads_slots else 2) * slot,
                at_most=max(cpu.l2_bytes * 5 // 8, 5 * (slot_rows * cpu.vector_bytes + slot_rest * number)),
                unit="bytes",
                reason=READ_BACK,
            ),
        ),
        {
            "arithmetic": waves * rows * sum(_cycles(every, v, cpu)) / cpu.clock_hz,
            "far_states": waves * far / cpu.clock_hz,
            "rows": waves * rows * per_row / cpu.clock_hz,
            "steps": waves * STEP_OVERHEAD * len(passes) / cpu.clock_hz,
            "shared_rows": waves * SHARED_MOVES * shared_numbers(programs, shape) * number / cpu.dram_bytes_per_s,
            "kept_states": waves * KEPT_MOVES * state / b / cpu.dram_bytes_per_s,
        },
    )


def _cycles(every: Iterable[tuple[Walk, int]], v: Expr, cpu: Cpu) -> Iterable[Expr]:
    """Cycles of a row and a step in each walk: arithmetic, traffic, or waiting for the sums of the row before."""
    for walk, steps in every:
        traffic = walk.arrays * v * cpu.vector_bytes / cpu.l1_bytes_per_cycle
        yield Most(walk.multiply_adds * v / cpu.fma_per_cycle, traffic, CHAIN if walk.sums else 0) / steps
