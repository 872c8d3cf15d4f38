"""Sizes for a CPU: what is compiled into a kernel, and what each call is given.

In: `Programs`, the lengths of the axes, a machine. Out: `CpuSizes` and `RunSizes`. The sizes are the solution of
a small integer problem over the machine's registers and caches; the split of a call among threads is arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rekern.schedules.passes import MOST_ROWS, CpuSizes
from rekern.schedules.programs import Programs


@dataclass(frozen=True)
class RunSizes:
    """What a call is given: sequences of a task, steps of a block, columns of a task, tasks along the columns."""

    rows: int
    block: int
    columns: int
    tiles: int
    groups: int
    threads: int


def compiled_sizes(programs: Programs, lengths: Mapping[str, int], double: bool) -> CpuSizes:
    vector_bytes = 64
    lanes = vector_bytes // (8 if double else 4)
    tile = 0
    if programs.tiled and programs.lane is not None:
        tile = lanes * min(4, -(-lengths[programs.lane] // lanes))
    return CpuSizes("double" if double else "float", vector_bytes, tile)


def run_sizes(programs: Programs, sizes: CpuSizes, lengths: Mapping[str, int], sequences: int, heads: int, threads: int) -> RunSizes:
    """Share a call out to threads: sequences and heads first, then columns."""
    rows = 1
    if programs.rows:
        units = max(1, -(-threads // heads))
        rows = min(MOST_ROWS, max(1, -(-sequences // units)))
    tasks = -(-sequences // rows) * heads
    wanted = max(1, -(-threads // max(1, tasks)))
    lanes, lane = sizes.lanes, programs.lane
    columns, tiles = lanes, 1
    if lane is not None:
        whole = -(-lengths[lane] // lanes) * lanes
        columns = sizes.tile or max(lanes, -(-whole // wanted // lanes) * lanes)
        tiles = -(-lengths[lane] // columns)
    return RunSizes(rows, 16, columns, tiles, min(tiles, wanted), threads)
