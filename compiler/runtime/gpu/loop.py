"""The time loop of a call on a GPU, forward and back.

In: checked `Arguments`, the options of the call, sizes. Out: functions of tensors. All memory is torch's; what the host
does is the same for every call of a kind, so a call can be captured in a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rekern.gradient import cotangent
from rekern.runtime.arguments import Arguments
from rekern.runtime.gpu.choose import Chosen
from rekern.runtime.gpu.launches import Counts, Launch
from rekern.schedules.programs import Programs, decode
from rekern.schedules.triton.backward import backward_pass
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.passes import TritonPass, Use, Variant
from rekern.spec import Operand
from rekern.trace import Dim

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
Given = dict[tuple[Use, str], Tensor]


@dataclass(frozen=True)
class Way:
    """What of a call decides its kernels beside shapes and dtypes."""

    record: bool
    reverse: bool
    reset: bool
    packed: bool


class Loop:
    """One kind of call."""

    def __init__(
        self, programs: Programs, arguments: Arguments, way: Way, chosen: Chosen, precision: str,
        one_step: bool = False,
    ) -> None:  # fmt: skip
        self.programs, self.spec = programs, programs.spec
        self.arguments, self.way = arguments, way
        self.chosen, self.one_step = chosen, one_step
        operands = self.spec.of_kind("input", "param")
        heads = {o.name: arguments.tensors[o.name].shape[2 if o.kind == "input" else 0] for o in operands}
        self.groups = {n: arguments.heads // count for n, count in heads.items()}
        first = arguments.tensors[self.spec.of_kind("input")[0].name]
        self.device, self.dtype = first.device, first.dtype
        dtypes = {n: NAMES[t.dtype] for n, t in arguments.tensors.items()}
        dtypes |= dict.fromkeys(self.spec.step.output_dims, NAMES[first.dtype])
        shared = frozenset(n for n, group in self.groups.items() if group > 1)
        self.variant = Variant(
            tuple(sorted((n, d) for n, d in dtypes.items() if d != "fp32")),
            shared, way.reset, way.packed, way.reverse, precision,
        )  # fmt: skip
        self.counts = Counts(len(arguments.sequences), arguments.time, arguments.heads)

    # -- kernels

    @cached_property
    def forward_view(self) -> TritonPass:
        """The forward pass."""
        return self.chosen.kernel(
            "step" if self.one_step else "forward",
            lambda sizes: forward_pass(self.programs, sizes, self.variant, self.way.record),
        )

    @cached_property
    def backward_view(self) -> TritonPass:
        """The gradient. Blocks of steps are those of the forward pass."""
        block = self.forward_view.sizes.block
        return self.chosen.kernel(
            "backward", lambda sizes: backward_pass(self.programs, replace(sizes, block=block), self.variant)
        )

    @cached_property
    def forward_launch(self) -> Launch:
        """The forward pass, compiled."""
        return Launch(self.forward_view, self.device)

    @cached_property
    def backward_launch(self) -> Launch:
        """The gradient, compiled."""
        return Launch(self.backward_view, self.device)

    # -- memory

    def shape(self, lead: str, dims: Sequence[Dim]) -> tuple[int, ...]:
        """Lengths of implicit axes, then of an operand's own."""
        a = self.arguments
        lengths = {"B": a.batch, "T": a.time, "H": a.heads, "N": len(a.sequences)}
        return *(lengths[x] for x in lead), *(d if isinstance(d, int) else a.sizes[d] for d in dims)

    def new(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def blocks(self) -> int:
        """States that are kept for the gradient, of all sequences of one head."""
        block = self.forward_view.sizes.block
        if self.way.packed:
            return self.arguments.time // block + len(self.arguments.sequences)
        return self.arguments.batch * -(-self.arguments.time // block)

    def kept(self) -> dict[str, Tensor]:
        """Memory for what the gradient reads: rows of every step, or states of blocks."""
        if not self.way.record:
            return {}
        if self.programs.keep == "steps":
            return {"kept": self.new((*self.shape("BTH", ()), self.forward_view.slot))}
        lead = self.blocks(), self.arguments.heads
        return {o.name: self.new((*lead, *self.shape("", o.dims))) for o in self.spec.states}

    def dense(self, o: Operand, tensor: Tensor) -> Tensor:
        """The operand with its own axes dense, which are read without strides; parameters altogether."""
        if o.kind == "param":
            return tensor.contiguous()
        return tensor if dense_inside(tensor, 3) else tensor.contiguous()

    def first(self, o: Operand, tensor: Tensor | None) -> Tensor:
        """A first state, or the declared one."""
        shape = self.shape("NH", o.dims)
        if tensor is None:
            return torch.full(shape, o.init, dtype=torch.float32, device=self.device)
        return tensor.to(torch.float32).contiguous()

    # -- calls

    def operands(self, operands: Sequence[Tensor], boundaries: Tensor | None, reset: Tensor | None) -> Given:
        given: Given = {}
        for o, t in zip(self.spec.of_kind("input", "param"), operands, strict=True):
            given["input" if o.kind == "input" else "param", o.name] = self.dense(o, t)
        if boundaries is not None:
            given["boundaries", ""] = boundaries.to(torch.int64)
        if reset is not None:
            given["reset", ""] = reset.view(torch.int8)
        return given

    def forward(
        self, operands: Sequence[Tensor], first: Sequence[Tensor | None], scalars: Mapping[str, float],
        boundaries: Tensor | None, reset: Tensor | None, in_place: bool = False,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:  # fmt: skip
        """Outputs, last states, and what the gradient reads."""
        given = self.operands(operands, boundaries, reset)
        lane = self.programs.lane
        for o, t in zip(self.spec.states, first, strict=True):
            given["state_in", o.name] = self.first(o, t)
            # Tiles of columns all read a state without columns: it must not change before the last has done so.
            own = in_place and (self.forward_view.column_tiles == 1 or lane in o.dims)
            given["state_out", o.name] = given["state_in", o.name] if own else self.new(self.shape("NH", o.dims))
        for n, dims in self.spec.step.output_dims.items():
            given["output", n] = self.new(self.shape("BTH", dims), self.dtype)
        kept = self.kept()
        use: Use = "recorded" if self.programs.keep == "steps" else "checkpoint"
        given |= {(use, n): t for n, t in kept.items()}
        self.forward_launch(given, self.counts, scalars, self.groups)
        outputs = [given["output", n] for n in self.spec.step.output_dims]
        return outputs, [given["state_out", o.name] for o in self.spec.states], list(kept.values())

    def backward(
        self, operands: Sequence[Tensor], scalars: Mapping[str, float], boundaries: Tensor | None, reset: Tensor | None,
        cotangents: Sequence[Tensor | None], kept: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
        """Cotangents of operands and of first states."""
        view, spec = self.backward_view, self.spec
        given = self.operands(operands, boundaries, reset)
        outputs = spec.step.output_dims
        for (n, dims), t in zip(outputs.items(), cotangents, strict=False):
            shape = self.shape("BTH", dims)
            t = torch.zeros((), dtype=self.dtype, device=self.device).expand(shape) if t is None else t.to(self.dtype)
            given["d_output", n] = t if t.numel() == 0 or dense_inside(t, 3) else t.contiguous()
        for o, t in zip(spec.states, cotangents[len(outputs) :], strict=True):
            shape = self.shape("NH", o.dims)
            given["d_state_out", o.name] = (
                torch.zeros(shape, device=self.device) if t is None else t.to(torch.float32).contiguous()
            )
            given["d_state_in", o.name] = self._result(o.dims, "NH", torch.float32, self._is_shared(o))
        use: Use = "recorded" if self.programs.keep == "steps" else "checkpoint"
        names = ["kept"] if use == "recorded" else [o.name for o in spec.states]
        given |= {(use, n): t for n, t in zip(names, kept, strict=True)}
        if view.blocks:
            programs = self.backward_launch.programs(self.counts)
            given["scratch", "steps_of_block"] = self.new((programs * view.sizes.block * view.slot,))
        for a in view.arguments:
            if a.use == "d_input" and a.kind == "pointer":
                o = spec.operand(a.operand)
                dtype = torch.float32 if a.dtype == "*fp32" else self.arguments.tensors[o.name].dtype
                given["d_input", o.name] = self._result(o.dims, "BTH", dtype, o.name in view.parts)
            elif a.use == "d_param":
                o = spec.operand(a.operand)
                copies = self.backward_launch.programs(replace(self.counts, heads=1))
                given["d_param", o.name] = torch.zeros((copies, *self.shape("H", o.dims)), device=self.device)
            elif a.use == "vector" and a.kind == "pointer":
                axes = tuple(self.programs.weight_terms[1][a.operand][0].dim for _ in "x")
                dtype = next(d for d, n in NAMES.items() if f"*{n}" == a.dtype)
                given["vector", a.operand] = self.new(self.shape("BTH", axes), dtype)
        self.backward_launch(given, self.counts, scalars, self.groups)
        grads = [self._finished(o, given) for o in spec.of_kind("input", "param")]
        return grads, [self._summed(given["d_state_in", o.name], self._is_shared(o)) for o in spec.states]

    def _is_shared(self, o: Operand) -> bool:
        return self.backward_view.column_tiles > 1 and self.programs.lane not in o.dims

    def _result(self, dims: Sequence[Dim], lead: str, dtype: torch.dtype, parts: bool) -> Tensor:
        shape = self.shape(lead, dims)
        return self.new((self.backward_view.column_tiles, *shape) if parts else shape, dtype)

    @staticmethod
    def _summed(tensor: Tensor, parts: bool) -> Tensor:
        return tensor.sum(0) if parts else tensor

    def _finished(self, o: Operand, given: Given) -> Tensor:
        """The gradient of an operand: parts and shared heads added up, products over all steps made."""
        like = self.arguments.tensors[o.name]
        if o.kind == "input":
            found, heads = self._summed(given["d_input", o.name], o.name in self.backward_view.parts), 2
        else:
            found, heads = self._weight_gradient(o, given), 0
        group = self.groups[o.name]
        if group > 1:
            apart = (*found.shape[:heads], found.shape[heads] // group, group, *found.shape[heads + 1 :])
            found = found.reshape(apart).sum(heads + 1)
        return found.to(like.dtype)

    def _weight_gradient(self, o: Operand, given: Given) -> Tensor:
        if ("d_param", o.name) in given:
            found = given["d_param", o.name].sum(0)
        else:
            found = torch.zeros(self.shape("H", o.dims), device=self.device)
        for term in self.programs.weight_terms[0]:
            if term.weight[0] == o.name:
                left, right = (self._vector(word, given) for word in (term.left, term.right))
                product = torch.einsum("nho,nhj->hoj", left, right.to(left.dtype))
                self._cell(found, o, term.weight[1]).add_(product)
        return found

    def _vector(self, word: str, given: Given) -> Tensor:
        """One side of a product over all steps: [B T, H, length]."""
        if ("vector", word) in given:
            found = given["vector", word]
        else:
            name, cell = decode(word)
            o = self.spec.operand(name.removeprefix(cotangent("")))
            whole = self._summed(given["d_input", o.name], o.name in self.backward_view.parts)
            found = self._cell(whole, o, cell, lead=3)
        return found.reshape(-1, *found.shape[2:])

    @staticmethod
    def _cell(tensor: Tensor, o: Operand, cell: Sequence[int], lead: int = 1) -> Tensor:
        """One literal cell of an array."""
        numbers = iter(cell)
        index = [slice(None)] * lead + [slice(None) if isinstance(d, str) else next(numbers) for d in o.dims]
        return tensor[tuple(index)]


def dense_inside(tensor: Tensor, lead: int) -> bool:
    """Whether the axes from `lead` on lie as in a dense tensor."""
    expected = 1
    for length, stride in zip(reversed(tensor.shape[lead:]), reversed(tensor.stride()[lead:]), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
