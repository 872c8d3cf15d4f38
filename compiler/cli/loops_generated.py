"""The Python loop for a recurrence that nobody has written one for.

In: a `Recurrence`. Out: a function of its operands that does what a careful user would write: everything that does not
need a state is computed for all steps before the loop, and the loop is one torch operation for each that is left.
It keeps literal cells apart, so a cell with four gates makes four products where a person would make one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import permutations

import torch
from torch import Tensor

from rekern import ir
from rekern.functions import FUNCTIONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.reference import axis_lengths
from rekern.spec import Operand, Recurrence, scalar_value
from rekern.trace import Cell, cells_of, named

Place = tuple[str, Cell]  # one cell of an operand or output
Key = object  # what an instruction makes: a Node, a Place, or a Node with axes of length 1 put in


@dataclass(frozen=True)
class _Instruction:
    """`key = function(arguments)`; `stateful`: to be done in every step."""

    key: Key
    function: Callable[..., Tensor]
    arguments: tuple[Key, ...]
    stateful: bool


@dataclass
class _Writer:
    """Turns formulas into instructions. A value has leading axes, then one for each free index, sorted."""

    spec: Recurrence
    sizes: Mapping[str, int]
    instructions: list[_Instruction] = field(default_factory=list)
    stateful: dict[Key, bool] = field(default_factory=dict)

    def add(self, key: Key, function: Callable[..., Tensor], *arguments: Key) -> Key:
        if key not in self.stateful:
            stateful = any(self.stateful[a] for a in arguments)
            self.stateful[key] = stateful
            self.instructions.append(_Instruction(key, function, arguments, stateful))
        return key

    def value(self, node: Node) -> Key:
        """The key of `node`."""
        if node in self.stateful:
            return node
        match node:
            case Number():
                return self.add(node, lambda v=node.value: torch.tensor(v))
            case Size():
                return self.add(node, lambda v=float(self.sizes[node.dim]): torch.tensor(v))
            case Read():
                return self.read(node)
            case Apply():
                order = tuple(sorted(node.free))
                arguments = [self.aligned(a, order) for a in node.arguments]
                return self.add(node, FUNCTIONS[node.function].torch, *arguments)
            case Reduce(operation="sum"):
                parts = ir.factors(node.body)
                if len(parts) > 1:
                    return self.contraction(node, parts)
        axis = sorted(node.body.free).index(node.index) - len(node.body.free)
        reduced = Tensor.sum if node.operation == "sum" else Tensor.amax
        return self.add(node, lambda x: reduced(x, axis), self.value(node.body))

    def aligned(self, node: Node, order: tuple[Index, ...]) -> Key:
        """`node` with an axis of length 1 for each index of `order` that it lacks."""
        key = self.value(node)
        if len(node.free) == len(order) or isinstance(node, Number | Size):
            return key
        picks = (..., *(slice(None) if i in node.free else None for i in order))
        return self.add((key, order), lambda x: x if x.ndim == 0 else x[picks], key)

    def read(self, node: Read) -> Key:
        operand = self.spec.operand(node.operand)
        place = (operand.name, node.component)
        if operand.kind == "scalar":
            return self.add(node, lambda x: x, place)
        axes = ir.canonical_axes(operand.axes)
        stored = [node.indices[axes.index(a)] for a in sorted(axes)]  # which index runs along each stored axis
        order = [stored.index(i) - len(stored) for i in sorted(stored)]
        if order == list(range(-len(order), 0)):
            return self.add(node, lambda x: x, place)
        return self.add(node, lambda x: x.permute(*range(x.ndim - len(order)), *(x.ndim + n for n in order)), place)

    def contraction(self, node: Reduce, parts: list[Node]) -> Key:
        letters = {i: chr(ord("a") + n) for n, i in enumerate(sorted(node.body.free))}
        terms = ["..." + "".join(letters[i] for i in sorted(p.free)) for p in parts]
        subscripts = f"{','.join(terms)}->...{''.join(letters[i] for i in sorted(node.free))}"
        keys = [self.value(p) for p in parts]
        for (vector, v), (matrix, m) in permutations(zip(parts, keys, strict=True)) if len(parts) == 2 else ():
            # a weight is shared by the batch: einsum knows, a product of matrices would copy it
            if vector.free == {node.index} and len(matrix.free) == 2 and self.stateful[m]:
                if min(matrix.free) == node.index:
                    return self.add(node, lambda v, m: (v.unsqueeze(-2) @ m).squeeze(-2), v, m)
                return self.add(node, lambda v, m: (m @ v.unsqueeze(-1)).squeeze(-1), v, m)
        return self.add(node, lambda *x: torch.einsum(subscripts, *x), *keys)


def loop(spec: Recurrence) -> Callable[..., tuple[Tensor, ...]]:
    """The outputs of `spec` in order, as a function of its inputs and parameters by name; first states as declared."""

    def run(**operands: Tensor) -> tuple[Tensor, ...]:
        return _run(spec, operands)

    return run


def _run(spec: Recurrence, operands: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    sizes, step = axis_lengths(spec, operands), spec.step
    like = operands[spec.of_kind("input")[0].name]
    writer = _Writer(spec, sizes)
    values: dict[Key, Tensor] = {}
    for o in spec.operands:
        for cell in cells_of(o.dims):
            values[o.name, cell] = _first(spec, o, cell, sizes, operands, like)
            writer.stateful[o.name, cell] = o.kind == "state"
    states = {(n, c): writer.value(f) for n, cells in step.states.items() for c, f in cells.items()}
    outputs = {(n, c): writer.value(f) for n, cells in step.outputs.items() for c, f in cells.items()}
    for i in writer.instructions:
        if not i.stateful:
            values[i.key] = i.function(*(values[a] for a in i.arguments))
    inner = [i for i in writer.instructions if i.stateful]
    wanted = {a for i in inner for a in i.arguments} | set(states.values())
    whole, varying = dict(values), {}
    for key in wanted:
        if not writer.stateful[key] and values[key].ndim:
            steps = values[key].unbind(0)
            values[key] = steps[0]
            if len(steps) > 1:
                varying[key] = steps
    shapes = {place: values[place].shape for place in states}
    collected: dict[Place, list[Tensor]] = {place: [] for place in outputs if writer.stateful[outputs[place]]}
    for t in range(like.shape[1]):
        for key, steps in varying.items():
            values[key] = steps[t]
        for i in inner:
            values[i.key] = i.function(*[values[a] for a in i.arguments])
        for place in collected:
            collected[place].append(values[outputs[place]])
        new = {place: values[key] for place, key in states.items()}
        values.update({p: x if x.shape == shapes[p] else x.expand(shapes[p]) for p, x in new.items()})
    return tuple(_gathered(spec, name, outputs, collected, whole, sizes, like) for name in step.outputs)


def _first(
    spec: Recurrence, o: Operand, cell: Cell, sizes: Mapping[str, int], operands: Mapping[str, Tensor], like: Tensor
) -> Tensor:
    """One cell of an operand, or of a state before the first step: axes [T or 1, B, H] or [B, H], then sorted ones."""
    match o.kind:
        case "scalar":
            return torch.tensor(scalar_value(spec, o, sizes), dtype=like.dtype)
        case "state":
            shape = [like.shape[0], like.shape[2], *(sizes[i.dim] for i in sorted(ir.canonical_axes(o.axes)))]
            return like.new_full(shape, o.init)
        case "input":
            value = operands[o.name].transpose(0, 1)
        case "param":
            value = operands[o.name][None, None]
    picks = iter(cell)
    value = value[(..., *(next(picks) if isinstance(d, int) else slice(None) for d in o.dims))]
    axes = ir.canonical_axes(o.axes)
    return value.permute(0, 1, 2, *(3 + axes.index(a) for a in sorted(axes)))


def _gathered(
    spec: Recurrence,
    name: str,
    keys: Mapping[Place, Key],
    collected: Mapping[Place, list[Tensor]],
    hoisted: Mapping[Key, Tensor],
    sizes: Mapping[str, int],
    like: Tensor,
) -> Tensor:
    """The cells of one output as [B, T, H, *dims]."""
    dims = spec.step.output_dims[name]
    axes = ir.canonical_axes(named(dims))
    shape = [like.shape[1], like.shape[0], like.shape[2], *(sizes[i.dim] for i in sorted(axes))]
    parts = []
    for cell in cells_of(dims):
        made = collected.get((name, cell))
        free = sorted(spec.step.outputs[name][cell].free)
        part = torch.stack(made) if made is not None else hoisted[keys[name, cell]]
        picks = (..., *(slice(None) if i in free else None for i in sorted(axes)))
        parts.append(part[picks].expand(shape) if part.ndim else part.expand(shape))
    literal = [d for d in dims if isinstance(d, int)]
    whole = torch.stack(parts, 3).unflatten(3, literal) if literal else parts[0]
    position = {n: 3 + k for k, n in enumerate(n for n, d in enumerate(dims) if isinstance(d, int))}
    stored, running = sorted(axes), iter(axes)
    shift = 3 + len(literal)
    order = [position[n] if isinstance(d, int) else shift + stored.index(next(running)) for n, d in enumerate(dims)]
    return whole.permute(1, 0, 2, *order)
