"""What the loops of all schedules share: memory of a call, operands as kernels read them, gradients of operands.

In: checked `Arguments`, the options of a call. Out: a base class of loops. All memory is torch's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rekern.gradient import cotangent
from rekern.runtime.arguments import Arguments
from rekern.runtime.calls import outlined
from rekern.runtime.gpu.kernels import Kernels
from rekern.runtime.gpu.launches import Counts
from rekern.runtime.gpu.variants import SPELLED, aligned_copy, dense_inside, lies_aligned
from rekern.schedules.programs import decode
from rekern.schedules.triton.passes import Use
from rekern.spec import Operand
from rekern.trace import Dim

Given = dict[tuple[Use, str], Tensor]


class GpuLoop(ABC):
    """One kind of call of one schedule."""

    def __init__(self, kernels: Kernels, arguments: Arguments, plan: str) -> None:
        """`plan`: the machine and the schedule, for messages."""
        self.plan, self.way, self.variant, self.groups = plan, kernels.way, kernels.variant, kernels.groups
        self.programs, self.spec = kernels.chosen.programs, kernels.chosen.programs.spec
        self.arguments = outlined(arguments)  # it keeps no tensor of a caller alive
        first = arguments.tensors[self.spec.of_kind("input")[0].name]
        self.device, self.dtype = first.device, first.dtype
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

    def zeros(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def of_steps(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory for what every step writes. Boundaries on a GPU are not looked at, and may leave steps out."""
        return self.zeros(shape, dtype) if self.way.packed else self.new(shape, dtype)

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
            given["boundaries", ""] = boundaries.to(self.device, torch.int64).contiguous()
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
                self.zeros(shape) if t is None else aligned_copy(t.to(torch.float32))
            )
        return given

    def vector(self, word: str, dtype: str) -> Tensor:
        """Memory for one side of a weight's gradient, of all steps."""
        axis = self.programs.weight_terms[1][word][0].dim
        return self.of_steps(self.shape("BTH", (axis,)), next(d for d, n in SPELLED.items() if f"*{n}" == dtype))

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
        copies = given.get(("d_param", o.name))
        found = self.zeros(self.shape("H", o.dims)) if copies is None else copies.sum(0)
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
