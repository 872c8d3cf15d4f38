"""The exact gradient of one step, as formulas.

In: a `Recurrence`. Out: a `Backstep`: the cotangents of the states before the step, of the inputs and of the
parameters, as formulas in the operands, the states before the step, what the forward step recorded, and the
cotangents of the new states and of the outputs.

Reverse accumulation over the formula graph: a node's cotangent is a formula over the node's own indices, so a
broadcast in the forward direction is a sum in this one. Every shared subexpression is shared here too, and
nothing is dropped: normalisers and stabilisers are differentiated like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rekern import ir
from rekern.functions import CHEAP, FUNCTIONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.rewrite import substitute
from rekern.spec import Operand, Recurrence
from rekern.trace import Cell, cells_of, named

COTANGENT = "d:"  # the cotangent of array `x` is the array `d:x`, a name that no operand can have
RECORD = "kept:"  # what the forward step keeps for the gradient: kept:0, kept:1, ...

Cells = Mapping[Cell, Node]


@dataclass(frozen=True)
class Kept:
    """A value of the forward step that its gradient reads instead of computing it again."""

    name: str
    axes: tuple[Index, ...]
    value: Node


@dataclass(frozen=True)
class Backstep:
    """One step backwards: cotangents as formulas, by operand and literal cell, over canonical axes."""

    states: Mapping[str, Cells]
    inputs: Mapping[str, Cells]
    params: Mapping[str, Cells]
    kept: tuple[Kept, ...]

    def roots(self) -> list[Node]:
        return [
            n
            for group in (self.states, self.inputs, self.params)
            for cells in group.values()
            for n in cells.values()
        ]


def cotangent(name: str) -> str:
    """The name of the cotangent of an array."""
    return COTANGENT + name


def gradient(spec: Recurrence) -> Backstep:
    """Differentiate one step of `spec`.

    The recorded values are the forward sums and maxima that the gradient needs: they cost a pass over a state
    or a weight and are no larger than a row.
    """
    step = spec.step
    order = {dim: n for n, dim in enumerate(spec.axes)}
    seeds: list[tuple[Node, Node]] = []  # (forward node, cotangent that it is given)

    def seed(name: str, dims: Iterable[int | str], cells: Cells) -> None:
        axes = ir.canonical_axes(named(tuple(dims)))
        for cell, node in cells.items():
            given = ir.read(cotangent(name), cell, axes)
            seeds.append((node, _sum_out(given, set(axes) - node.free, order)))

    for o in spec.states:
        seed(o.name, o.dims, step.states[o.name])
    for name, cells in step.outputs.items():
        seed(name, step.output_dims[name], cells)
    reads = _accumulate(step.roots(), seeds, order)

    found = {o.name: _cells(o, reads) for o in spec.of_kind("state", "input", "param")}
    roots = [n for cells in found.values() for n in cells.values()]
    replaced, kept = _keep(roots, step.roots(), order)
    result = iter(replaced)
    found = {name: {cell: next(result) for cell in cells} for name, cells in found.items()}

    def group(kind: str) -> dict[str, Cells]:
        return {o.name: found[o.name] for o in spec.operands if o.kind == kind}

    return Backstep(group("state"), group("input"), group("param"), kept)


def _accumulate(
    roots: list[Node], seeds: list[tuple[Node, Node]], order: Mapping[str, int]
) -> dict[Read, Node]:
    """Cotangents of every `Read`, from the cotangents given to some nodes."""
    total: dict[Node, Node] = {}

    def give(node: Node, amount: Node) -> None:
        total[node] = ir.add(total[node], amount) if node in total else amount

    for node, amount in seeds:
        give(node, amount)
    reads: dict[Read, Node] = {}
    for node in reversed(list(ir.walk(roots))):
        if node not in total:
            continue
        amount = total.pop(node)
        match node:
            case Read():
                reads[node] = amount
            case Apply():
                slopes = FUNCTIONS[node.function].partials(node, *node.arguments)
                for argument, slope in zip(node.arguments, slopes, strict=True):
                    if slope is not None and not isinstance(argument, Number | Size):
                        give(argument, _sum_out(_times(amount, slope), node.free - argument.free, order))
            case Reduce(operation="sum"):
                give(node.body, amount)
            case Reduce():
                tie = ir.apply("eq", node.body, node)
                # ties share the cotangent, as in torch's amax
                share = ir.div(tie, ir.reduce("sum", node.index, tie))
                give(node.body, ir.mul(amount, share))
            case Number() | Size():
                pass
    return reads


def _times(amount: Node, slope: Node) -> Node:
    """`amount * slope`, with the choices of a maximum kept out of the product: 0 * inf must not appear."""
    if isinstance(slope, Apply) and slope.function == "where":
        condition, yes, no = slope.arguments
        return _choose(condition, _times(amount, yes), _times(amount, no))
    if ir.is_number(slope, 0):
        return slope
    if isinstance(slope, Apply) and slope.function == "div" and ir.is_number(slope.arguments[0], 1):
        return ir.div(amount, slope.arguments[1])
    return ir.mul(amount, slope)


def _choose(condition: Node, yes: Node, no: Node) -> Node:
    if ir.is_number(yes, 0) and ir.is_number(no, 0):
        return yes
    return ir.apply("where", condition, yes, no)


def _sum_out(node: Node, indices: Iterable[Index], order: Mapping[str, int]) -> Node:
    """Sum over `indices`; the axis declared last is summed last, because it becomes the vector axis."""
    for index in sorted(indices, key=lambda i: (order.get(i.dim, -1), i.number)):
        node = ir.reduce("sum", index, node)
    return node


def _cells(operand: Operand, reads: Mapping[Read, Node]) -> Cells:
    """Cotangent of every cell of an operand; reads under other index names are renamed and added."""
    axes = ir.canonical_axes(operand.axes)
    cells: dict[Cell, Node] = {cell: ir.number(0) for cell in cells_of(operand.dims)}
    for node, amount in reads.items():
        if node.operand == operand.name:
            amount = ir.rename(amount, dict(zip(node.indices, axes, strict=True)))
            cells[node.component] = ir.add(cells[node.component], amount)
    return cells


class _Keeping:
    """What the forward step keeps: the values of some of its nodes, whatever their indices are called."""

    def __init__(self, roots: list[Node], order: Mapping[str, int]) -> None:
        self.roots = roots
        self.order = order
        self.standing = {node: _canonical(node, order) for node in ir.walk(roots) if node.free}

    def replaced(self, kept: Mapping[Node, Kept]) -> list[Node]:
        """The roots with what is kept read instead of computed."""
        mapping: dict[Node, Node] = {}
        for node, (value, indices, _) in self.standing.items():
            if value in kept:
                mapping[node] = ir.read(kept[value].name, (), indices)
        return substitute(self.roots, mapping)


def _keep(roots: list[Node], forward: list[Node], order: Mapping[str, int]) -> tuple[list[Node], tuple[Kept, ...]]:
    """Replace forward values among `roots` by reads of what the forward step keeps.

    It keeps its reductions; but a gate rather than the sum that it is a function of, where nothing else needs the sum:
    that is as little to keep, and neither the function nor the inputs are needed again.
    """
    keeping = _Keeping(roots, order)
    kept: dict[Node, Kept] = {}
    functions: list[Node] = []
    for node in ir.walk(forward):
        # A maximum of computed numbers is computed again with them: the gradient asks which of them are equal to it.
        if isinstance(node, Reduce) and (node.operation == "sum" or isinstance(node.body, Read)):
            value, _, axes = _canonical(node, order)
            kept.setdefault(value, Kept(f"{RECORD}{len(kept)}", axes, value))
        elif isinstance(node, Apply) and node.function not in CHEAP:
            functions.append(_canonical(node, order)[0])
    replaced = keeping.replaced(kept)
    for function in functions:
        inside = [k for k in kept.values() if k.value.free == function.free and k.value in ir.walk([function])]
        for k in inside:
            others = {value: other for value, other in kept.items() if other is not k}
            trial = keeping.replaced({**others, function: replace(k, value=function)})
            if not _mentions(trial, k.value, order):
                kept, replaced = {**others, function: replace(k, value=function)}, trial
                break
    used = ir.operands_read(replaced)
    return replaced, tuple(k for k in kept.values() if k.name in used)


def _mentions(roots: list[Node], value: Node, order: Mapping[str, int]) -> bool:
    return any(n.free and _canonical(n, order)[0] is value for n in ir.walk(roots))


def _canonical(node: Node, order: Mapping[str, int]) -> tuple[Node, tuple[Index, ...], tuple[Index, ...]]:
    """`node` over canonical axes, the indices that it had, and those axes."""
    indices = tuple(sorted(node.free, key=lambda i: (order.get(i.dim, -1), i.number)))
    axes = ir.canonical_axes(i.dim for i in indices)
    return ir.rename(node, dict(zip(indices, axes, strict=True))), indices, axes
