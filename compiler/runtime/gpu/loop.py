"""The time loop of a call on a GPU, forward and back.

In: checked `Arguments`, the options of the call, sizes. Out: functions of tensors. All memory is torch's; what the host
does is the same for every call of a kind, so a call can be captured in a graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from rekern.runtime.arguments import Arguments
from rekern.runtime.gpu.base import Given, GpuLoop
from rekern.runtime.gpu.kernels import TimeLoopKernels
from rekern.runtime.gpu.launches import Launch
from rekern.schedules.triton.passes import Use
from rekern.spec import Operand
from rekern.trace import Dim


class Loop(GpuLoop):
    """One kind of call of the time loop."""

    def __init__(self, kernels: TimeLoopKernels, arguments: Arguments, plan: str) -> None:
        super().__init__(kernels, arguments, plan)
        self.kernels = kernels

    @cached_property
    def forward_launch(self) -> Launch:
        """The forward pass, compiled."""
        return Launch(self.kernels.forward, self.device, self.plan)

    @cached_property
    def backward_launch(self) -> Launch:
        """The gradient, compiled."""
        return Launch(self.kernels.backward, self.device, self.plan)

    @property
    def parts(self) -> frozenset[str]:
        return self.kernels.backward.parts

    # -- memory

    def blocks(self) -> int:
        """States that are kept for the gradient, of all sequences of one head."""
        block = self.kernels.forward.sizes.block
        if self.way.packed:
            return self.arguments.time // block + len(self.arguments.sequences)
        return self.arguments.batch * -(-self.arguments.time // block)

    def kept(self) -> dict[str, Tensor]:
        """Memory for what the gradient reads: rows of every step, or states of blocks."""
        if not self.way.record:
            return {}
        if self.programs.keep == "steps":
            return {"kept": self.new((*self.shape("BTH", ()), self.kernels.forward.slot))}
        lead = self.blocks(), self.arguments.heads
        return {o.name: self.new((*lead, *self.shape("", o.dims))) for o in self.spec.states}

    # -- calls

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
            own = in_place and (self.kernels.forward.column_tiles == 1 or lane in o.dims)
            given["state_out", o.name] = given["state_in", o.name] if own else self.new(self.shape("NH", o.dims))
        for n, dims in self.spec.step.output_dims.items():
            given["output", n] = self.of_steps(self.shape("BTH", dims), self.dtype)
        kept = self.kept()
        use: Use = "recorded" if self.programs.keep == "steps" else "checkpoint"
        given |= {(use, n): t for n, t in kept.items()}
        self.run_forward(given, scalars)
        outputs = [given["output", n] for n in self.spec.step.output_dims]
        return outputs, [given["state_out", o.name] for o in self.spec.states], list(kept.values())

    def backward(
        self, operands: Sequence[Tensor], scalars: Mapping[str, float], boundaries: Tensor | None, reset: Tensor | None,
        cotangents: Sequence[Tensor | None], kept: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
        """Cotangents of operands and of first states."""
        view, spec = self.kernels.backward, self.spec
        given = self.operands(operands, boundaries, reset)
        given |= self.d_given(cotangents)
        for o in spec.states:
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
                given["d_param", o.name] = self.zeros((copies, *self.shape("H", o.dims)))
            elif a.use == "vector" and a.kind == "pointer":
                given["vector", a.operand] = self.vector(a.operand, a.dtype)
        self.run_backward(given, scalars)
        grads = [self._finished(o, given) for o in spec.of_kind("input", "param")]
        return grads, [self._summed(given["d_state_in", o.name], self._is_shared(o)) for o in spec.states]

    def run_forward(self, given: Given, scalars: Mapping[str, float]) -> None:
        """Launch the forward pass."""
        self.forward_launch(given, self.counts, scalars, self.groups)

    def run_backward(self, given: Given, scalars: Mapping[str, float]) -> None:
        """Launch the gradient."""
        self.backward_launch(given, self.counts, scalars, self.groups)

    def _is_shared(self, o: Operand) -> bool:
        return self.kernels.backward.column_tiles > 1 and self.programs.lane not in o.dims

    def _result(self, dims: Sequence[Dim], lead: str, dtype: torch.dtype, parts: bool) -> Tensor:
        shape = self.shape(lead, dims)
        shape = (self.kernels.backward.column_tiles, *shape) if parts else shape
        return self.of_steps(shape, dtype) if lead == "BTH" else self.new(shape, dtype)
