"""The kind of each state, given the states of earlier stages: it decides which schedules there are.

In: a spec and a state. Out: `Affine`, `MaxPlus`, `Pointwise` or `Dense`. Every state of the language has one
of these; what has no structure that a scan could use is pointwise or dense, with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rekern import ir
from rekern.analysis.affine import transition
from rekern.analysis.linear import NotLinear, expand, reads_any
from rekern.analysis.logs import Reason
from rekern.analysis.stages import Stage, stage_of
from rekern.analysis.transition import Transition
from rekern.analysis.wording import formula, listing, short
from rekern.ir import Apply, Node, Read, Reduce
from rekern.spec import Recurrence
from rekern.trace import Cell

Join = Literal["maximum", "minimum", "logaddexp"]
JOINS: tuple[Join, ...] = ("maximum", "minimum", "logaddexp")


@dataclass(frozen=True)
class Affine:
    """Linear in itself: each literal cell has a transition. Steps compose: time can run in parallel."""

    transitions: tuple[Transition, ...]

    @property
    def transition(self) -> Transition:
        """The transition of a state without literal axes (of the first cell otherwise)."""
        return self.transitions[0]

    @property
    def reason(self) -> str:
        return "every term has the state at most once, times values of the step"

    def __str__(self) -> str:
        texts = list(dict.fromkeys(map(str, self.transitions)))
        shape = "elementwise" if len(self.transition.axes) < 2 and not self.transition.low_rank else "matrix"
        shape = f"{len(self.transition.axes)}-axis" if len(self.transition.axes) > 2 else shape
        return f"affine, {shape}, {'; '.join(texts)}"


@dataclass(frozen=True)
class Running:
    """`join(shift + state, floor)` for one literal cell; shift and floor do not read the stage's states."""

    cell: Cell
    join: Join
    shift: Node
    floor: Node

    def __str__(self) -> str:
        return f"{self.join}({short(self.shift)} + state, {short(self.floor)})"


@dataclass(frozen=True)
class MaxPlus:
    """A running maximum (minimum, log of a sum of exponentials): affine if `join` is read as + and + as *."""

    running: tuple[Running, ...]

    @property
    def reason(self) -> str:
        return "the state is only shifted and joined"

    def __str__(self) -> str:
        return f"max-plus affine, {'; '.join(map(str, self.running))}"


@dataclass(frozen=True)
class Pointwise:
    """Every number of the new state needs only the old numbers at its own place, but not linearly."""

    reason: str

    def __str__(self) -> str:
        return f"pointwise, {self.reason}"


@dataclass(frozen=True)
class Product:
    """A recurrent product `sum of matrix * vector`: `matrix` is a read of an operand with the summed axis."""

    node: Reduce
    matrix: Read
    vector: Node

    def __str__(self) -> str:
        return formula(self.node)


@dataclass(frozen=True)
class Dense:
    """A number of the new state needs old numbers at other places of some axis.

    `products` are the matrix products with an operand, `exchanges` the other sums and maxima along an axis;
    `depth` counts those that wait for one another within a step.
    """

    reason: str
    products: tuple[Product, ...]
    exchanges: tuple[Reduce, ...]
    depth: int

    def __str__(self) -> str:
        return f"dense, {self.reason}"


Kind = Affine | MaxPlus | Pointwise | Dense


def kind(spec: Recurrence, state: str) -> Kind:
    """The kind of `state`, given all earlier stages.

    >>> from rekern.zoo import gla, mlstm
    >>> print(kind(gla, "S"))
    affine, matrix, K decay
    >>> print(kind(mlstm, "m"))
    max-plus affine, maximum(log_sigmoid(f) + state, i)
    """
    stage = stage_of(spec, state)
    cells = spec.step.states[state]
    moves = [transition(spec, state, cell) for cell in cells]
    found = tuple(m for m in moves if not isinstance(m, Reason))
    if len(found) == len(moves):
        return Affine(found)
    if len(stage.states) == 1:
        running = [_running(spec, state, cell) for cell in cells]
        if all(running):
            return MaxPlus(tuple(r for r in running if r is not None))
    return _coupled(spec, stage, next(m for m in moves if isinstance(m, Reason)))


def independent_axes(spec: Recurrence, stage: Stage) -> tuple[str, ...]:
    """The axes of a stage's states along which no number needs another: work is cut there without exchange.

    >>> from rekern.analysis.stages import stages
    >>> from rekern.zoo import gated_delta_rule, lstm
    >>> [independent_axes(spec, stages(spec)[0]) for spec in (gated_delta_rule, lstm)]
    [('V',), ()]
    """
    own = [dict.fromkeys(spec.operand(s).axes) for s in stage.states]
    mixed = {n.index.dim for n in _mixing_sums(spec, stage)}
    for read in _moved_reads(spec, stage):
        home = ir.canonical_axes(spec.operand(read.operand).axes)
        mixed |= {i.dim for i, at in zip(read.indices, home) if i != at}
    return tuple(a for a in dict.fromkeys(itertools.chain(*own)) if a not in mixed)


# -- max-plus ------------------------------------------------------------------------------------------------


def _running(spec: Recurrence, state: str, cell: Cell) -> Running | None:
    """The state as a running maximum, if its formula only shifts and joins it."""
    root = spec.step.states[state][cell]
    own = ir.read(state, cell, ir.canonical_axes(spec.operand(state).axes))
    if any(n is not own for n in ir.walk([root]) if isinstance(n, Read) and n.operand == state):
        return None
    for join in JOINS:
        found = _tropical(root, own, join)
        if found is not None and found[0] is not None and found[1] is not None:
            return Running(cell, join, found[0], found[1])
    return None


