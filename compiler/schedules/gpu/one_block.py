"""Schedule `one_block`: the time loop of a dense cell whose matrix fits one block.

In: a `Call`. Out: its `Design`, or why the schedule does not apply. A block owns one head and a tile of
sequences, keeps R in registers or shared memory for the whole sequence and exchanges h through shared memory:
many heads and tiles of sequences run side by side, and no block ever waits for another.
"""

from __future__ import annotations

from rekern.schedules.gpu import dense, work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design, stages, tiles, warps
from rekern.schedules.gpu.launches import Launch
from rekern.solver import Variable
from rekern.solver.formulas import AtMost, When

NEEDS = "the schedule persistent, which spreads R over many blocks, or 16-bit weights"
SMALLEST_ROWS = 16
LARGEST_ROWS = 64


def refusal(call: Call) -> str | None:
    """Why `call` has no such schedule; None: it has."""
    return dense.refusal(call)


def design(call: Call) -> Design:
    """The sizes of both passes, and of the product over time after them."""
    return dense.passes(call, _pass)


def _pass(call: Call, product: dense.Product, saved: int) -> Design:
    gpu, name, size = call.gpu, product.name, call.element_bytes
    most = max(SMALLEST_ROWS, min(LARGEST_ROWS, work.power_of_two(call.batch)))
    rows = Variable(f"{name} rows", SMALLEST_ROWS, most, powers_of_two=True)
    warp, stage = warps(f"{name} warps", gpu, (1, 2, 4, 8, 16)), stages(f"{name} stages", gpu)
    place = Variable.one_of(f"{name} weight in shared memory", (0, 1))
    r, in_shared = rows.symbol, place.symbol
    outputs, depth = work.power_of_two(product.units) * product.outputs, work.power_of_two(product.depth)
    weight = outputs * depth * size
    state = work.power_of_two(product.units) * max(1, work.state(call).elements // product.units)
    vector = r * depth * size
    blocks = call.heads * tiles(call.batch, r)
    tokens = call.rows * call.time
    moved = tokens * product.todo.elements * size + saved + call.heads * weight
    exchange = 2 * gpu.shared_latency_seconds + 2 * gpu.block_barrier_seconds
    launch = Launch(
        name,
        blocks,
        call.time,
        warp.symbol,
        call.dtype,
        tile_elements=r * state + When(AtMost(1, in_shared), 0, weight // 4),
        sum_elements=r * outputs,
        shared_bytes=vector + in_shared * weight,
        dram_bytes=moved,
        l2_bytes=moved + (blocks - call.heads) * weight,
        matrix_flops=2 * blocks * r * outputs * depth * call.time,
        matrix_rows=outputs,
        shared_traffic=2 * vector + in_shared * weight,
        flops=tokens * product.todo.flops,
        special=tokens * product.todo.special,
        latency=product.chain * (gpu.mma_latency_seconds + exchange) + dense.pointwise_seconds(call),
        load_latency=gpu.dram_latency_seconds,
        stages=stage.symbol,
        needs=NEEDS,
    )
    return Design((rows, warp, stage, place), (launch,))
