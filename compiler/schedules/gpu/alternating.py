"""Schedule `alternating`: per step a matrix product and a pointwise kernel, the whole loop in one graph.

In: a `Call`. Out: its `Design`, or why the schedule does not apply. R is read from L2 (or memory) at every step,
so there is no limit on its size; every step pays for two launches.
"""

from __future__ import annotations

import sympy

from rekern.schedules.gpu import dense, work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design, dense_tile, product_shared_bytes, stages, tile, tiles, warps
from rekern.schedules.gpu.launches import Launch


def refusal(call: Call) -> str | None:
    """Why `call` has no such schedule; None: it has."""
    return dense.refusal(call)


def design(call: Call) -> Design:
    """The sizes of both passes, and of the product over time after them."""
    return dense.passes(call, _pass)


def _pass(call: Call, product: dense.Product, saved: int) -> Design:
    gpu, name, size = call.gpu, product.name, call.element_bytes
    outputs = product.units * product.outputs
    bm, bn = tile(f"{name} outputs", outputs, most=256), tile(f"{name} rows", call.batch, most=128)
    bk, warp = dense_tile(f"{name} depth", product.depth, size, most=128), warps(f"{name} warps", gpu, (2, 4, 8))
    stage = stages(f"{name} stages", gpu)
    m, n, k = bm.symbol, bn.symbol, bk.symbol
    blocks = call.heads * tiles(outputs, m) * tiles(call.batch, n)
    steps = tiles(product.depth, k)
    weight = call.heads * outputs * product.depth * size
    sums = call.rows * outputs * 4
    vectors = call.rows * product.depth * size
    loads = blocks * steps * k * (m + n) * size
    in_l2 = weight <= gpu.l2_bytes // 2  # the other half is for what streams through
    multiply = Launch(
        f"{name}.product",
        blocks,
        steps,
        warp.symbol,
        call.dtype,
        sum_elements=m * n,
        shared_bytes=product_shared_bytes(gpu, m, n, k, size, stage.symbol, warp.symbol),
        dram_bytes=0 if in_l2 else sympy.Integer(weight),
        l2_bytes=loads + sums + vectors,
        matrix_flops=2 * blocks * m * n * k * steps,
        matrix_rows=m,
        latency=gpu.mma_latency_seconds,
        load_latency=gpu.l2_latency_seconds,
        stages=stage.symbol,
        times=product.chain * call.time,
        in_graph=True,
    )
    lanes = call.rows * product.units
    threads = 4 * gpu.warp_threads
    moved = call.rows * product.todo.elements * size + saved // call.time
    pointwise = Launch(
        f"{name}.pointwise",
        sympy.Integer(-(-lanes // threads)),
        sympy.Integer(1),
        sympy.Integer(4),
        call.dtype,
        dram_bytes=sympy.Integer(moved),
        l2_bytes=sympy.Integer(moved + sums + 2 * call.rows * work.state(call).bytes),
        flops=call.rows * product.todo.flops,
        special=call.rows * product.todo.special,
        latency=gpu.dram_latency_seconds + dense.pointwise_seconds(call),
        times=product.chain * call.time,
        in_graph=True,
    )
    return Design((bm, bn, bk, warp, stage), (multiply, pointwise))
