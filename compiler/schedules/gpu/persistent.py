"""Schedule `persistent`: one launch for the whole sequence, R spread over registers and shared memory of blocks.

In: a `Call`. Out: its `Design`, or why the schedule does not apply. A group of blocks shares one head and one
tile of sequences; each block owns some hidden units with all their gates, keeps their rows of R, and hears h of
the others once a step: through shared memory in a group of one, through the cluster where the chip has clusters
and the group fits one, through flags in L2 otherwise. Independent heads and tiles never wait for each other.
What of R fits neither registers nor shared memory is read from L2 at every step.

Sources: FlashRNN (arXiv:2412.07752) for the idea and its published constraint system.
"""

from __future__ import annotations

from sympy import Expr

from rekern.hwmodels.gpu import Gpu
from rekern.schedules.gpu import dense, work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design, stages, tiles, warps
from rekern.schedules.gpu.launches import Launch
from rekern.schedules.gpu.rates import REGISTERS_BESIDE_TILES, TILE_SHARE_OF_REGISTERS
from rekern.solver import Variable
from rekern.solver.formulas import AtMost, Least, Most, RoundedDown, RoundedUp, When

DEPTH_OF_TILE = 16  # of m16n8k16, the smallest product of 16-bit operands; float32 pads to it
UNITS_OF_TILE = 8
LARGEST_UNITS = 256
LARGEST_ROWS = 64
ROW_PADDING = 16  # bytes after a row of shared memory, so that rows start in different banks
NEEDS = "more blocks (smaller tiles of units), 16-bit weights, or the schedule alternating"


def refusal(call: Call) -> str | None:
    """Why `call` has no such schedule; None: it has."""
    if call.is_dense and call.gpu.vendor != "nvidia":
        return "persistent kernels are CUDA C++, for NVIDIA only"
    return dense.refusal(call)


def design(call: Call) -> Design:
    """The sizes of both passes, and of the product over time after them."""
    return dense.passes(call, _pass)


def _pass(call: Call, product: dense.Product, saved: int) -> Design:
    gpu, name, size = call.gpu, product.name, call.element_bytes
    padded_units = -(-product.units // UNITS_OF_TILE) * UNITS_OF_TILE
    depth_tiles = -(-product.depth // DEPTH_OF_TILE)
    units = Variable(
        f"{name} units", UNITS_OF_TILE, max(UNITS_OF_TILE, min(LARGEST_UNITS, padded_units)),
        multiple_of=UNITS_OF_TILE,
    )  # fmt: skip
    most = max(UNITS_OF_TILE, min(LARGEST_ROWS, work.power_of_two(call.batch)))
    rows = Variable(f"{name} rows", UNITS_OF_TILE, most, powers_of_two=True)
    warp, stage = warps(f"{name} warps", gpu, (2, 4, 8, 16)), stages(f"{name} stages", gpu)
    u, r = units.symbol, rows.symbol
    row_bytes = u * product.outputs * DEPTH_OF_TILE * size  # of all rows of a block, over one tile of depth
    group = RoundedUp(product.units / u)
    groups = call.heads * tiles(call.batch, r)
    blocks = groups * group
    depth = depth_tiles * DEPTH_OF_TILE
    vector = r * depth * size
    per_unit = max(1, work.state(call).elements // product.units)
    own = r * u * (per_unit + product.outputs)  # states and sums
    near = _fitting(depth_tiles, _tile_registers(gpu, warp.symbol) - own, row_bytes / 4)
    side = vector + (u * product.outputs + r) * ROW_PADDING
    mid = _fitting(depth_tiles - near, gpu.shared_bytes_per_block - side, row_bytes)
    far = depth_tiles - near - mid
    tokens = call.rows * call.time
    moved = tokens * product.todo.elements * size + saved + call.heads * work.weights(call).elements * size
    launch = Launch(
        name,
        blocks,
        call.time,
        warp.symbol,
        call.dtype,
        tile_elements=near * row_bytes / 4 + own,
        shared_bytes=mid * row_bytes + side,
        dram_bytes=moved,
        l2_bytes=moved + call.time * blocks * (far * row_bytes + vector),
        matrix_flops=2 * blocks * call.time * u * product.outputs * r * depth,
        matrix_rows=16,
        shared_traffic=mid * row_bytes + 2 * vector,
        flops=tokens * product.todo.flops,
        special=tokens * product.todo.special,
        latency=product.chain * (gpu.mma_latency_seconds + _exchange(gpu, group)) + dense.pointwise_seconds(call),
        load_latency=When(AtMost(far, 0), 0, gpu.l2_latency_seconds),
        stages=stage.symbol,
        group=group,
        needs=NEEDS,
    )
    return Design((units, rows, warp, stage), (launch,))


def _tile_registers(gpu: Gpu, warp: Expr) -> Expr:
    """Registers of all threads of a block that tiles may take."""
    threads = warp * gpu.warp_threads
    per_thread = RoundedDown(gpu.registers_per_thread * TILE_SHARE_OF_REGISTERS)
    return Least(per_thread * threads, gpu.registers_per_sm - REGISTERS_BESIDE_TILES * threads)


def _fitting(count: Expr | int, room: Expr, each: Expr) -> Expr:
    """How many of `count` things fit. The nearest place is never slower, so there is nothing to choose."""
    return Most(0, Least(count, RoundedDown(room / each)))


def _exchange(gpu: Gpu, group: Expr) -> Expr:
    """Until every block of a group has heard h of the others."""
    alone = 2 * gpu.shared_latency_seconds + gpu.block_barrier_seconds
    grid = 2 * gpu.l2_latency_seconds + gpu.grid_barrier_seconds
    if gpu.cluster_blocks is None or gpu.cluster_barrier_seconds is None:
        return When(AtMost(group, 1), alone, grid)
    cluster = 2 * gpu.shared_latency_seconds + gpu.cluster_barrier_seconds
    return When(AtMost(group, 1), alone, When(AtMost(group, gpu.cluster_blocks), cluster, max(grid, cluster)))
