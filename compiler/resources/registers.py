"""Registers that the sums of a matrix product take, and whether a kernel is likely to spill because of them.

In: tile sizes, as whole numbers or sympy symbols. Out: registers of a thread, a number or a formula.
"""

from __future__ import annotations

from rekern.resources.formulas import Size, Truth, both, either, ratio
from rekern.resources.shared_memory import GROUP_ROWS, GROUP_WARPS, INSTRUCTIONS, LANES

# float32 sums of a thread above which kernels with one product spill (benchmarks/gate.py)
MOST_SUMS = 128


def accumulator_registers(bm: Size, bn: Size, warps: Size) -> Size:
    """float32 sums of a [bm, bn] tile that one thread holds, in registers of 32 bits.

    >>> accumulator_registers(128, 256, 8)
    128
    """
    return ratio(bm * bn, LANES * warps)


def spills(bm: Size, bn: Size, warps: Size, architecture: str) -> Truth:
    """Whether a kernel with one product of these sizes is likely to spill: a guess that the gate checks.

    Sums in tensor memory take columns there, not registers.

    >>> spills(256, 256, 8, "sm_90"), spills(128, 256, 8, "sm_90"), spills(256, 256, 8, "sm_100")
    (True, False, False)
    """
    many = accumulator_registers(bm, bn, warps) > MOST_SUMS
    if INSTRUCTIONS.get(architecture, ("", False))[0] == "tcgen05":
        return both(many, either(bm < GROUP_ROWS, warps < GROUP_WARPS))
    return many
