"""The one meaning of a spec: its formulas in torch, step by step, differentiable by autograd.

In: a `Recurrence` and tensors (float64 for the meaning; any dtype, as a plain torch loop). Out: outputs and
final states. Kernels, gradients, rewrites and schedules are all held to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from rekern import ir
from rekern.functions import FUNCTIONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.spec import Operand, Recurrence, scalar_value
from rekern.trace import Cell, Dim, cells_of

Values = dict[str, Tensor]


def reference(
    spec: Recurrence,
    operands: Mapping[str, Tensor | float],
    state: Mapping[str, Tensor] | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    dtype: torch.dtype | None = torch.float64,
) -> tuple[Tensor | dict[str, Tensor], dict[str, Tensor]]:
    """Run `spec` in torch, in `dtype` (None: as the operands come).

    Shapes and meaning as for `Kernel.__call__`: Input [B, T, H, *dims], Param [H, *dims], State [B, H, *dims]
    (or [N, H, *dims] with `cu_seqlens`).
    """

    def cast(t: Tensor) -> Tensor:
        return t if dtype is None else t.to(dtype)

    tensors = {n: cast(v) for n, v in operands.items() if isinstance(v, Tensor) and v.ndim > 0}
    sizes = axis_lengths(spec, {**tensors, **(state or {})})
    scalars: dict[str, float | Tensor] = {
        o.name: operands[o.name] if o.name in operands else scalar_value(spec, o, sizes)
        for o in spec.of_kind("scalar")
    }
    first = next((tensors[o.name] for o in spec.of_kind("input")), None)
    if first is None:
        raise ValueError(f"{spec.name} has no input, so the number of steps is unknown")
    heads = max(t.shape[2 if spec.operand(n).kind == "input" else 0] for n, t in tensors.items())
    params = {o.name: _all_heads(tensors[o.name], 0, heads)[None] for o in spec.of_kind("param")}
    inputs = {o.name: _all_heads(tensors[o.name], 2, heads) for o in spec.of_kind("input")}
    spans = [(0, int(first.shape[1]))]
    if cu_seqlens is not None:
        spans = list(pairwise(cu_seqlens.tolist()))
    count = len(spans) if cu_seqlens is not None else first.shape[0]
    initial = {}
    for o in spec.states:
        shape = [count, heads, *(d if isinstance(d, int) else sizes[d] for d in o.dims)]
        given = (state or {}).get(o.name)
        initial[o.name] = cast(given) if given is not None else first.new_full(shape, o.init)
    step = StepFunction(spec, sizes, fixed=params)
    by_step = {k: v.unbind(1) for k, v in inputs.items()}  # slicing step by step has a gradient of O(T^2)
    pieces: list[dict[str, Tensor]] = []
    finals: list[Values] = []
    for n, (start, end) in enumerate(spans):
        here = {k: v[n : n + 1] for k, v in initial.items()} if cu_seqlens is not None else initial
        order = range(end - 1, start - 1, -1) if reverse else range(start, end)
        collected: list[Values] = []
        for t in order:
            if reset is not None:
                here = {
                    o.name: torch.where(
                        reset[:, t].view(-1, *[1] * (here[o.name].ndim - 1)),
                        here[o.name].new_tensor(o.init),
                        here[o.name],
                    )
                    for o in spec.states
                }
            values = {**here, **{k: steps[t] for k, steps in by_step.items()}}
            here, out = step(values, scalars)
            collected.append(out)
        finals.append(here)
        if reverse:
            collected.reverse()
        pieces.append(
            {
                name: torch.stack([c[name] for c in collected], 1)
                if collected
                else first.new_zeros(
                    [first.shape[0], 0, heads, *(d if isinstance(d, int) else sizes[d] for d in dims)]
                )
                for name, dims in spec.step.output_dims.items()
            }
        )
    outputs = {name: torch.cat([p[name] for p in pieces], 1) for name in spec.step.outputs}
    final = {o.name: torch.cat([f[o.name] for f in finals], 0) for o in spec.states}
    return (outputs["out"] if spec.step.single_output else outputs), final


def axis_lengths(spec: Recurrence, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The length of every named axis, read off the operands."""
    lengths: dict[str, int] = {}
    for o in spec.operands:
        if o.name in tensors and o.dims:
            for dim, length in zip(o.dims, tensors[o.name].shape[-len(o.dims) :], strict=True):
                if isinstance(dim, str):
                    lengths.setdefault(dim, int(length))
    return lengths


