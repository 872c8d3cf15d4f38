"""Shared memory of a Triton kernel with one matrix product in a loop, as the compiler lays it out.

In: tile sizes, as whole numbers or sympy symbols. Out: bytes of one block, a whole number or a formula.

Two things are in shared memory, one after the other, so the larger counts. In the loop: tiles of both operands.
After it: a buffer through which the sums go from the registers that matrix instructions left them in to those
that whole rows are stored from. It holds a part of the tile at a time where the two layouts have registers in
common: the part that differs only in these goes through the same bytes after the part before it.

Source: compiled kernels (benchmarks/gate.py takes a new sample), and in Triton's own sources the pipeliner and
lib/Tools/GenericSwizzling.cpp. The rules are the same in Triton 3.6, 3.7, 3.8 and 3.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rekern.errors import PlanError
from rekern.resources.formulas import Size, Truth, both, choose, either, larger, ratio, reaches, smaller

LANES = 32                  # threads of a warp
VECTOR_BYTES = 16           # the widest load or store of a thread
COPY_BYTES = 4              # the narrowest asynchronous copy of a thread
GROUP_ROWS, GROUP_WARPS = 64, 4     # the smallest product of a warp group
BARRIER_BYTES = 8

# Which instructions multiply, and whether a warp stores a matrix to shared memory in one (stmatrix).
# "mma": warps, sums in registers. "wgmma": warp groups, sums in registers. "tcgen05": sums in tensor memory.
# "amd": sums in registers that are stored as they are; "amd16" has instructions for 16-bit operands only.
INSTRUCTIONS = {
    "sm_80": ("mma", False),
    "sm_86": ("mma", False),
    "sm_89": ("mma", False),
    "sm_90": ("wgmma", True),
    "sm_100": ("tcgen05", True),
    "sm_120": ("mma", True),
    "gfx942": ("amd", False),
    "gfx1100": ("amd16", False),
}


@dataclass(frozen=True)
class _Store:
    """How the threads of a block store a tile: rows of `vector` elements a thread, neighbours side by side.

    Args:
        vector: Elements that one thread stores at a time.
        width: Columns that the block stores at a time.
        rows: Rows that the block stores at a time.
    """

    vector: Size
    width: Size
    rows: Size


@lru_cache(maxsize=4096)    # a formula of symbols takes 0.1 s to make
def dot_shared_bytes(
    bm: Size,
    bn: Size,
    bk: Size,
    element_bytes: int,
    out_bytes: int,
    stages: Size,
    warps: Size,
    architecture: str,
) -> Size:
    """Shared memory of one block of `out[bm, bn] = sum over k of a[bm, bk] @ b[bk, bn]`, in bytes.

    Both operands and the result have dense rows that start at multiples of 16 bytes; the sums are float32.
    Sizes are powers of two, 16 or more; `warps` is 1, 2, 4 or 8. What the compiler takes on NVIDIA's chips to the
    byte; on AMD's a bound, which it meets but for tiles with less than 4 bytes a thread and a single stage.

    Args:
        element_bytes: Of an element of `a` and `b`: 2 or 4.
        out_bytes: Of an element of the result: 2 or 4.
        architecture: As a compiler is told: "sm_90".

    Raises:
        PlanError: nothing is known of `architecture`.

    >>> dot_shared_bytes(128, 128, 64, 2, 2, stages=3, warps=4, architecture="sm_90")
    98304
    >>> dot_shared_bytes(128, 128, 64, 2, 2, stages=3, warps=4, architecture="sm_80")
    65536
    """
    if architecture not in INSTRUCTIONS:
        known = ", ".join(INSTRUCTIONS)
        raise PlanError(
            f"the shared memory of a matrix product is not known for {architecture!r}, only for {known}\n"
            "compile the kernel with rekern.gate and read it"
        )
    instructions, store_matrix = INSTRUCTIONS[architecture]
    if instructions.startswith("amd"):
        summed = bm * bn * out_bytes if instructions == "amd16" and element_bytes > 2 else 0
        return larger(_ring_of_registers(bm, bn, bk, element_bytes, stages), summed)
    store = _store(bm, bn, out_bytes, warps)

    # Warps copy a tile to registers before they multiply it: its buffer is free for the next one.
    ahead = larger(1, stages - 1)
    ring = _ring(bm, bn, bk, element_bytes, warps, ahead, narrow=1)
    sums = _of_warps(bm, bn, warps, store, out_bytes, store_matrix)
    plain = larger(ring, _sent_bytes(bm, bn, out_bytes, *sums))
    if instructions == "mma":
        return plain

    # Warp groups multiply out of shared memory, so one buffer more is in use.
    if instructions == "wgmma":
        ring = _ring(bm, bn, bk, element_bytes, warps, stages, narrow=1)
        sums = _of_warp_groups(bm, warps, store, out_bytes)
    else:
        # A product runs on its own: two may be under way, each with a barrier and its own narrow tiles.
        under_way = smaller(2, stages)
        ring = _ring(bm, bn, bk, element_bytes, warps, stages, narrow=under_way) + BARRIER_BYTES * under_way
        sums = _of_tensor_memory(bm, bn, warps, store)
    grouped = larger(ring, _sent_bytes(bm, bn, out_bytes, *sums))
    return choose(grouped, both(reaches(bm, GROUP_ROWS), reaches(warps, GROUP_WARPS)), plain)


def _ring(
    bm: Size, bn: Size, bk: Size, element_bytes: int, warps: Size, buffers: Size, narrow: Size
) -> Size:
    """Buffers of both operands. A tile with less than a narrowest copy for each thread is not copied ahead."""
    total: Size = 0
    for elements in (bm * bk, bk * bn):
        tile = elements * element_bytes
        total += tile * choose(buffers, reaches(tile, COPY_BYTES * LANES * warps), narrow)
    return total


def _ring_of_registers(bm: Size, bn: Size, bk: Size, element_bytes: int, stages: Size) -> Size:
    """Loads wait in registers, and both operands are read from there: with one stage, one after the other."""
    a, b = bm * bk * element_bytes, bk * bn * element_bytes
    return choose(larger(a, b), reaches(1, stages), (a + b) * (stages - 1))


def _store(bm: Size, bn: Size, out_bytes: int, warps: Size) -> _Store:
    vector = smaller(VECTOR_BYTES // out_bytes, larger(1, ratio(bm * bn, LANES * warps)))
    lanes = smaller(LANES, ratio(bn, vector))
    wide = smaller(warps, ratio(bn, vector * lanes))
    return _Store(vector, vector * lanes * wide, ratio(LANES, lanes) * ratio(warps, wide))


def _sent_bytes(bm: Size, bn: Size, out_bytes: int, common: Size, matrix: Truth) -> Size:
    """The buffer through which the sums go.

    Args:
        common: Elements whose place in the tile differs only by registers, before and after.
        matrix: Whether one side moves 8 x 8 blocks (ldmatrix, stmatrix): each of its lanes then fills 4 bytes of
            the common registers, else 16.
    """
    parts = choose(ratio(common * out_bytes, 4), matrix, ratio(common * out_bytes, VECTOR_BYTES))
    return ratio(bm * bn * out_bytes, larger(1, parts))


def _of_warps(
    bm: Size, bn: Size, warps: Size, store: _Store, out_bytes: int, store_matrix: bool
) -> tuple[Size, Truth]:
    """Sums of mma.m16n8: a thread has 2 columns next to each other and 2 rows 8 apart."""
    tall, across = warps_of_sides(bm, bn, warps)
    common = (
        smaller(2, store.vector)
        * larger(1, ratio(bn, larger(8 * across, store.width)))
        * choose(2, reaches(8, store.rows), 1)
        * larger(1, ratio(bm, larger(16 * tall, store.rows)))
    )
    whole = reaches(store.vector, 8)                                       # columns of a block of 8 x 8
    plain = both(whole, reaches(1, across), reaches(bn, 4 * store.vector))        # ldmatrix
    turned = both(reaches(bn, LANES * store.vector), reaches(store.vector, 2 * across))   # ldmatrix.trans
    return common, both(out_bytes == 2, either(both(store_matrix, whole), plain, turned))


def warps_of_sides(bm: Size, bn: Size, warps: Size) -> tuple[Size, Size]:
    """How many warps share the rows and the columns of a tile, where each warp multiplies for itself.

    They are given to the side that is longer, counted in instructions of 16 x 8.

    >>> warps_of_sides(128, 128, 4), warps_of_sides(32, 256, 4)
    ((2, 2), (1, 4))
    """
    tall: Size = 1
    for more in (2, 4, 8):
        tall = choose(more, reaches(warps * bm, more * more * bn), tall)
    across = smaller(ratio(warps, smaller(tall, warps)), ratio(bn, 8))
    return ratio(warps, across), across


def _of_warp_groups(bm: Size, warps: Size, store: _Store, out_bytes: int) -> tuple[Size, Truth]:
    """Sums of wgmma.m64: as those of mma, but the warps share the rows, and a thread has whole rows of blocks."""
    tall = smaller(warps, ratio(bm, 16))
    rows = larger(1, ratio(bm, larger(16 * tall, store.rows)))
    common = smaller(2, store.vector) * choose(2, reaches(8, store.rows), 1) * rows
    return common, both(out_bytes == 2, reaches(store.vector, 8))


def _of_tensor_memory(bm: Size, bn: Size, warps: Size, store: _Store) -> tuple[Size, Truth]:
    """Sums of tcgen05: a thread reads a part of one row, of two rows if there are more than threads."""
    halves = choose(1, reaches(bm, 128), 2) * choose(2, both(reaches(warps, 8), reaches(255, bm)), 1)
    columns = ratio(bn, halves)
    common = smaller(store.vector, columns) * choose(2, both(reaches(bm, 256), reaches(7, warps)), 1)
    return common, reaches(columns, 4 * store.vector)
