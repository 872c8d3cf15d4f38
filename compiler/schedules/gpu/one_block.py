"""Schedule `one_block`: the time loop of a dense cell whose matrix fits one block.

In: a `Call`. Out: its `Design`, or why the schedule does not apply. A block owns one head and a tile of
sequences, keeps R in registers or shared memory for the whole sequence and exchanges h through shared memory:
many heads and tiles of sequences run side by side, and no block ever waits for another.
"""

from __future__ import annotations

import math

import sympy
from sympy import Expr

from rekern.schedules.gpu import dense, work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design, stages, tiles, warps
from rekern.schedules.gpu.launches import Launch
from rekern.schedules.triton.live import held
from rekern.solver import Variable
from rekern.solver.formulas import AtMost, Most, When

NEEDS = "the schedule persistent, which spreads R over many blocks, or 16-bit weights"
SMALLEST_ROWS = 16
LARGEST_ROWS = 64
COLUMNS_OF_AN_INSTRUCTION = 8  # mma.m16n8: with fewer columns a warp, warps hold the same ones
ROWS_OF_A_THREAD = 4  # a number of each column is held once for so many rows of a tile
SHARE_OF_REGISTERS = 0.9  # all that is alive is counted


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
    r = rows.symbol
    outputs, depth = work.power_of_two(product.units) * product.outputs, work.power_of_two(product.depth)
    weight = outputs * depth * size
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
        tile_elements=tile_elements(call, r, warp.symbol, stage.symbol, name == "backward"),
        shared_bytes=shared_bytes(call, r, stage.symbol, name == "backward"),
        dram_bytes=moved,
        l2_bytes=moved + (blocks - call.heads) * weight,
        matrix_flops=2 * blocks * r * outputs * depth * call.time,
        matrix_rows=outputs,
        shared_traffic=2 * vector,
        flops=tokens * product.todo.flops,
        special=tokens * product.todo.special,
        latency=product.chain * (gpu.mma_latency_seconds + exchange) + dense.pointwise_seconds(call),
        load_latency=gpu.dram_latency_seconds,
        stages=stage.symbol,
        register_share=SHARE_OF_REGISTERS,
        needs=NEEDS,
    )
    return Design((rows, warp, stage), (launch,))


def tile_elements(call: Call, rows: Expr, warp: Expr, stage: Expr, backward: bool) -> Expr:
    """Numbers that a block holds at once: what is alive where that is most, the matrices, and addresses of loads.

    Warps share out the columns of a matrix, as far as there are instructions for them.
    """
    lengths = dict(call.lengths)
    of_block = held(call.spec, call.lengths, backward)

    def size(shape: tuple[str, ...]) -> Expr:
        rest = math.prod(work.power_of_two(lengths[a]) for a in shape if a in lengths)
        return sympy.Integer(rest if shape != ("rows",) else 0) * (rows if "rows" in shape else rows / ROWS_OF_A_THREAD)

    alive = Most(*(sympy.Add(*(n * size(shape) for shape, n in count.items())) for count in of_block.most))
    units = work.power_of_two(work.weights(call).units)
    copies = Most(1, warp * COLUMNS_OF_AN_INSTRUCTION / units)
    addresses = When(AtMost(stage, 1), 0, 2 * of_block.loads * rows * units)
    return alive + parts_of_weight(call) * weight_bytes(call) // 4 * copies + addresses


def shared_bytes(call: Call, rows: Expr, stage: Expr, backward: bool) -> Expr:
    """Shared memory of a block: through it matrices and vectors reach the operands of a product, and loads wait in it.

    On AMD loads wait in registers, and one matrix after the other takes the same place. As compiled for all
    architectures.
    """
    units = work.power_of_two(work.weights(call).units)
    if call.gpu.vendor == "amd":
        return sympy.Integer(weight_bytes(call) // work.weights(call).gates) + rows * units * 4
    parts = parts_of_weight(call)
    loads = held(call.spec, call.lengths, backward).loads
    return weight_bytes(call) * parts + rows * units * 4 * (parts + loads * (stage - 1))


def parts_of_weight(call: Call) -> int:
    """Products of float32 on NVIDIA's matrix units have each operand twice, its high and its low part."""
    return 2 if call.dtype == "float32" and call.gpu.vendor == "nvidia" else 1


def weight_bytes(call: Call) -> int:
    """Of the matrices of one head, padded."""
    w = work.weights(call)
    return w.gates * work.power_of_two(w.units) ** 2 * call.element_bytes
