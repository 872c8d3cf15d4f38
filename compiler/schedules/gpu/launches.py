"""A launch of one kernel as formulas: what a block holds, what it moves and computes, and what that costs.

In: a `Launch` over the symbols of a problem, a `Gpu`. Out: its seconds, the limits on its block, and the figures
that `explain` shows. Every schedule is a list of launches; there is no other cost formula for a GPU.

    seconds = times * (waves * steps * (longest + rest / overlap) + launch)
    longest = max(memory, L2, matrix, shared, vector, latency),  rest = their sum without the longest

`steps` follow one another in a block; `waves` are how often the chip is filled. The first terms are what a step
of all blocks that run together needs of each unit, at the rate that the machine file says kernels reach; the
latency is the chain that a step of one block cannot avoid, however idle the chip is. Work of one block that runs
without loads in flight follows one another; each further stage, and each further block on the SM, overlaps it.
See Williams, Waterman, Patterson 2009 for the maximum (roofline); the chain is what a recurrence adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import sympy
from sympy import Expr

from rekern.hwmodels.gpu import Gpu
from rekern.schedules.gpu.rates import (
    L2_BYTES_PER_CYCLE,
    REGISTERS_BESIDE_TILES,
    SCHEDULERS,
    TILE_SHARE_OF_REGISTERS,
    matrix_flops_per_s,
)
from rekern.solver import Limit
from rekern.solver.formulas import Least, Most, RoundedDown, RoundedUp

# Counts of traffic and operations are multiplied by rates as floats at once: whole numbers beyond 2**48 would be
# taken for sizes that must be exact.
Formula: TypeAlias = Expr | int | float
SUMS_OF_A_COLUMN = 128  # tensor memory: 128 lanes of 32 bits (PTX ISA, "Tensor Memory")
LARGEST_GRID = 2**31 - 1  # blocks along x; along y and z there are 65,535, so everything is flattened into x


@dataclass(frozen=True)
class Launch:
    """One kernel, launched `times` times.

    Args:
        name: "forward", or "forward.states" where a pass takes several kernels.
        blocks: Of the grid.
        steps: That one block takes one after the other.
        warps: Of a block.
        tile_elements: Numbers of 32 bits that a block keeps in registers.
        sum_elements: Numbers of 32 bits that are results of matrix products; in registers or, where the chip
            has it, in tensor memory.
        shared_bytes: Of a block.
        dram_bytes: That all blocks together move to and from memory.
        l2_bytes: That all blocks together move to and from the L2 cache, `dram_bytes` among them.
        matrix_flops: In matrix products of all blocks, padding included.
        matrix_rows: Rows of a tile of such a product.
        shared_traffic: Bytes of shared memory that a step of one block reads and writes.
        flops: Other operations of all blocks, padding included.
        special: Transcendental functions, roots and divisions of all blocks.
        latency: Seconds that a step takes on an idle chip, besides waiting for what it loads.
        load_latency: Until loaded values arrive.
        stages: Steps whose loads are in flight at once; 1: a step waits for its own.
        group: Blocks that exchange data within the launch, so that all must run at once.
        in_graph: Launched from a graph, one after the other.
        dtype: Of the operands of the matrix products.
        register_share: Of what a thread can name, what `tile_elements` and `sum_elements` may take.
        needs: Advice when nothing fits.
    """

    name: str
    blocks: Formula
    steps: Formula
    warps: Formula
    dtype: str
    tile_elements: Formula = 0
    sum_elements: Formula = 0
    shared_bytes: Formula = 0
    dram_bytes: Formula = 0
    l2_bytes: Formula = 0
    matrix_flops: Formula = 0
    matrix_rows: Formula = 64
    shared_traffic: Formula = 0
    flops: Formula = 0
    special: Formula = 0
    latency: Formula = 0
    load_latency: Formula = 0
    stages: Formula = 1
    group: Formula = 1
    times: Formula = 1
    in_graph: bool = False
    register_share: float = TILE_SHARE_OF_REGISTERS
    needs: str = ""


@dataclass(frozen=True)
class Priced:
    """What a launch costs on a machine, and the limits and figures that belong to it."""

    seconds: Expr
    limits: tuple[Limit, ...]
    figures: Mapping[str, Expr] = field(hash=False)


def priced(launch: Launch, gpu: Gpu) -> Priced:
    """The formulas of a launch on `gpu`."""
    threads = launch.warps * gpu.warp_threads
    registers = registers_per_thread(launch, gpu)
    reserved = gpu.shared_bytes_reserved or 0
    occupancy = Most(
        1,
        Least(
            gpu.blocks_per_sm,
            RoundedDown(gpu.threads_per_sm / threads),
            RoundedDown(gpu.registers_per_sm / (registers * threads)),
            *_shared_occupancy(launch.shared_bytes, reserved, gpu),
        ),
    )
    slots = Most(1, RoundedDown(gpu.sms * occupancy / launch.group)) * launch.group  # fewer are no choice
    waves = RoundedUp(launch.blocks / slots)
    together = Least(launch.blocks, slots)
    on_sm = Least(occupancy, RoundedUp(together / gpu.sms))
    of_step = 1 / (sympy.sympify(launch.blocks) * launch.steps)
    busy = Least(1, on_sm * launch.warps / SCHEDULERS)
    matrix: Formula = 1
    if launch.matrix_flops != 0:
        matrix = matrix_flops_per_s(gpu, launch.dtype, launch.matrix_rows) / gpu.sms
    l2_per_sm = L2_BYTES_PER_CYCLE * gpu.clock_hz
    terms: dict[str, Formula] = {
        "memory": launch.dram_bytes * of_step * together / (gpu.dram_bytes_per_s * gpu.dram_share),
        "L2": launch.l2_bytes * of_step * Most(together / gpu.l2_bytes_per_s, on_sm / l2_per_sm),
        "matrix": launch.matrix_flops * of_step * on_sm / (matrix * busy),
        "shared": launch.shared_traffic * on_sm / (gpu.shared_bytes_per_cycle * gpu.clock_hz),
        "vector": of_step * on_sm / (gpu.clock_hz * busy)
        * (launch.flops / (2.0 * gpu.float32_lanes) + launch.special / float(gpu.special_per_cycle)),
        "latency": launch.latency + launch.load_latency / launch.stages,
    }  # fmt: skip
    used = {name: sympy.sympify(term) for name, term in terms.items() if term != 0}
    start = gpu.graph_launch_seconds if launch.in_graph else gpu.launch_seconds
    rounds = launch.times * waves * launch.steps
    longest = Most(*used.values())
    rest = sympy.Add(*used.values(), evaluate=False) - longest
    seconds = rounds * (longest + rest / (launch.stages * on_sm)) + launch.times * start
    figures = {name: rounds * term for name, term in used.items()}
    figures |= {
        "launches": launch.times * sympy.Float(start),
        "waves": waves,
        "blocks on an SM": on_sm,
        "registers": registers,
    }
    if launch.shared_bytes != 0:
        figures["shared bytes"] = sympy.sympify(launch.shared_bytes)
    named = {f"{launch.name}: {name}": sympy.sympify(value) for name, value in figures.items()}
    return Priced(seconds, _limits(launch, gpu, threads, registers), named)


def registers_per_thread(launch: Launch, gpu: Gpu) -> Expr:
    """What a thread holds: its share of the tiles, and what every kernel needs beside them."""
    sums = 0 if gpu.tensor_memory_columns is not None else launch.sum_elements
    return REGISTERS_BESIDE_TILES + RoundedUp((launch.tile_elements + sums) / (launch.warps * gpu.warp_threads))


def _shared_occupancy(shared_bytes: Formula, reserved: int, gpu: Gpu) -> list[Expr]:
    if shared_bytes == 0:
        return []
    taken = Most(1, shared_bytes + reserved)  # bounds of a formula may be 0 where no value of it is
    return [RoundedDown(gpu.shared_bytes_per_sm / taken)]


def _limits(launch: Launch, gpu: Gpu, threads: Expr, registers: Expr) -> tuple[Limit, ...]:
    """What a block of the launch may not exceed."""
    tiles = registers - REGISTERS_BESIDE_TILES
    most = gpu.registers_per_thread * launch.register_share
    spills = "the rest holds operands and addresses; beyond, kernels were seen to spill"
    rows: list[tuple[str, Formula, float | None, str, str]] = [
        ("tiles in registers", tiles, most, "registers a thread", spills),
        ("registers", registers * threads, gpu.registers_per_sm, "registers", "of one block"),
        ("shared memory", launch.shared_bytes, gpu.shared_bytes_per_block, "bytes", "of one block"),
        (
            "tensor memory",
            RoundedUp(sympy.sympify(launch.sum_elements) / SUMS_OF_A_COLUMN),
            gpu.tensor_memory_columns,
            "columns",
            f"a column holds {SUMS_OF_A_COLUMN} sums",
        ),
        (
            "blocks that wait for each other",
            launch.group,
            gpu.sms,
            "blocks",
            "all of them must run at once, one on an SM",
        ),
        ("grid", launch.blocks, LARGEST_GRID, "blocks", "of one launch"),
    ]
    found = (
        Limit(f"{launch.name}: {name}", sympy.sympify(use), bound, unit, reason, launch.needs)
        for name, use, bound, unit, reason in rows
        if bound is not None
    )
    return tuple(limit for limit in found if limit.expression.free_symbols or not _holds(limit))


def _holds(limit: Limit) -> bool:
    return float(limit.expression) <= limit.bound
