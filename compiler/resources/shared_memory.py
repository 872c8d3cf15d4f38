"""Shared memory of a Triton kernel with one matrix product in a loop.

In: tile sizes, as whole numbers or sympy symbols. Out: bytes of one block, a whole number or a formula.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy

if TYPE_CHECKING:
    Size = int | sympy.Expr

# Warp groups multiply from shared memory, so a stage is in use while the next ones are on their way.
WARP_GROUP_ROWS = 64


def dot_shared_bytes(
    bm: Size,
    bn: Size,
    bk: Size,
    element_bytes: Size,
    out_bytes: Size,
    stages: Size,
    warps: Size,
    architecture: str,
) -> Size:
    """Shared memory of one block of `out[bm, bn] = sum over k of a[bm, bk] @ b[bk, bn]`.

    Args:
        element_bytes: Of an element of `a` and `b`.
        out_bytes: Of an element that is stored.
        architecture: As a compiler is told: "sm_90".

    >>> dot_shared_bytes(128, 128, 64, 2, 2, stages=3, warps=4, architecture="sm_90")
    98304
    """
    ring = (bm + bn) * bk * element_bytes
    ahead = sympy.Max(1, stages - 1)
    if int(architecture.removeprefix("sm_")) in (90, 100):
        ahead = sympy.Piecewise((stages, sympy.Ge(bm, WARP_GROUP_ROWS)), (ahead, True))
    found = sympy.Max(ring * ahead, bm * bn * out_bytes)
    return int(found) if found.is_number else found
