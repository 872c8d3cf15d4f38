"""What the loops of all schedules share: memory of a call, operands as kernels read them, gradients of operands.

In: checked `Arguments`, the options of a call. Out: a base class of loops. All memory is torch's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rekern.gradient import cotangent
from rekern.runtime.arguments import Arguments
from rekern.runtime.calls import outlined
from rekern.runtime.gpu.choose import Chosen
from rekern.runtime.gpu.launches import Counts
from rekern.schedules.programs import Programs, decode
from rekern.schedules.triton.passes import Use, Variant
from rekern.spec import Operand, Recurrence
from rekern.trace import Dim

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
ALIGNED = 16
Given = dict[tuple[Use, str], Tensor]


@dataclass(frozen=True)
class Way:
    """What of a call decides its kernels beside shapes and dtypes."""

    record: bool
    reverse: bool
    reset: bool
    packed: bool


class GpuLoop(ABC):
    """One kind of call of one schedule."""

    def __init__(
        self, programs: Programs, arguments: Arguments, way: Way, chosen: Chosen, precision: str, plan: str = "",
        one_step: bool = False,
    ) -> None:  # fmt: skip
        """`plan`: the machine and the schedule, for messages."""
        self.chosen, self.plan, self.one_step = chosen, plan, one_step
        self.programs, self.spec = programs, programs.spec
        self.arguments, self.way = outlined(arguments), way  # it keeps no tensor of a caller alive
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
            shared, way.reset, way.packed, way.reverse, precision, aligned_operands(self.spec, arguments),
        )  # fmt: skip
        self.counts = Counts(len(arguments.sequences), arguments.time, arguments.heads)

    @abstractmethod
    def forward(
        self, operands: Sequence[Tensor], first: Sequence[Tensor | None], scalars: Mapping[str, float],
        boundaries: Tensor | None, reset: Tensor | None, in_place: bool = False,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:  # fmt: skip
        """Outputs, last states, and what the gradient reads."""

    @abstractmethod
    def backward(
        self, operands: Sequence[Tensor], scalars: Mapping[str, float], boundaries: Tensor | None, reset: Tensor | None,
        cotangents: Sequence[Tensor | None], kept: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
        """Cotangents of operands and of first states."""

    @property
    def parts(self) -> frozenset[str]:
        """Inputs whose cotangents blocks make parts of, to be added up."""
        return frozenset()

    # -- memory

    def shape(self, lead: str, dims: Sequence[Dim]) -> tuple[int, ...]:
        """Lengths of implicit axes, then of an operand's own."""
        a = self.arguments
        lengths = {"B": a.batch, "T": a.time, "H": a.heads, "N": len(a.sequences)}
        return *(lengths[x] for x in lead), *(d if isinstance(d, int) else a.sizes[d] for d in dims)

    def new(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

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
        return aligned_copy(tensor.to(torch.float32))

    # -- operands

    def operands(self, operands: Sequence[Tensor], boundaries: Tensor | None, reset: Tensor | None) -> Given:
        given: Given = {}
        for o, t in zip(self.spec.of_kind("input", "param"), operands, strict=True):
            given["input" if o.kind == "input" else "param", o.name] = self.dense(o, t)
        if boundaries is not None:
            given["boundaries", ""] = boundaries.to(self.device, torch.int64)
        if reset is not None:
            given["reset", ""] = reset.view(torch.int8)
        return given

    def d_given(self, cotangents: Sequence[Tensor | None]) -> Given:
        """Cotangents of outputs and of last states; zeros where there are none."""
        outputs, given = self.spec.step.output_dims, Given()
        for (n, dims), t in zip(outputs.items(), cotangents, strict=False):
            shape = self.shape("BTH", dims)
            t = torch.zeros((), dtype=self.dtype, device=self.device).expand(shape) if t is None else t.to(self.dtype)
            if n in self.variant.aligned and not lies_aligned(t):
                t = t.clone(memory_format=torch.contiguous_format)
            given["d_output", n] = t if t.numel() == 0 or dense_inside(t, 3) else t.contiguous()
        for o, t in zip(self.spec.states, cotangents[len(outputs) :], strict=True):
            shape = self.shape("NH", o.dims)
            given["d_state_out", o.name] = (
                torch.zeros(shape, device=self.device) if t is None else aligned_copy(t.to(torch.float32))
            )
        return given

    def vector(self, word: str, dtype: str) -> Tensor:
        """Memory for one side of a weight's gradient, of all steps."""
        axis = self.programs.weight_terms[1][word][0].dim
        return self.new(self.shape("BTH", (axis,)), next(d for d, n in NAMES.items() if f"*{n}" == dtype))

    # -- gradients of operands

    @staticmethod
    def _summed(tensor: Tensor, parts: bool) -> Tensor:
        return tensor.sum(0) if parts else tensor

    def _finished(self, o: Operand, given: Given) -> Tensor:
        """The gradient of an operand: parts and shared heads added up, products over all steps made."""
        like = self.arguments.tensors[o.name]
        if o.kind == "input":
            found, heads = self._summed(given["d_input", o.name], o.name in self.parts), 2
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
                cell_of(found, o.dims, term.weight[1], 1).add_(product)
        return found

    def _vector(self, word: str, given: Given) -> Tensor:
        """One side of a product over all steps: [B T, H, length]."""
        if ("vector", word) in given:
            found = given["vector", word]
        else:
            name, cell = decode(word)
            o = self.spec.operand(name.removeprefix(cotangent("")))
            whole = self._summed(given["d_input", o.name], o.name in self.parts)
            found = cell_of(whole, o.dims, cell, 3)
        return found.reshape(-1, *found.shape[2:])


def cell_of(tensor: Tensor, dims: Sequence[Dim], cell: Sequence[int], lead: int) -> Tensor:
    """One literal cell of an array, behind its first `lead` axes."""
    numbers = iter(cell)
    return tensor[(slice(None),) * lead + tuple(slice(None) if isinstance(d, str) else next(numbers) for d in dims)]


def dense_inside(tensor: Tensor, lead: int) -> bool:
    """Whether the axes from `lead` on lie as in a dense tensor."""
    expected = 1
    for length, stride in zip(reversed(tensor.shape[lead:]), reversed(tensor.stride()[lead:]), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


def lies_aligned(tensor: Tensor) -> bool:
    """Whether [B, T, H, ...] begins at a multiple of 16 bytes, and its rows at multiples of 16 numbers from there."""
    rows = all(stride % ALIGNED == 0 for stride in tensor.stride()[:3])
    return rows and dense_inside(tensor, 3) and tensor.data_ptr() % ALIGNED == 0


def aligned_copy(tensor: Tensor) -> Tensor:
    """The tensor dense and at an aligned address: itself, if it is."""
    dense = tensor.contiguous()
    return dense if dense.data_ptr() % ALIGNED == 0 else dense.clone()


def aligned_operands(spec: Recurrence, arguments: Arguments) -> frozenset[str]:
    """Operands and outputs of a call of which a compiler may know that they are aligned."""
    found = {o.name for o in spec.of_kind("input") if lies_aligned(arguments.tensors[o.name])}
    found |= {o.name for o in spec.of_kind("param") if arguments.tensors[o.name].data_ptr() % ALIGNED == 0}
    # A cotangent of an output that is not aligned is copied.
    return frozenset(found | whole_rows(spec.step.output_dims, arguments.sizes))


def usually_aligned(spec: Recurrence, lengths: Mapping[str, int]) -> frozenset[str]:
    """The same of operands that lie dense."""
    inputs = {o.name: o.dims for o in spec.of_kind("input")}
    params = {o.name for o in spec.of_kind("param")}
    return frozenset(params | whole_rows({**inputs, **spec.step.output_dims}, lengths))


def whole_rows(rows: Mapping[str, tuple[Dim, ...]], lengths: Mapping[str, int]) -> set[str]:
    """Arrays whose rows are multiples of 16 long."""
    counts = {n: math.prod(d if isinstance(d, int) else lengths[d] for d in dims) for n, dims in rows.items()}
    return {n for n, count in counts.items() if count % ALIGNED == 0}
