"""Batch rows of a task, where they share a weight.

In: `Programs`, a `Shape`, a machine. Out: the problem that its sizes solve: more rows of a task save reads of the
weight and leave fewer tasks.
"""

from __future__ import annotations

from sympy import Min, ceiling

from rekern.hwmodels import Machine
from rekern.schedules.cpu.counts import MOST_BLOCK, READ_BACK, early_weights, slot_rows, weight_numbers
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.passes import MOST_ROWS
from rekern.schedules.programs import Programs
from rekern.solver import Limit, Problem, Variable


def row_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Batch rows of a task: they share every read of a weight, but those of one task run one by one."""
    cpu = machine.cpu
    assert cpu is not None
    number = 8 if shape.double else 4
    rows = Variable("rows", 1, MOST_ROWS)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    r, b = rows.symbol, block.symbol
    weights = weight_numbers(programs, shape)
    waves = ceiling(ceiling(shape.sequences / r) * shape.heads / shape.threads)
    resident = weights * number <= cpu.l2_bytes
    bandwidth = cpu.l2_bytes_per_cycle * cpu.clock_hz if resident else cpu.l3_bytes_per_s or cpu.dram_bytes_per_s
    slot = slot_rows(programs, shape) * number
    early, line = early_weights(programs, shape)
    steps = Variable("ahead", 1, MOST_BLOCK)
    ahead = Limit(
        "products_in_cache",
        steps.symbol * r * line * number,
        at_most=max(cpu.l2_bytes // 4, MOST_ROWS * line * number),
        unit="bytes",
        reason="products with inputs are made for some steps at once, and read while they are in cache",
    )
    each_step = weights - early + (early / steps.symbol if early else 0)
    return Problem(
        f"the batch rows of {programs.spec.name}",
        (rows, block, *([steps] if early else [])),
        (
            *([ahead] if early else []),
            Limit(
                "block_in_cache",
                (b + 1) * slot * r,
                at_most=max(cpu.l2_bytes // 2, 5 * MOST_ROWS * slot),
                unit="bytes",
                reason=READ_BACK,
            ),
        ),
        {
            "products": waves * Min(r, shape.sequences, evaluate=False) * 2 * weights / cpu.float32_flops_per_s,
            "weights": waves * each_step * number / bandwidth,
            "kept_states": r * slot / b / cpu.dram_bytes_per_s,
        },
    )
