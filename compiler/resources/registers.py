"""Registers that a matrix product takes, and whether a kernel is likely to spill because of them.

In: tile sizes, as whole numbers or sympy symbols. Out: registers of a thread, a number or a formula.
"""

from __future__ import annotations

from rekern.resources.formulas import Size, Truth, both, either, larger, ratio, reaches
from rekern.resources.shared_memory import GROUP_ROWS, GROUP_WARPS, INSTRUCTIONS, LANES, warps_of_sides

REGISTER_BYTES = 4
# What a thread may have of each before kernels with one product spill (benchmarks/gate.py).
MOST_SUMS = 128
MOST_READ = 255             # sums that are read from tensor memory after the loop
MOST_OPERANDS = 255         # of one operand, which a warp reads whole


def accumulator_registers(bm: Size, bn: Size, warps: Size) -> Size:
    """float32 sums of a [bm, bn] tile that one thread holds, in registers of 32 bits.

    >>> accumulator_registers(128, 256, 8)
    128
    """
    return ratio(bm * bn, LANES * warps)


def operand_registers(bm: Size, bn: Size, bk: Size, element_bytes: int, warps: Size) -> Size:
    """Registers of one thread for its part of the larger operand, where each warp multiplies for itself.

    >>> operand_registers(128, 128, 64, 2, warps=4)
    64
    """
    tall, across = warps_of_sides(bm, bn, warps)
    a = ratio(bm * bk * element_bytes, REGISTER_BYTES * LANES * tall)
    return larger(a, ratio(bk * bn * element_bytes, REGISTER_BYTES * LANES * across))


def spills(bm: Size, bn: Size, bk: Size, element_bytes: int, warps: Size, architecture: str) -> Truth:
    """Whether a kernel with one product of these sizes is likely to spill: a guess that the gate checks.

    Warp groups read operands from shared memory; on sm_100 their sums are in tensor memory until the loop is over.

    >>> spills(256, 256, 64, 2, 8, "sm_90"), spills(128, 256, 64, 2, 8, "sm_90"), spills(256, 256, 64, 2, 8, "sm_100")
    (True, False, True)
    """
    sums = accumulator_registers(bm, bn, warps)
    operands = operand_registers(bm, bn, bk, element_bytes, warps)
    plain = either(reaches(sums, MOST_SUMS + 1), reaches(operands, MOST_OPERANDS + 1))
    instructions = INSTRUCTIONS.get(architecture, ("mma", False))[0]
    if instructions not in ("wgmma", "tcgen05"):
        return plain
    groups = both(reaches(bm, GROUP_ROWS), reaches(warps, GROUP_WARPS))
    grouped = reaches(sums, (MOST_SUMS if instructions == "wgmma" else MOST_READ) + 1)
    alone = either(reaches(GROUP_ROWS - 1, bm), reaches(GROUP_WARPS - 1, warps))
    return either(both(groups, grouped), both(alone, plain))