Sides = tuple[Node | None, Node | None]  # the shift of the state and the floor; None is "never"


def _tropical(node: Node, own: Read, join: Join) -> Sides | None:
    """`node` as `join(shift + own, floor)`."""
    if node is own:
        return ir.number(0), None
    if not reads_any(node, {own.operand}):
        return None, node
    match node:
        case Apply(function="add", arguments=(a, b)) if not reads_any(b, {own.operand}):
            return _moved(_tropical(a, own, join), b, ir.add)
        case Apply(function="add", arguments=(a, b)) if not reads_any(a, {own.operand}):
            return _moved(_tropical(b, own, join), a, lambda x, y: ir.add(y, x))
        case Apply(function="sub", arguments=(a, b)) if not reads_any(b, {own.operand}):
            return _moved(_tropical(a, own, join), b, ir.sub)
        case Apply(function=name, arguments=(a, b)) if name == join:
            return _joined(_tropical(a, own, join), _tropical(b, own, join), join)
        case Apply(function="relu", arguments=(a,)) if join == "maximum":
            return _joined(_tropical(a, own, join), (None, ir.number(0)), join)
    return None


def _moved(sides: Sides | None, by: Node, how: Callable[[Node, Node], Node]) -> Sides | None:
    if sides is None:
        return None
    shift, floor = (None if s is None else how(s, by) for s in sides)
    return shift, floor


def _joined(a: Sides | None, b: Sides | None, join: Join) -> Sides | None:
    if a is None or b is None:
        return None
    shift, floor = (x if y is None else y if x is None else ir.apply(join, x, y) for x, y in zip(a, b))
    return shift, floor


# -- pointwise and dense -------------------------------------------------------------------------------------


def _roots(spec: Recurrence, stage: Stage) -> list[Node]:
    return [n for s in stage.states for n in spec.step.states[s].values()]


def _moved_reads(spec: Recurrence, stage: Stage) -> list[Read]:
    """Reads of a stage's states at other places than their own (bound or not)."""
    reads = [n for n in ir.walk(_roots(spec, stage)) if isinstance(n, Read) and n.operand in stage.states]
    return [r for r in reads if r.indices != ir.canonical_axes(spec.operand(r.operand).axes)]


def _mixing_sums(spec: Recurrence, stage: Stage) -> list[Reduce]:
    """Sums and maxima over an axis of the stage's states, of something that depends on them."""
    axes = {a for s in stage.states for a in spec.operand(s).axes}
    sums = [n for n in ir.walk(_roots(spec, stage)) if isinstance(n, Reduce) and n.index.dim in axes]
    return [n for n in sums if reads_any(n.body, stage.states)]


def _coupled(spec: Recurrence, stage: Stage, why: Reason) -> Pointwise | Dense:
    """A stage that no scan can run: does a number of it need numbers at other places?"""
    sums, moved = _mixing_sums(spec, stage), _moved_reads(spec, stage)
    if not sums and not moved:
        return Pointwise(_nonlinearity(spec, stage, why))
    products = tuple(p for n in sums if (p := _product(spec, stage, n)) is not None)
    seen = {p.node for p in products}
    exchanges = tuple(n for n in sums if n not in seen)
    depth = max(_depths(spec, stage).values(), default=0)
    return Dense(_mixture(stage, products, exchanges, depth, why), products, exchanges, depth)


def _nonlinearity(spec: Recurrence, stage: Stage, why: Reason) -> str:
    """Why a pointwise stage is not affine."""
    if len(stage.states) == 1:
        return why.text
    try:
        for root in _roots(spec, stage):
            expand(root, stage.states)
    except NotLinear as error:
        return str(error)
    block = " x ".join([str(len(stage.states))] * 2)
    return f"{listing(stage.states)} are linear in each other, so a scan would carry {block} transitions"


def _product(spec: Recurrence, stage: Stage, node: Reduce) -> Product | None:
    """`node` as a matrix product of an operand with something that reads the states."""
    if node.operation != "sum":
        return None
    fixed = {o.name for o in spec.of_kind("param", "input")}
    parts = ir.factors(node.body)
    for n, part in enumerate(parts):
        if isinstance(part, Read) and part.operand in fixed and part.free > {node.index}:
            return Product(node, part, ir.product(parts[:n] + parts[n + 1 :]))
    return None


def _depths(spec: Recurrence, stage: Stage) -> dict[Node, int]:
    """For each node, the sums along a state axis that must be done one after another before it is known."""
    sums = set[Node](_mixing_sums(spec, stage))
    depths: dict[Node, int] = {}
    for node in ir.walk(_roots(spec, stage)):
        here = node in sums
        depths[node] = max((depths[c] for c in ir.children(node)), default=0) + here
    return depths


def _mixture(
    stage: Stage, products: tuple[Product, ...], others: tuple[Reduce, ...], depth: int, why: Reason
) -> str:
    """Why a stage is dense, in words."""
    if not products:
        axes = list(dict.fromkeys(n.index.dim for n in others))
        return f"{listing(stage.states)} mixed along {listing(axes)}; {why}" if axes else why.text
    matrices = listing(dict.fromkeys(p.matrix.operand for p in products))
    read = listing(dict.fromkeys(s for s in stage.states for p in products if reads_any(p.vector, {s})))
    axes = list(dict.fromkeys(p.node.index.dim for p in products))
    parts = [f"{matrices} mixes {read} along {listing(axes)}", _plural(len(products), "product")]
    if others:
        parts.append(_plural(len(others), "more sum") + " over units")
    return ", ".join([*parts, f"{depth} deep"])


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