def _all_heads(tensor: Tensor, axis: int, heads: int) -> Tensor:
    """Heads that are shared in equal groups, each written out."""
    count = tensor.shape[axis]
    return tensor if count == heads else tensor.repeat_interleave(heads // count, axis)


class StepFunction:
    """One step of `spec` on tensors [B, H, *dims], as torch operations in the order of the formulas.

    Args:
        fixed: Values that are the same at every step. Their cells are read once, so that autograd adds up gradients of
            cells over the steps, and not of the whole arrays.
    """

    def __init__(
        self, spec: Recurrence, sizes: Mapping[str, int], fixed: Mapping[str, Tensor] | None = None
    ) -> None:
        self.spec = spec
        self.sizes = sizes
        self.fixed: dict[Node, Tensor] = {}
        self.nodes: list[Node] = []
        for node in ir.walk(spec.step.roots(), _operands):
            if isinstance(node, Read) and node.operand in (fixed or {}):
                self.fixed[node] = _read((fixed or {})[node.operand], spec.operand(node.operand), node)
            else:
                self.nodes.append(node)

    def __call__(
        self, values: Mapping[str, Tensor], scalars: Mapping[str, float | Tensor]
    ) -> tuple[Values, Values]:
        like = next(iter(values.values()))
        done = dict(self.fixed)
        for node in self.nodes:
            done[node] = self._value(node, done, values, scalars, like)
        batch = values[self.spec.states[0].name].shape[:2]

        def gather(dims: tuple[Dim, ...], cells: Mapping[Cell, Node]) -> Tensor:
            axes = ir.canonical_axes(d for d in dims if isinstance(d, str))
            lengths = [self.sizes[i.dim] for i in axes]
            nodes = [cells[c] for c in cells_of(dims)]
            parts = [_aligned(done[n], n.free, axes).expand(*batch, *lengths) for n in nodes]
            if len(parts) == 1 and all(d != 1 for d in dims):
                return parts[0]
            literal = [d for d in dims if isinstance(d, int)]
            stacked = torch.stack(parts, 2).reshape(*batch, *literal, *lengths)
            order = sorted(range(len(dims)), key=lambda n: isinstance(dims[n], str))  # literal axes first
            return stacked.permute(0, 1, *(2 + order.index(n) for n in range(len(dims))))

        step = self.spec.step
        states = {o.name: gather(o.dims, step.states[o.name]) for o in self.spec.states}
        return states, {n: gather(step.output_dims[n], cells) for n, cells in step.outputs.items()}

    def _value(
        self,
        node: Node,
        done: Mapping[Node, Tensor],
        values: Mapping[str, Tensor],
        scalars: Mapping[str, float | Tensor],
        like: Tensor,
    ) -> Tensor:
        """The value of `node`: [B, H, one axis for each free index, sorted]; B, H may be 1."""
        match node:
            case Number():
                return like.new_full((1, 1), node.value)
            case Size():
                return like.new_full((1, 1), self.sizes[node.dim])
            case Read():
                if node.operand in scalars:
                    return torch.as_tensor(scalars[node.operand], dtype=like.dtype).view(1, 1)
                return _read(values[node.operand], self.spec.operand(node.operand), node)
            case Apply():
                order = sorted(node.free)
                return FUNCTIONS[node.function].torch(
                    *(_aligned(done[a], a.free, order) for a in node.arguments)
                )
            case Reduce(operation="sum"):
                parts = _operands(node)
                if len(parts) > 1:
                    return _contract(parts, node, done)
                return done[node.body].sum(2 + sorted(node.body.free).index(node.index))
            case Reduce():
                return done[node.body].amax(2 + sorted(node.body.free).index(node.index))


def _read(tensor: Tensor, operand: Operand, node: Read) -> Tensor:
    component = iter(node.component)
    cell = (next(component) if isinstance(d, int) else slice(None) for d in operand.dims)
    picked = tensor[(slice(None), slice(None), *cell)]
    order = sorted(range(len(node.indices)), key=lambda n: node.indices[n])
    return picked.permute(0, 1, *(2 + n for n in order))


def _aligned(tensor: Tensor, free: frozenset[Index], order: list[Index] | tuple[Index, ...]) -> Tensor:
    """`tensor` (axes: sorted free) with an axis for each index of `order`, length 1 where it does not run."""
    have = sorted(free)
    places = [i for i in order if i in free]
    tensor = tensor.permute(0, 1, *(2 + have.index(i) for i in places))
    return tensor[(slice(None), slice(None), *(slice(None) if i in free else None for i in order))]


def _operands(node: Node) -> Sequence[Node]:
    """What the value of `node` is made of: a sum of a product takes the factors, so that no product array is formed."""
    if isinstance(node, Reduce) and node.operation == "sum" and len(ir.factors(node.body)) > 1:
        return ir.factors(node.body)
    return ir.children(node)


def _contract(parts: Sequence[Node], node: Reduce, done: Mapping[Node, Tensor]) -> Tensor:
    """A sum of a product as one einsum."""
    letters = {i: chr(ord("c") + n) for n, i in enumerate(sorted(node.body.free))}
    batch = max(done[p].shape[0] for p in parts)
    heads = max(done[p].shape[1] for p in parts)
    tensors, subscripts = [], []
    for part in parts:
        tensor = done[part]
        lead = ""
        for axis, letter, full in ((1, "b", heads), (0, "a", batch)):
            if tensor.shape[axis] == 1 and full > 1:
                tensor = tensor.squeeze(axis)
            else:
                lead = letter + lead
        tensors.append(tensor)
        subscripts.append(lead + "".join(letters[i] for i in sorted(part.free)))
    result = "".join(letters[i] for i in sorted(node.free))
    return torch.einsum(f"{','.join(subscripts)}->ab{result}", *tensors)
