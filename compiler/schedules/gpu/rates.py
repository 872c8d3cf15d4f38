"""Rates that follow from a machine file, and the few constants that no file has.

In: a `Gpu`. Out: operations per second of tiles of a kernel.
"""

from __future__ import annotations

from sympy import Expr, Float

from rekern.errors import PlanError
from rekern.hwmodels.gpu import Gpu
from rekern.solver.formulas import AtMost, When

# An SM has four schedulers with a matrix unit each, a compute unit four SIMDs: fewer warps leave some idle.
# NVIDIA H100 whitepaper, figure 7; AMD CDNA 3 whitepaper, "compute unit".
SCHEDULERS = 4

# From L2 into one SM. NVIDIA: 64 bytes per clock and SM (Volta: arXiv:1804.06826);
# AMD CDNA 3: a 64-byte line per clock and compute unit.
L2_BYTES_PER_CYCLE = 64

# Of what a thread can name, half may hold tiles: with more than 128 sums of float32 a thread, kernels for
# sm_80 and sm_90 spilled in all but a few cases, with fewer in few (compiled: benchmarks/results/offline).
TILE_SHARE_OF_REGISTERS = 0.5
REGISTERS_BESIDE_TILES = 40  # addresses, masks, loop counters and the operands in flight of small kernels

# Where warp groups exist, tiles of fewer than 64 rows go through the older instruction, at 62.9 % of the
# rate (H100: arXiv:2402.13499).
WARP_GROUP_ROWS = 64
SYNC_MATRIX_SHARE = 0.63

# float32 operands go through three products of tfloat32, which keeps 21 bits (arXiv:2203.03341).
PRODUCTS_FOR_FLOAT32 = 3


def matrix_flops_per_s(gpu: Gpu, dtype: str, rows: Expr | int) -> Expr:
    """Of products of tiles with so many rows, of the whole chip.

    Raises:
        PlanError: the chip cannot multiply this dtype.
    """
    if dtype == "float32":
        if gpu.tfloat32_flops_per_s is None:
            return Float(gpu.float32_flops_per_s)
        rate = gpu.tfloat32_flops_per_s / PRODUCTS_FOR_FLOAT32
    else:
        found = gpu.bfloat16_flops_per_s if dtype == "bfloat16" else gpu.float16_flops_per_s
        if found is None:
            raise PlanError(f"{gpu.architecture} has no matrix products of {dtype}; {_others(gpu)}")
        rate = found
    reached = Float(rate * gpu.mma_share)
    if not gpu.warpgroup_mma:
        return reached
    return reached * When(AtMost(WARP_GROUP_ROWS, rows), 1, SYNC_MATRIX_SHARE)


def has_matrix(gpu: Gpu, dtype: str) -> bool:
    """Whether products of this dtype are possible; float32 always is."""
    return dtype == "float32" or getattr(gpu, f"{dtype}_flops_per_s") is not None


def _others(gpu: Gpu) -> str:
    known = [d for d in ("float16", "float32") if has_matrix(gpu, d)]
    return f"use {' or '.join(known)}"
