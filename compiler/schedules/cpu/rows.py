"""Batch rows of a task, where they share a weight, and the threads that work on it together.

In: `Programs`, a `Shape`, a machine. Out: the problem that its sizes solve: more rows of a task save reads of the
weight and leave fewer tasks; where there are fewer tasks than threads, a team of them shares the units of a task, and
its members wait for each other in every step.
"""

from __future__ import annotations

from sympy import Min, ceiling, floor

from rekern.hwmodels import Machine
from rekern.hwmodels.cpu import Cpu
from rekern.schedules.cpu.counts import MOST_BLOCK, READ_BACK, early_weights, slot_rows, weight_numbers
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.passes import MOST_ROWS
from rekern.schedules.programs import Programs
from rekern.schedules.team import shared, why_no_team
from rekern.solver import Limit, Problem, Variable

ROWS_ENOUGH = 4  # of a task: with more, reads of the weight hardly count (4 to 6 rows are within 2 % in the L2 cache)
UNEVEN = 2  # waits of a team beside a barrier of threads that arrive together


def row_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Batch rows of a task, which share every read of a weight, but those of one task run one by one; and its team."""
    cpu = machine.cpu
    assert cpu is not None
    number = 8 if shape.double else 4
    rows = Variable("rows", 1, MOST_ROWS)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    r, b = rows.symbol, block.symbol
    weights = weight_numbers(programs, shape)
    most_members = _most_members(programs, shape, cpu)
    team = Variable("team", 1, most_members) if most_members > 1 else None
    members = team.symbol if team else 1
    waves = ceiling(ceiling(shape.sequences / r) * shape.heads / floor(shape.threads / members))
    units = _units(shape, cpu)
    wait_seconds = UNEVEN * cpu.barrier_seconds  # for each of the others
    share = ceiling(units / members) / units if team else 1  # of the member that has most to do
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
        (rows, block, *([steps] if early else []), *([team] if team else [])),
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
            "products": waves * share * Min(r, shape.sequences, evaluate=False) * 2 * weights / cpu.float32_flops_per_s,
            "weights": waves * share * each_step * number / bandwidth,
            "kept_states": r * slot / b / cpu.dram_bytes_per_s,
            **({"waiting": waves * _waits(programs) * (team.symbol - 1) * wait_seconds} if team else {}),
        },
    )


def _most_members(programs: Programs, shape: Shape, cpu: Cpu) -> int:
    """Threads that can share a task.

    Where there are sequences enough for every thread, tasks of their own are as fast, and do not wait for a thread
    that the system has set aside.
    """
    full = shape.sequences * shape.heads >= shape.threads * ROWS_ENOUGH
    if shape.threads == 1 or full or why_no_team(programs) is not None:
        return 1
    return min(shape.threads, _units(shape, cpu))


def _units(shape: Shape, cpu: Cpu) -> int:
    """Vectors of the longest axis: members have whole ones."""
    longest = max(length for _, length in shape.lengths)
    return -(-longest * (8 if shape.double else 4) // cpu.vector_bytes)


def _waits(programs: Programs) -> int:
    """How often the members of a team wait for each other in a step."""
    found = shared(programs, programs.forward)
    return found.waits_in_step() if found is not None else 0
