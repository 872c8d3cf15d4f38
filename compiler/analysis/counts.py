"""What one step costs, as polynomials in the axis lengths.

In: a spec. Out: `Counts`, per step and head. Values that are the same but for the names of their indices are
counted once, as a kernel forms them once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rekern import ir
from rekern.analysis.polynomial import Polynomial, elements
from rekern.functions import CHEAP
from rekern.ir import Apply, Node, Number, Reduce
from rekern.spec import Operand, Recurrence

BYTES = {"float32": 4, "float64": 8}
FREE = frozenset({"neg", "where"})  # folded into the operation that uses them


@dataclass(frozen=True)
class Counts:
    """Work and data of one step of one head.

    `contraction_flops` are those of sums of products and `pointwise_flops` all others, a multiply-add is 2.
    `serial_flops` is the part of both that reads a state, so that it cannot be done for all steps at once.
    Divisions, roots and transcendental functions are counted apart: `special` by function, in evaluations.
    """

    contraction_flops: Polynomial
    pointwise_flops: Polynomial
    serial_flops: Polynomial
    special: Mapping[str, Polynomial]
    input_elements: Polynomial
    output_elements: Polynomial
    param_elements: Polynomial
    state_bytes: Polynomial

    @property
    def flops(self) -> Polynomial:
        """All operations that are counted as such; `special` is not among them."""
        return self.contraction_flops + self.pointwise_flops

    @property
    def special_evaluations(self) -> Polynomial:
        return sum(self.special.values(), Polynomial())

    def operand_bytes(self, element_bytes: int) -> Polynomial:
        """Inputs read and outputs written for one step, where every element has `element_bytes`."""
        return element_bytes * (self.input_elements + self.output_elements)

    def __str__(self) -> str:
        special = ", ".join(f"{name} {count}" for name, count in self.special.items())
        elements = f"{self.input_elements} read, {self.output_elements} written a step, in elements"
        lines = [
            f"flops            {self.flops} (in contractions {self.contraction_flops})",
            f"special          {special or 'none'}",
            f"operands         {elements}",
        ]
        if self.param_elements:
            lines.append(f"parameters       {self.param_elements} elements")
        return "\n".join([*lines, f"state            {self.state_bytes} bytes"])


def counts(spec: Recurrence) -> Counts:
    """Operations, elements and bytes of one step and head.

    >>> from rekern.zoo import simple_gla
    >>> print(counts(simple_gla))
    flops            5*K*V + V (in contractions 2*K*V)
    special          exp 1
    operands         2*K + V + 1 read, V written a step, in elements
    state            4*K*V bytes
    """
    nodes = distinct(spec.step.roots())
    stateful = _stateful(nodes, {o.name for o in spec.states})
    all_work, serial = tally(nodes), tally(n for n in nodes if n in stateful)
    return Counts(
        all_work.contraction,
        all_work.pointwise,
        serial.contraction + serial.pointwise,
        all_work.special,
        _sizes(spec.of_kind("input")),
        sum((elements(dims) for dims in spec.step.output_dims.values()), Polynomial()),
        _sizes(spec.of_kind("param")),
        sum((BYTES[o.dtype] * elements(o.dims) for o in spec.states), Polynomial()),
    )


@dataclass(frozen=True)
class Tally:
    """Operations of some formulas: in sums of products, others, and those that are counted apart."""

    contraction: Polynomial
    pointwise: Polynomial
    special: Mapping[str, Polynomial]


def tally(nodes: Iterable[Node]) -> Tally:
    """The operations of these nodes, each of which is counted by itself: pass what `distinct` gives."""
    nodes = list(nodes)
    contraction, pointwise = Polynomial(), Polynomial()
    special: dict[str, Polynomial] = {}
    sums = [n for n in nodes if isinstance(n, Reduce) and n.operation == "sum"]
    in_sums = {n.body for n in sums if isinstance(n.body, Apply) and n.body.function == "mul"}
    for node in nodes:
        points = elements(i.dim for i in node.free)
        if isinstance(node, Apply) and (node.function not in CHEAP or _is_division(node)):
            special[node.function] = special.get(node.function, Polynomial()) + points
        elif node in in_sums or (isinstance(node, Reduce) and node.body in in_sums):
            contraction += _flops(node, points)
        else:
            pointwise += _flops(node, points)
    return Tally(contraction, pointwise, dict(sorted(special.items())))


def _flops(node: Node, points: Polynomial) -> Polynomial:
    match node:
        case Apply(function=name) if name not in FREE:
            return points
        case Reduce():
            return points * elements([node.index.dim])
    return Polynomial()


def _is_division(node: Apply) -> bool:
    """Whether `node` divides by something that is not known before the run."""
    return node.function == "div" and not isinstance(node.arguments[1], Number)


def _sizes(operands: Iterable[Operand]) -> Polynomial:
    return sum((elements(o.dims) for o in operands), Polynomial())


def distinct(roots: Iterable[Node]) -> list[Node]:
    """Every value below `roots` once, whatever its indices are called."""
    found: dict[Node, None] = {}
    for node in ir.walk(roots):
        found[_canonical(node)] = None
    return list(found)


def _canonical(node: Node) -> Node:
    order = sorted(node.free)
    return ir.rename(node, dict(zip(order, ir.canonical_axes(i.dim for i in order))))


def _stateful(nodes: Iterable[Node], states: set[str]) -> set[Node]:
    return {n for n in nodes if not ir.operands_read([n]).isdisjoint(states)}


