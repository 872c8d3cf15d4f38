"""FlashRNN's constraint system for its fused LSTM kernels, and what is wrong in it put right, with a cost of ours.

In: a case (heads, head size, batch, direction) and a GPU. Out: a `Problem` of the solver.

Source of the limits: Poeppel, Beck, Hochreiter 2024, "FlashRNN", arXiv:2412.07752, and the system of its release
1.0.4 (bfloat16). The publication searches the loop of a warp over outputs and derives the warps along outputs; here
the warps are searched and the loop is derived, so that every limit is a polynomial. The points are the same ones:
`POINTS` holds how many a published count found, and the tests hold this system to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sympy import Eq, Expr, Max, Min, Piecewise, ceiling

from rekern.hwmodels.gpu import Gpu
from rekern.solver import Limit, Problem, Variable

GATES = 4               # of an LSTM
TILES = (8, 16, 32)     # sides of a warp's tile over batch and outputs
TILE_AREA = 256         # their product
TILE_K = 16             # depth of a warp's tile, 16-bit numbers
PADDING = 8             # numbers after each row in shared memory, against bank conflicts
MOST_BATCH_LOOP = 4
NUMBER_BYTES, SUM_BYTES = 2, 4
KEPT_BYTES = 64         # the system never lets shared memory be empty
MOST_SHARED_BYTES = 227_000
THREAD_SHARE = 4        # a block may have this part of the threads that the chip allows
TENSOR_UNITS = 4        # of an SM; a warp feeds one
STEPS = 1024
POINTWISE_OPERATIONS = 30       # float32 instructions for each unit and row of an LSTM step; counted by hand
POINTWISE_SECONDS = 1.5e-7      # sigmoid and tanh in a chain: about 10 dependent special functions of 25 cycles
WORKING_REGISTERS = 40          # addresses, counters and values in flight of a thread


@dataclass(frozen=True)
class Case:
    """One direction of one layer.

    Args:
        dim: Size of a head.
        batch: As the user gives it; the system pads it to a multiple of 8.
    """

    heads: int
    dim: int
    batch: int
    forward: bool

    @property
    def outputs(self) -> int:
        """Numbers that a product gives for a row: gates forward, hidden units backward."""
        return GATES * self.dim if self.forward else self.dim

    @property
    def depth(self) -> int:
        """Numbers that a product sums over: the reverse."""
        return self.dim if self.forward else GATES * self.dim

    @property
    def rows(self) -> int:
        """The padded batch."""
        return -(-self.batch // PADDING) * PADDING

    def __str__(self) -> str:
        return f"{self.heads} x {self.dim}, batch {self.batch}, {'forward' if self.forward else 'backward'}"


# All points of one direction on an H100, as counted for this project from the published system: forward, backward.
POINTS = {
    (12, 64, 16): (3_177, 5_724),
    (6, 128, 16): (6_271, 14_131),
    (3, 256, 16): (5_846, 14_618),
    (1, 768, 16): (14_787, 30_027),
    (1, 768, 2): (3_227, 5_814),
    (1, 768, 64): (67_732, 176_730),
    (1, 1024, 16): (5_670, 11_827),
    (12, 64, 256): (45_795, 115_708),
}


def cases() -> Iterator[Case]:
    """Those that the solver is measured on."""
    for heads, dim in ((12, 64), (1, 768), (1, 2048)):
        for batch in (2, 16, 256):
            for forward in (True, False):
                yield Case(heads, dim, batch, forward)


@dataclass(frozen=True)
class Choice:
    """The variables of a problem, and what follows from them."""

    case: Case
    tile_batch: Variable
    tile_outputs: Variable
    heads_at_once: Variable
    output_blocks: Variable
    output_warps: Variable
    k_blocks: Variable
    k_warps: Variable
    batch_blocks: Variable
    batch_warps: Variable
    batch_loop: Variable
    cached: Variable        # tiles of R along k that a warp keeps in registers

    @staticmethod
    def of(case: Case, gpu: Gpu) -> Choice:
        smallest = min(TILES)
        along_outputs, along_batch = case.outputs // smallest, case.rows // smallest
        along_k = case.depth // TILE_K
        warps = gpu.threads_per_block // THREAD_SHARE // gpu.warp_threads

        def part(name: str, whole: int, most: int) -> Variable:
            return Variable(name, 1, min(whole, most), divides=whole)

        return Choice(
            case,
            Variable.one_of("tile_batch", TILES),
            Variable.one_of("tile_outputs", TILES),
            part("heads_at_once", case.heads, gpu.sms),
            part("output_blocks", along_outputs, gpu.sms),
            part("output_warps", along_outputs, warps),
            part("k_blocks", along_k, gpu.sms),
            part("k_warps", along_k, warps),
            part("batch_blocks", along_batch, gpu.sms),
            part("batch_warps", along_batch, warps),
            part("batch_loop", along_batch, MOST_BATCH_LOOP),
            Variable("cached", 1, along_k),
        )

    @property
    def variables(self) -> tuple[Variable, ...]:
        """In the order of importance."""
        return (
            self.heads_at_once, self.output_blocks, self.k_blocks, self.batch_blocks, self.k_warps, self.output_warps,
            self.batch_warps, self.batch_loop, self.tile_batch, self.tile_outputs, self.cached,
        )  # fmt: skip

    @property
    def warps(self) -> Expr:
        """Of a block."""
        return self.k_warps.symbol * self.output_warps.symbol * self.batch_warps.symbol

    @property
    def blocks_of_a_head(self) -> Expr:
        """That hold R once for each batch block."""
        return self.output_blocks.symbol * self.k_blocks.symbol

    @property
    def blocks(self) -> Expr:
        """That run at a time."""
        return self.blocks_of_a_head * self.batch_blocks.symbol * self.heads_at_once.symbol

    @property
    def rows_of_a_warp(self) -> Expr:
        """Rows of the batch that a warp goes through each step."""
        return self.batch_loop.symbol * self.tile_batch.symbol

    @property
    def rows_of_a_block(self) -> Expr:
        """The same of all warps of a block."""
        return self.rows_of_a_warp * self.batch_warps.symbol

    @property
    def outputs_of_a_block(self) -> Expr:
        """Outputs of one head that a block computes."""
        return self.case.outputs / self.output_blocks.symbol

    @property
    def depth_of_a_warp(self) -> Expr:
        """Numbers that a warp sums over."""
        return self.case.depth / (self.k_blocks.symbol * self.k_warps.symbol)

    @property
    def output_loop(self) -> Expr:
        """Tiles along outputs that a warp goes through each step."""
        return self.outputs_of_a_block / (self.output_warps.symbol * self.tile_outputs.symbol)


def published(case: Case, gpu: Gpu) -> Problem:
    """The system as it was published, with our cost."""
    c = Choice.of(case, gpu)
    held = c.cached.symbol * TILE_K * c.k_warps.symbol * c.output_warps.symbol * c.tile_outputs.symbol
    padding = case.outputs * PADDING * c.batch_blocks.symbol
    return _problem("FlashRNN", case, gpu, c, held, held, padding)


def corrected(case: Case, gpu: Gpu) -> Problem:
    """The system with its arithmetic put right.

    A warp keeps its cached tiles for every turn of its loop over outputs, and warps along the batch keep them
    once each; rows are padded in every block along k; no thread has more registers than the chip can name.
    """
    c = Choice.of(case, gpu)
    of_a_warp = c.cached.symbol * TILE_K * c.tile_outputs.symbol * c.output_loop
    held = of_a_warp * c.k_warps.symbol * c.output_warps.symbol
    padding = case.outputs * PADDING * c.batch_blocks.symbol * c.k_blocks.symbol
    sums = c.rows_of_a_warp * c.tile_outputs.symbol
    operand = c.tile_batch.symbol * TILE_K
    of_a_thread = ((of_a_warp + operand) / 2 + sums) / gpu.warp_threads + WORKING_REGISTERS
    named = Limit("thread_registers", of_a_thread, gpu.registers_per_thread, "registers", "a thread can name no more")
    copies = held * c.batch_warps.symbol
    return _problem("FlashRNN, corrected", case, gpu, c, held, copies, padding, named)


def _problem(
    name: str, case: Case, gpu: Gpu, c: Choice, held: Expr, copies: Expr, padding: Expr, *further: Limit
) -> Problem:
    """All limits.

    Args:
        held: Numbers of R that a block has in registers and so not in shared memory.
        copies: The same, counted as often as they are held.
        padding: Numbers of it in all blocks of a head.
    """
    batch_blocks, k_warps = c.batch_blocks.symbol, c.k_warps.symbol
    rows = batch_blocks * c.rows_of_a_block
    sums = c.warps * c.rows_of_a_warp * c.tile_outputs.symbol
    operands = c.warps * c.tile_batch.symbol * TILE_K
    per_number = SUM_BYTES // NUMBER_BYTES      # of the 16-bit registers in which the system counts
    rest_of_r = GATES * case.dim**2 * batch_blocks + padding - held * batch_blocks * c.blocks_of_a_head
    partial_sums = k_warps * c.k_blocks.symbol * rows * (case.outputs + c.output_blocks.symbol * PADDING)
    a_block = min(gpu.shared_bytes_per_block - 1024, MOST_SHARED_BYTES)
    limits = (
        Limit.equal("tile", c.tile_batch.symbol * c.tile_outputs.symbol, TILE_AREA, "numbers"),
        Limit.divides(
            "outputs", c.output_blocks.symbol * c.output_warps.symbol * c.tile_outputs.symbol, case.outputs
        ),
        Limit.divides("depth", c.k_blocks.symbol * k_warps * TILE_K, case.depth),
        Limit.divides("rows", rows, case.rows),
        Limit("warps", c.warps, gpu.threads_per_block // THREAD_SHARE // gpu.warp_threads, "warps"),
        Limit("blocks", c.blocks, gpu.sms, "blocks", "they wait for each other, so all must run"),
        Limit("cached", c.cached.symbol * c.k_blocks.symbol * k_warps * TILE_K, case.depth, "numbers along k"),
        Limit(
            "registers", copies + per_number * sums + operands, per_number * gpu.registers_per_sm, "16-bit registers"
        ),
        Limit(
            "shared_memory",
            NUMBER_BYTES * rest_of_r + KEPT_BYTES + SUM_BYTES * partial_sums
            - a_block * batch_blocks * c.blocks_of_a_head,
            0,
            "bytes beyond what the blocks of a head have",
        ),
        *further,
    )
    return Problem(f"{name}, {case}", c.variables, limits, _cost(case, gpu, c))


def _cost(case: Case, gpu: Gpu, c: Choice) -> dict[str, Expr]:
    """Seconds of all steps: max(products, reads of R) + exchange + barrier + pointwise chain, one after another."""
    assert gpu.bfloat16_flops_per_s is not None
    passes = case.heads / c.heads_at_once.symbol * case.rows / (c.batch_blocks.symbol * c.rows_of_a_block)
    times = STEPS * passes
    flops = 2 * c.rows_of_a_block * c.outputs_of_a_block * case.depth / c.k_blocks.symbol
    unit_flops_per_s = gpu.mma_share * gpu.bfloat16_flops_per_s / gpu.sms / TENSOR_UNITS
    products = flops / (unit_flops_per_s * Min(c.warps, TENSOR_UNITS))
    uncached = c.depth_of_a_warp - TILE_K * c.cached.symbol
    # Warps along outputs read different rows of R, which outputs_of_a_block counts already; the others read apart.
    read_bytes = NUMBER_BYTES * c.outputs_of_a_block * uncached * c.k_warps.symbol * c.batch_warps.symbol
    reads = read_bytes / (gpu.shared_bytes_per_cycle * gpu.clock_hz)
    # The sums of a step are few: what counts is how often they are handed on, and how many blocks share the L2 cache.
    alone = Eq(c.blocks_of_a_head, 1)
    handed_bytes = NUMBER_BYTES * c.rows_of_a_block * case.depth / c.k_blocks.symbol
    sums_bytes = SUM_BYTES * c.rows_of_a_block * c.outputs_of_a_block * (c.k_blocks.symbol - 1)
    through_l2 = 2 * gpu.l2_latency_seconds + (handed_bytes + sums_bytes) * c.blocks / gpu.l2_bytes_per_s
    within = gpu.shared_latency_seconds + handed_bytes / (gpu.shared_bytes_per_cycle * gpu.clock_hz)
    waits = Piecewise((1, Eq(c.k_blocks.symbol, 1)), (2, True))     # sums over k are handed on once more
    units = c.rows_of_a_block * c.outputs_of_a_block / (GATES if case.forward else 1)
    of_a_thread = ceiling(units / (c.warps * gpu.warp_threads))
    issue = POINTWISE_OPERATIONS * c.warps * gpu.warp_threads / (gpu.float32_lanes * gpu.clock_hz)
    return {
        "products": times * Max(products, reads),
        "exchange": times * Piecewise((within, alone), (through_l2 * waits, True)),
        "barrier": times
        * (gpu.block_barrier_seconds + Piecewise((0, alone), (gpu.grid_barrier_seconds * waits, True))),
        "pointwise": times * (POINTWISE_SECONDS + of_a_thread * issue),
    }
