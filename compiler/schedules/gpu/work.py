"""What one step of one head has to do, in numbers.

In: a `Call`. Out: `Work` for each direction: operations, and elements that come from memory and go there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from rekern import ir
from rekern.analysis.counts import Tally, distinct, tally
from rekern.analysis.kinds import Dense
from rekern.analysis.polynomial import Polynomial
from rekern.gradient import gradient
from rekern.ir import Index, Node, Read, Reduce
from rekern.schedules.gpu.call import Call
from rekern.spec import Operand


@dataclass(frozen=True)
class Work:
    """One step of one head.

    Args:
        flops: Operations outside the products with a weight; a multiply-add counts as 2.
        product_flops: In products with a weight, `R @ h`.
        special: Evaluations of transcendental functions, roots and divisions.
        shared_elements: Read or written, without the lane: every tile of columns needs all of them.
        lane_elements: Read or written along the lane: every tile of columns needs its own.
    """

    flops: int
    product_flops: int
    special: int
    shared_elements: int
    lane_elements: int

    @property
    def elements(self) -> int:
        """Read or written by a step of a whole head."""
        return self.shared_elements + self.lane_elements


@dataclass(frozen=True)
class State:
    """All states of one head.

    Args:
        lane: The axis along which its columns need nothing of each other; None: there is none.
        columns: Length of the lane; 1 without.
        elements: Numbers of all states.
        column_rows: Numbers per column of the states that have the lane.
        whole_rows: Numbers of the states without it, which every tile of columns keeps for itself.
        padded_column_rows, padded_whole_rows: The same with every axis rounded up to a power of two.
        bytes: Of all states.
        exchanges: Sums and maxima along other axes that wait for one another within a step.
    """

    lane: str | None
    columns: int
    elements: int
    column_rows: int
    whole_rows: int
    padded_column_rows: int
    padded_whole_rows: int
    bytes: int
    exchanges: int


@dataclass(frozen=True)
class Weights:
    """The matrices of a dense cell, `gates` products of a vector of `depth` numbers for each of `units`."""

    gates: int
    units: int
    chain: int

    @property
    def elements(self) -> int:
        """Of one head."""
        return self.gates * self.units * self.units


def power_of_two(number: int) -> int:
    """The least power of two that is not smaller.

    >>> power_of_two(1), power_of_two(60), power_of_two(64)
    (1, 64, 64)
    """
    return 1 << max(0, number - 1).bit_length()


def state(call: Call) -> State:
    """The states of one head, and the lane that its columns are cut along."""
    return state_along(call, _lane(call))


@lru_cache(maxsize=256)
def state_along(call: Call, lane: str | None) -> State:
    """The states of one head, cut along `lane`."""
    lengths = dict(call.lengths)

    def rows(o: Operand, padded: bool) -> int:
        axes = [power_of_two(lengths[a]) if padded else lengths[a] for a in o.axes if a != lane]
        return math.prod(axes) * math.prod(d for d in o.dims if isinstance(d, int))

    with_lane = [o for o in call.spec.states if lane in o.axes]
    without = [o for o in call.spec.states if lane not in o.axes]
    columns = lengths[lane] if lane is not None else 1
    column_rows = sum(rows(o, False) for o in with_lane)
    whole_rows = sum(rows(o, False) for o in without)
    elements = columns * column_rows + whole_rows
    return State(
        lane,
        columns,
        elements,
        column_rows,
        whole_rows,
        sum(rows(o, True) for o in with_lane),
        sum(rows(o, True) for o in without),
        sum((8 if o.dtype == "float64" else 4) * _size(o, call) for o in call.spec.states),
        _exchanges(call, lane),
    )


@lru_cache(maxsize=256)
def weights(call: Call) -> Weights:
    """The recurrent matrices of a dense cell, as they are stored: `gates` times units by units."""
    kinds = [s.kind for s in call.facts.stages if isinstance(s.kind, Dense)]
    lengths = dict(call.lengths)
    products = [p for k in kinds for p in k.products]
    units = max((lengths[p.node.index.dim] for p in products if isinstance(p.node.index.dim, str)), default=1)
    size = sum(
        math.prod(lengths[i.dim] if isinstance(i.dim, str) else i.dim for i in p.node.free | {p.node.index})
        for p in products
    )
    return Weights(max(1, -(-size // units**2)), units, max((k.depth for k in kinds), default=0))


def forward(call: Call) -> Work:
    """A step forward."""
    return forward_along(call, _lane(call))


@lru_cache(maxsize=256)
def forward_along(call: Call, lane: str | None) -> Work:
    """A step forward, cut along `lane`."""
    nodes = distinct(call.spec.step.roots())
    outputs = [dims for dims in call.spec.step.output_dims.values()]
    inputs = [o.dims for o in call.spec.of_kind("input")]
    return _work(call, nodes, [*inputs, *outputs], lane)


def backward(call: Call) -> Work:
    """A step backward, without the step forward that it may have to repeat and without products over time."""
    return backward_along(call, _lane(call))


@lru_cache(maxsize=256)
def backward_along(call: Call, lane: str | None) -> Work:
    """A step backward, cut along `lane`."""
    back = gradient(call.spec)
    cells = [c for group in (back.states, back.inputs) for c in group.values()]
    nodes = distinct(n for c in cells for n in c.values())
    inputs = [o.dims for o in call.spec.of_kind("input")]
    outputs = list(call.spec.step.output_dims.values())
    return _work(call, nodes, [*inputs, *inputs, *outputs], lane)


def _work(call: Call, nodes: list[Node], moved: list[tuple[int | str, ...]], lane: str | None) -> Work:
    lengths = dict(call.lengths)
    products = [n for n in nodes if isinstance(n, Reduce) and _is_product(n, call)]
    product_flops = sum(2 * _points(n.free | {n.index}, call) for n in products)
    found: Tally = tally(nodes)
    flops = (found.contraction + found.pointwise)(**lengths) - product_flops
    special = sum(found.special.values(), Polynomial())(**lengths)
    shared = sum(_elements(dims, call) for dims in moved if lane not in dims)
    return Work(
        max(0, flops), product_flops, special, shared,
        sum(_elements(dims, call) for dims in moved if lane in dims),
    )  # fmt: skip


def _is_product(node: Reduce, call: Call) -> bool:
    """Whether `node` is a sum over a matrix parameter times something."""
    if node.operation != "sum":
        return False
    params = {o.name for o in call.spec.of_kind("param") if len(o.axes) > 1}
    factors = ir.factors(node.body)
    return any(isinstance(f, Read) and f.operand in params and node.index in f.indices for f in factors)


def _lane(call: Call) -> str | None:
    """An axis of the largest state that is independent in every stage: one of the outputs', or the last."""
    mixed: set[str] = set()
    for stage in call.facts.stages:
        own = {a for s in stage.stage.states for a in call.spec.operand(s).axes}
        mixed |= own - set(stage.independent)
    largest = max(call.spec.states, key=lambda o: (len(o.axes), _size(o, call)))
    free = [a for a in largest.axes if a not in mixed]
    shown = [a for a in free if all(a in dims for dims in call.spec.step.output_dims.values())]
    return next(iter([*shown[::-1], *free[::-1]]), None)


def _exchanges(call: Call, lane: str | None) -> int:
    """Depth of sums along other axes than the lane, in the formulas of the new states."""
    depth: dict[Node, int] = {}
    for node in ir.walk(n for o in call.spec.states for n in call.spec.step.states[o.name].values()):
        below = max((depth[c] for c in ir.children(node)), default=0)
        depth[node] = below + (isinstance(node, Reduce) and node.index.dim != lane)
    return max(depth.values(), default=0)


def _size(o: Operand, call: Call) -> int:
    return _elements(o.dims, call)


def _elements(dims: Iterable[int | str], call: Call) -> int:
    lengths = dict(call.lengths)
    return math.prod(lengths[d] if isinstance(d, str) else d for d in dims)


def _points(indices: Iterable[Index], call: Call) -> int:
    return _elements((i.dim for i in indices), call)
