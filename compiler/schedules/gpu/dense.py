"""What the schedules of a dense cell have in common: the recurrent product of a step, and what is around it.

In: a `Call` of a dense cell. Out: a `Product` for each direction, and launches for weight gradients and the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sympy

from rekern.schedules.gpu import work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design, dense_tile, product_shared_bytes, stages, tile, tiles, warps
from rekern.schedules.gpu.launches import Launch
from rekern.schedules.gpu.rates import has_matrix
from rekern.solver.formulas import RoundedUp

# Of the pointwise part of a gated cell: some ten dependent operations and two transcendental functions.
POINTWISE_CYCLES = 150
NO_WEIGHT = "no state is multiplied by a matrix"


@dataclass(frozen=True)
class Product:
    """`R @ h` of one head: `outputs` numbers for each unit from `depth` numbers; `todo` is everything else."""

    name: str
    units: int
    outputs: int
    depth: int
    chain: int
    todo: work.Work

    @property
    def flops(self) -> int:
        """Of one step of one sequence and head."""
        return 2 * self.units * self.outputs * self.depth


def refusal(call: Call) -> str | None:
    """Why `call` has no recurrent products on matrix units; None: it has."""
    if not call.is_dense:
        return NO_WEIGHT
    if not has_matrix(call.gpu, call.dtype):
        return f"{call.gpu.architecture} has no matrix products of {call.dtype}"
    return None


def forward(call: Call) -> Product:
    """`R @ h`: the gates of every unit, from all units."""
    w = work.weights(call)
    return Product("forward", w.units, w.gates, w.units, w.chain, work.forward(call))


def backward(call: Call) -> Product:
    """`R' @ dg`: one number for each unit, from the gate gradients of all units."""
    w, todo = work.weights(call), work.backward(call)
    saved = w.gates * w.units + work.state(call).elements  # gates and states of the step, read back
    with_saved = work.Work(
        todo.flops, todo.product_flops, todo.special, todo.shared_elements + saved, todo.lane_elements
    )
    return Product("backward", w.units, 1, w.gates * w.units, w.chain, with_saved)


def pointwise_seconds(call: Call) -> float:
    """The chain of operations after a product, on an idle chip."""
    return POINTWISE_CYCLES / call.gpu.clock_hz


def saved_bytes(call: Call) -> int:
    """Gates and states that the forward pass leaves for the gradient."""
    if not call.gradient:
        return 0
    w = work.weights(call)
    return call.rows * call.time * (w.gates * w.units + work.state(call).elements) * call.element_bytes


def passes(call: Call, one: Callable[[Call, Product, int], Design]) -> Design:
    """Both passes, each by `one` of its product and of the bytes that it saves, and the product over time."""
    found = one(call, forward(call), saved_bytes(call))
    if call.gradient:
        found = found + one(call, backward(call), 0) + weight_gradient(call)
    return found


def weight_gradient(call: Call) -> Design:
    """One product over all steps and sequences after the loop, `dR = sum over time of dg h'`."""
    w, gpu = work.weights(call), call.gpu
    bm, bn = tile("weight rows", w.gates * w.units, most=256), tile("weight columns", w.units, most=256)
    bk, split = dense_tile("weight depth", 64, call.element_bytes, most=64), tile("weight splits", 64, least=1, most=64)
    warp, stage = warps("weight warps", gpu, (4, 8)), stages("weight stages", gpu)
    m, n, k, parts = bm.symbol, bn.symbol, bk.symbol, split.symbol
    tokens = call.batch * call.time
    blocks = call.heads * tiles(w.gates * w.units, m) * tiles(w.units, n) * parts
    operands = call.heads * tokens * (w.gates + 1) * w.units * call.element_bytes
    launch = Launch(
        "backward.weights",
        blocks,
        tiles(RoundedUp(tokens / parts), k),
        warp.symbol,
        call.dtype,
        sum_elements=m * n,
        shared_bytes=product_shared_bytes(gpu, m, n, k, call.element_bytes, stage.symbol, warp.symbol),
        dram_bytes=operands + call.heads * w.elements * 8 * parts,
        l2_bytes=blocks * RoundedUp(tokens / parts) * (m + n) * call.element_bytes,
        matrix_flops=2 * blocks * m * n * RoundedUp(tokens / parts),
        matrix_rows=m,
        latency=gpu.mma_latency_seconds,
        load_latency=gpu.l2_latency_seconds,
        stages=stage.symbol,
    )
    return Design((bm, bn, bk, split, warp, stage), (launch,))


def step(call: Call) -> Design:
    """One token: R is read once by all blocks together, a tile of units each."""
    product, gpu = forward(call), call.gpu
    units, warp = tile("step units", product.units, least=8), warps("step warps", gpu)
    stage = stages("step stages", gpu)
    u = units.symbol
    blocks = call.heads * tiles(product.units, u)
    weight = call.heads * work.weights(call).elements * call.element_bytes
    moved = call.rows * (2 * work.state(call).bytes + product.todo.elements * call.element_bytes)
    batch = max(SMALLEST_BATCH, work.power_of_two(min(call.batch, 64)))
    passes = -(-call.batch // batch)
    depth = 64
    steps = tiles(product.depth, depth) * passes
    launch = Launch(
        "step",
        blocks,
        steps,
        warp.symbol,
        call.dtype,
        sum_elements=u * product.outputs * batch,
        shared_bytes=product_shared_bytes(
            gpu, u * product.outputs, sympy.Integer(batch), depth, call.element_bytes, stage.symbol, warp.symbol
        ),
        dram_bytes=sympy.Integer(weight + moved),
        l2_bytes=weight * passes + moved + blocks * call.batch * product.depth * call.element_bytes,
        matrix_flops=2 * blocks * u * product.outputs * batch * passes * product.depth,
        matrix_rows=u * product.outputs,
        flops=call.rows * product.todo.flops,
        special=call.rows * product.todo.special,
        latency=gpu.mma_latency_seconds,
        load_latency=gpu.dram_latency_seconds,
        stages=stage.symbol,
    )
    return Design((units, warp, stage), (launch,))


SMALLEST_BATCH = 16  # columns of a matrix product in Triton
