"""`GpuKernel`: a compiled recurrence on a GPU, called like a function of tensors.

In: operands by name. Out: outputs and final states, differentiable by autograd. Its calls are those of `Kernel`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rekern.backends.triton_launch import interpreted
from rekern.errors import ArgumentError, DoubleBackwardError, PlanError
from rekern.hwmodels import Machine
from rekern.render import render_triton
from rekern.runtime.arguments import Arguments, check, dense_tensor
from rekern.runtime.calls import MOST_KINDS, Latest
from rekern.runtime.given import Operand, check_in_place, refuse_transforms, sort_operands, with_time
from rekern.runtime.gpu.alternating import AlternatingLoop
from rekern.runtime.gpu.base import GpuLoop
from rekern.runtime.gpu.choose import TIME_LOOPS, choose
from rekern.runtime.gpu.kernels import AlternatingKernels, Kernels, ScanKernels, TimeLoopKernels, fitting
from rekern.runtime.gpu.loop import Loop
from rekern.runtime.gpu.scan import Scan
from rekern.runtime.gpu.variants import DTYPES, Way, aligned_operands, groups_of, variant_of
from rekern.runtime.gpu.views import PASSES, views
from rekern.schedules.programs import programs
from rekern.spec import Recurrence, scalar_value

Output = Tensor | dict[str, Tensor]


def loop_of(kernels: Kernels, arguments: Arguments, plan: str) -> GpuLoop:
    """What launches them."""
    match kernels:
        case ScanKernels():
            return Scan(kernels, arguments, plan)
        case TimeLoopKernels():
            return Loop(kernels, arguments, plan)
        case AlternatingKernels():
            return AlternatingLoop(kernels, arguments, plan)
    raise AssertionError(kernels)


class GpuKernel:
    """A recurrence compiled for a GPU. Kernels are built at the first call of a kind; B and T are not compiled in."""

    def __init__(self, spec: Recurrence, machine: Machine, check_facts: bool = False) -> None:
        for o in (o for o in spec.states if o.dtype == "float64"):
            raise PlanError(
                f"{spec.name}: state {o.name!r} is declared float64; kernels for GPUs compute in float32\n"
                'declare it float32, or compile with target="cpu"'
            )
        self.spec, self.machine, self.check_facts = spec, machine, check_facts
        self.programs = programs(spec)
        self._loops: Latest[GpuLoop] = Latest(MOST_KINDS)
        self._output_names = tuple(spec.step.output_dims)

    def __call__(
        self,
        *,
        state: Mapping[str, Tensor] | None = None,
        cu_seqlens: Tensor | None = None,
        reset: Tensor | None = None,
        reverse: bool = False,
        **operands: Operand,
    ) -> tuple[Output, dict[str, Tensor]]:
        """Run the recurrence over a batch of sequences; shapes and meaning as for `Kernel`.

        Raises:
            ArgumentError: an operand does not fit the spec.
            PlanError: no sizes fit the machine.
            BuildError: Triton is missing, or a kernel does not compile.
        """
        return self._run(operands, state, cu_seqlens, reset, reverse)

    def _run(
        self,
        operands: Mapping[str, Operand],
        state: Mapping[str, Tensor] | None,
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        reverse: bool,
    ) -> tuple[Output, dict[str, Tensor]]:
        tensors, scalars, states = self._sorted(operands, state)
        self._check_reset(reset, tensors[0])
        arguments = check(self.spec, self._by_name(tensors), states, cu_seqlens, reset)
        first = [states.get(o.name) for o in self.spec.states]
        record = torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, *states.values()))
        loop = self._loop(arguments, Way(record, reverse, reset is not None, cu_seqlens is not None))
        values = self._scalars(arguments, scalars)
        if record:
            # Torch gives `apply` no types.
            results = Recorded.apply(loop, values, cu_seqlens, reset, *tensors, *first)  # type: ignore[no-untyped-call]
        else:
            outputs, last, _ = loop.forward(tensors, first, values, cu_seqlens, reset)
            results = (*outputs, *last)
        return self._named(results)

    def step(
        self,
        *,
        state: Mapping[str, Tensor] | None = None,
        reset: Tensor | None = None,
        in_place: bool = False,
        **operands: Operand,
    ) -> tuple[Output, dict[str, Tensor]]:
        """One step, as `Kernel.step`: Input and output [B, H, *dims]; `in_place` updates the tensors of `state`."""
        longer = with_time(self.spec, operands)
        restart = None if reset is None else reset.unsqueeze(1)
        if not in_place:
            result, final = self._run(longer, state, None, restart, False)
            return self._without_time(result), final
        tensors, scalars, states = self._sorted(longer, state)
        self._check_reset(restart, tensors[0])
        needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, *states.values()))
        check_in_place(self.spec, self._by_name(tensors), states, needs_gradient)
        arguments = check(self.spec, self._by_name(tensors), states, None, restart)
        loop = self._loop(arguments, Way(reset=reset is not None, one_step=True))
        first = [states[o.name] for o in self.spec.states]
        outputs, last, _ = loop.forward(tensors, first, self._scalars(arguments, scalars), None, restart, in_place=True)
        for own, new in zip(first, last, strict=True):
            if own.data_ptr() != new.data_ptr():
                own.copy_(new)
        result, _ = self._named([*outputs, *first])
        return self._without_time(result), {o.name: t for o, t in zip(self.spec.states, first, strict=True)}

    @staticmethod
    def _without_time(result: Output) -> Output:
        if isinstance(result, Tensor):
            return result.squeeze(1)
        return {n: t.squeeze(1) for n, t in result.items()}

    # -- what was made

    @property
    def source(self) -> str:
        """The Triton of the forward pass, for a usual call of this recurrence."""
        return self.sources()["forward"]

    def sources(
        self, *, dtype: str = "float32", batch: int | None = None, heads: int | None = None, time: int | None = None,
        **lengths: int,
    ) -> dict[str, str]:  # fmt: skip
        """The Triton of every pass: forward, recording (with what a gradient reads), backward, step; without a GPU too.

        It is what such a call launches: the schedule and the sizes are the first that fit. A pass of several kernels
        has their modules one behind the other, in the order in which they first run.

        Args:
            dtype: Of operands and outputs.
            batch, heads, time: Of the call that sizes are chosen for; usual ones where they are not given.
            lengths: Of axes, by name; likewise.

        Raises:
            PlanError: an axis or dtype is unknown, or nothing fits the machine.
            BuildError: Triton is missing, or a kernel does not compile.
        """
        found = views(self.spec, self.machine, dtype, lengths, batch, heads, time)
        return {name: "\n\n".join(render_triton(view) for view in found.of(name)) for name in PASSES}

    def export(
        self, path: str | os.PathLike[str], *, dtype: str = "float32", batch: int | None = None,
        heads: int | None = None, time: int | None = None, **lengths: int,
    ) -> None:  # fmt: skip
        """Write a Python file that needs only torch and triton: the kernels, and functions that call them.

        It has a function of the name of the recurrence, differentiable by autograd, and one for a single step. What
        it leaves out (packed sequences, restarts, reverse) is in its docstring. Other arguments as for `sources`.

        Raises:
            ArgumentError: there is a file at `path` that was not exported by rekern.
            PlanError: an axis or dtype is unknown, or nothing fits the machine.
        """
        from rekern.runtime.gpu.export import write_export  # a call needs none of it

        write_export(views(self.spec, self.machine, dtype, lengths, batch, heads, time, TIME_LOOPS), Path(path))

    def __repr__(self) -> str:
        names = ", ".join(o.name for o in self.spec.of_kind("input", "param"))
        return f"<rekern.GpuKernel {self.spec.name}({names}) for {self.machine.name}>"

    # -- one kind of call

    def _sorted(
        self, operands: Mapping[str, Operand], state: Mapping[str, Tensor] | None
    ) -> tuple[list[Tensor], dict[str, float], dict[str, Tensor]]:
        refuse_transforms(self.spec.name)
        device = "cpu" if interpreted() else "cuda"
        found = sort_operands(self.spec, operands, state, self.check_facts, device)
        named = {**{f"operand {n!r}": t for n, t in self._by_name(found[0]).items()},
                 **{f"state {n!r}": t for n, t in found[2].items()}}  # fmt: skip
        first, place = next(((n, t.device) for n, t in named.items()), ("", None))
        for what, t in named.items():
            if t.dtype not in DTYPES:
                raise ArgumentError(
                    f"{self.spec.name}: {what} is {t.dtype}; kernels for GPUs compute in float32, "
                    'expected float32, bfloat16 or float16\ncast it, or compile with target="cpu"'
                )
            if t.device != place:
                raise ArgumentError(
                    f"{self.spec.name}: {what} is on {t.device}, but {first} is on {place}\n"
                    f'move it with .to("{place}")'
                )
        return found

    def _check_reset(self, reset: Tensor | None, first: Tensor) -> None:
        """A kernel reads it, so it is where the operands are; boundaries may be on the CPU, where they are checked."""
        if reset is not None and dense_tensor(self.spec, "reset", reset, first.device.type).device != first.device:
            raise ArgumentError(
                f'{self.spec.name}: reset is on {reset.device}, expected on {first.device}\n'
                f'move it with .to("{first.device}")'
            )

    def _by_name(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip((o.name for o in self.spec.of_kind("input", "param")), tensors, strict=True))

    def _scalars(self, arguments: Arguments, given: Mapping[str, float]) -> dict[str, float]:
        operands = self.spec.of_kind("scalar")
        return {o.name: given.get(o.name, float(scalar_value(self.spec, o, arguments.sizes))) for o in operands}

    def _loop(self, arguments: Arguments, way: Way) -> GpuLoop:
        tensors = arguments.tensors
        shapes = tuple((t.shape, t.dtype, t.device) for t in tensors.values())
        key = shapes, len(arguments.sequences), way, aligned_operands(self.spec, arguments)
        loop = self._loops.get(key)
        if loop is None:
            first = tensors[self.spec.of_kind("input")[0].name]
            found = choose(
                self.machine, self.programs, tuple((a, arguments.sizes[a]) for a in self.spec.axes),
                len(arguments.sequences), arguments.heads, arguments.time, DTYPES[first.dtype],
            )  # fmt: skip
            variant = variant_of(self.spec, arguments, way, self.machine)
            kernels = fitting(found, variant, groups_of(self.spec, arguments), way)
            loop = loop_of(kernels, arguments, f"{kernels.chosen.choice.schedule} for {self.machine.name}")
            self._loops.put(key, loop)
        return loop

    def _named(self, results: Sequence[Tensor]) -> tuple[Output, dict[str, Tensor]]:
        count = len(self._output_names)
        outputs = results[:count]
        single = self.spec.step.single_output
        final = {o.name: t for o, t in zip(self.spec.states, results[count:], strict=True)}
        return outputs[0] if single else dict(zip(self._output_names, outputs, strict=True)), final


class Recorded(torch.autograd.Function):
    """`Recorded.apply(loop, scalars, cu_seqlens, reset, *operands, *first states)`."""

    @staticmethod
    def forward(
        ctx: Any, loop: GpuLoop, scalars: Mapping[str, float], boundaries: Tensor | None, reset: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        count = len(loop.spec.of_kind("input", "param"))
        operands = [t for t in tensors[:count] if t is not None]
        outputs, last, kept = loop.forward(operands, tensors[count:], scalars, boundaries, reset)
        ctx.loop, ctx.scalars, ctx.count = loop, scalars, count
        ctx.given = [t is not None for t in tensors[count:]]
        ctx.save_for_backward(boundaries, reset, *operands, *kept)
        ctx.set_materialize_grads(False)
        return *outputs, *last

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise DoubleBackwardError(f"{ctx.loop.spec.name}: a gradient has no gradient of its own")
        boundaries, reset, *saved = ctx.saved_tensors
        grads, first = ctx.loop.backward(
            saved[: ctx.count], ctx.scalars, boundaries, reset, cotangents, saved[ctx.count :]
        )
        return (
            None,
            None,
            None,
            None,
            *grads,
            *(d if given else None for d, given in zip(first, ctx.given, strict=True)),
        )
