"""`Kernel`: a compiled recurrence, called like a function of tensors.

In: operands by name. Out: outputs and final states, differentiable by autograd.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rekern.errors import BuildError, PlanError
from rekern.hwmodels import detect
from rekern.reference import reference
from rekern.runtime import ops
from rekern.runtime.arguments import check, dense_tensor
from rekern.runtime.calls import MOST_KINDS, CheckedCall, Latest
from rekern.runtime.execute import CpuExecutor
from rekern.runtime.given import Operand, check_facts, check_in_place, refuse_transforms, sort_operands, with_time
from rekern.runtime.recorded import Recorded
from rekern.runtime.signature import Key, Options, eager, plain, signature
from rekern.schedules.cpu.choose import plan
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import programs
from rekern.spec import Recurrence

if TYPE_CHECKING:
    from rekern.runtime.gpu.kernel import GpuKernel

Output = Tensor | dict[str, Tensor]
NUMBERS = (float, int, type(None))


class Kernel:
    """A recurrence compiled for a target.

    Nothing is built before it is needed; lengths of axes, batch and time are free, and new ones build nothing
    new unless a register tile depends on them.
    """

    def __init__(self, spec: Recurrence, check_facts: bool = False, any_device: bool = False) -> None:
        """`any_device`: calls with tensors on a GPU run there."""
        self.spec = spec
        self.check_facts = check_facts
        self._any_device = any_device
        self.executor = CpuExecutor(programs(spec))
        self.tensor_names = tuple(o.name for o in spec.of_kind("input", "param"))
        self.state_names = tuple(o.name for o in spec.states)
        self.scalar_names = tuple(o.name for o in spec.of_kind("scalar"))
        self._no_states: list[Tensor | None] = [None] * len(self.state_names)
        self._no_scalars: list[float | None] = [None] * len(self.scalar_names)
        self._none_given = (False,) * len(self.scalar_names)
        self._output_names = tuple(spec.step.output_dims)
        self._single = spec.step.single_output
        self._calls: Latest[CheckedCall] = Latest(MOST_KINDS)
        name = f"{spec.name}-{spec.meaning}"
        names = itertools.chain([name], (f"{name}-{count}" for count in itertools.count(2)))
        self.name = next(n for n in names if n not in ops.KERNELS)  # operators find a kernel by its name
        self._compiler: bool | None = None
        ops.KERNELS[self.name] = self

    def __call__(
        self,
        *,
        state: Mapping[str, Tensor] | None = None,
        cu_seqlens: Tensor | None = None,
        reset: Tensor | None = None,
        reverse: bool = False,
        **operands: Operand,
    ) -> tuple[Output, dict[str, Tensor]]:
        """Run the recurrence over a batch of sequences.

        Args:
            operands: Input [B, T, H, *dims], Param [H, *dims], Scalar a number. The head count of an operand may
                divide H: heads are then shared in groups. Any strides.
            state: First states [B, H, *dims] by name ([N, H, *dims] with `cu_seqlens`); missing ones start at
                their declared initial value.
            cu_seqlens: [N + 1] boundaries of N sequences packed in one row (B = 1).
            reset: [B, T] bool; True restarts from the declared initial value before that step.
            reverse: Walk the steps from last to first.

        Returns:
            The output [B, T, H, *dims] (a dict if the spec has several), in the dtype of the first Input; and the
            final states by name, in float32 (float64 if an operand is).

        Raises:
            ArgumentError: an operand does not fit the spec.
            BuildError: the compiler of this machine fails.
        """
        if not torch.compiler.is_compiling() and eager():
            again = self._again(operands, state, cu_seqlens, reset, reverse, one_step=False, in_place=False)
            if again is not None:
                return again
        if self._elsewhere(operands):
            return self.on_gpu(state=state, cu_seqlens=cu_seqlens, reset=reset, reverse=reverse, **operands)
        return self._run(operands, state, cu_seqlens, reset, reverse)

    def _elsewhere(self, operands: Mapping[str, Operand]) -> bool:
        """Whether a call is for the GPU: its first tensor is there."""
        first = next((t for n in self.tensor_names if isinstance(t := operands.get(n), Tensor)), None)
        return self._any_device and first is not None and first.is_cuda

    @cached_property
    def on_gpu(self) -> GpuKernel:
        """The same recurrence for the first GPU of this machine."""
        from rekern.runtime.gpu.kernel import GpuKernel

        return GpuKernel(self.spec, detect("gpu"), self.check_facts)

    def _again(
        self,
        operands: Mapping[str, Any],
        state: Mapping[str, Tensor] | None,
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        reverse: bool,
        one_step: bool,
        in_place: bool,
    ) -> tuple[Output, dict[str, Tensor]] | None:
        """The result of a call like one that was checked before; None: there is none, or this one is wrong."""
        try:
            tensors = [operands[n] for n in self.tensor_names]
            first = [state.get(n) for n in self.state_names] if state else self._no_states
            scalars, given = self._no_scalars, self._none_given
            if len(operands) != len(tensors):   # scalars, or something unknown
                scalars = [operands.get(n) for n in self.scalar_names]
                given = tuple([v is not None for v in scalars])
                if len(operands) != len(tensors) + sum(given) or not all([type(v) in NUMBERS for v in scalars]):
                    return None
            if state and len(state) != sum([t is not None for t in first]):
                return None
            record = torch.is_grad_enabled() and any([t.requires_grad for t in (*tensors, *first) if t is not None])
            options = Options(reverse, torch.get_num_threads(), record, one_step, in_place, given)
            call = self._calls.get(self.key(tensors, first, cu_seqlens, reset, options))
        except (AttributeError, KeyError, TypeError, RuntimeError):     # whatever it is, the checks will tell
            return None
        if call is None or not call.plain:
            return None
        if self.check_facts:
            check_facts(self.spec, self.by_name(tensors))
        return self._direct(call, tensors, first, scalars, cu_seqlens, reset)

    def _direct(
        self,
        call: CheckedCall,
        operands: Sequence[Tensor],
        first: Sequence[Tensor | None],
        scalars: Sequence[float | None],
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Output, dict[str, Tensor]]:
        """Past torch's dispatcher."""
        if call.options.record:
            # torch declares no types for apply.
            results = Recorded.apply(self, call, scalars, cu_seqlens, reset, *operands, *first)  # type: ignore[no-untyped-call]
            count = len(self._output_names)
            return self._named(results[:count], results[count:])
        outputs, last, _ = call.forward(operands, first, scalars, reset)
        return self._named(outputs, last)

    def _named(
        self, outputs: Sequence[Tensor], last: Sequence[Tensor]
    ) -> tuple[Output, dict[str, Tensor]]:
        final = dict(zip(self.state_names, last))
        return (outputs[0] if self._single else dict(zip(self._output_names, outputs))), final

    def _run(
        self,
        operands: Mapping[str, Operand],
        state: Mapping[str, Tensor] | None,
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        reverse: bool,
    ) -> tuple[Output, dict[str, Tensor]]:
        tensors, scalars, states = sort_operands(self.spec, operands, state, self.check_facts)
        for what, given_tensor in (("cu_seqlens", cu_seqlens), ("reset", reset)):
            if given_tensor is not None:
                dense_tensor(self.spec, what, given_tensor)
        refuse_transforms(self.spec.name)
        if not self._has_compiler():
            check(self.spec, self.by_name(tensors), states, cu_seqlens, reset)
            dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
            given: dict[str, Tensor | float] = {**self.by_name(tensors), **scalars}
            out, last = reference(
                self.spec, given, states, cu_seqlens=cu_seqlens, reset=reset, reverse=reverse, dtype=dtype
            )
            like = next(t for t, o in zip(tensors, self.spec.of_kind("input", "param")) if o.kind == "input")
            if isinstance(out, Tensor):
                return out.to(like.dtype), last
            return {n: t.to(like.dtype) for n, t in out.items()}, last
        record = torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, *states.values()))
        if not torch.compiler.is_compiling() and eager():
            first, values = self.states_in_order(states), self.scalars_in_order(scalars)
            if plain([*tensors, *first, cu_seqlens, reset]):
                options = self._options(reverse, record, values)
                key = self.key(tensors, first, cu_seqlens, reset, options)
                call = self.checked(key, tensors, first, cu_seqlens, reset, options)
                return self._direct(call, tensors, first, values, cu_seqlens, reset)
        results = ops.forward(
            self.name,
            tensors,
            ",".join(states),
            list(states.values()),
            ",".join(scalars),
            list(scalars.values()),
            cu_seqlens,
            reset,
            reverse,
            record,
        )
        count = len(self._output_names)
        return self._named(results[:count], results[count:-1])

    def step(
        self,
        *,
        state: Mapping[str, Tensor] | None = None,
        reset: Tensor | None = None,
        in_place: bool = False,
        **operands: Operand,
    ) -> tuple[Output, dict[str, Tensor]]:
        """One step: Input [B, H, *dims] and output [B, H, *dims], without a time axis; reset [B] bool.

        `in_place` updates the tensors of `state` and returns them (all states, float32 or float64 as the kernel
        keeps them, no gradient); otherwise they are left as they are and the step is differentiable.
        """
        direct = not torch.compiler.is_compiling() and eager()
        if direct:
            again = self._again(operands, state, None, reset, False, one_step=True, in_place=in_place)
            if again is not None:
                return again
        if self._elsewhere(operands):
            return self.on_gpu.step(state=state, reset=reset, in_place=in_place, **operands)
        inputs = {o.name for o in self.spec.of_kind("input")}
        longer = with_time(self.spec, operands)
        restart = dense_tensor(self.spec, "reset", reset).unsqueeze(1) if reset is not None else None
        tensors, scalars, states = sort_operands(self.spec, longer, state, self.check_facts)
        needs_gradient = torch.is_grad_enabled() and any(
            t.requires_grad for t in (*tensors, *states.values())
        )
        if in_place:
            check_in_place(self.spec, self.by_name(tensors), states, needs_gradient)
        first, values = self.states_in_order(states), self.scalars_in_order(scalars)
        if direct and not needs_gradient and self._has_compiler() and plain([*tensors, *first, reset]):
            options = self._options(False, False, values)._replace(one_step=True, in_place=in_place)
            without_time = [t.squeeze(1) if n in inputs else t for n, t in zip(self.tensor_names, tensors)]
            key = self.key(without_time, first, None, reset, options)
            call = self.checked(key, tensors, first, None, restart, options)
            return self._direct(call, tensors, first, values, None, restart)
        result, final = self._run(longer, state, None, restart, reverse=False)
        outputs = {"out": result} if isinstance(result, Tensor) else result
        outputs = {n: t.squeeze(1) for n, t in outputs.items()}
        if in_place:
            final = {n: states[n].copy_(t) for n, t in final.items()}
        return (outputs["out"] if self._single else outputs), final

    # -- operands

    def by_name(self, operands: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.tensor_names, operands, strict=True))

    def states_in_order(self, states: Mapping[str, Tensor]) -> list[Tensor | None]:
        return [states.get(n) for n in self.state_names]

    def scalars_in_order(self, scalars: Mapping[str, float]) -> list[float | None]:
        return [scalars.get(n) for n in self.scalar_names]

    # -- kinds of calls

    def _options(self, reverse: bool, record: bool, scalars: Sequence[float | None]) -> Options:
        given = tuple(v is not None for v in scalars)
        return Options(reverse, torch.get_num_threads(), record, False, False, given)

    def key(
        self,
        operands: Sequence[Tensor],
        first: Sequence[Tensor | None],
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        options: Options,
    ) -> Key:
        """What tells kinds of calls apart; of `cu_seqlens` the numbers too, because sequences are laid out by them."""
        if cu_seqlens is None:
            return options, signature([*operands, *first, reset])
        return options, signature([*operands, *first, reset, cu_seqlens]), tuple(cu_seqlens.tolist())

    def checked(
        self,
        key: Key,
        operands: Sequence[Tensor],
        first: Sequence[Tensor | None],
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        options: Options,
    ) -> CheckedCall:
        """The kind of call that `key` stands for.

        Raises:
            ArgumentError: it is new, and its tensors do not fit.
            BuildError: it is new, and the compiler of this machine fails.
        """
        call = self._calls.get(key)
        if call is None:
            states = {n: t for n, t in zip(self.state_names, first) if t is not None}
            arguments = check(self.spec, self.by_name(operands), states, cu_seqlens, reset)
            call = CheckedCall(self.executor, arguments, reset, options, plain([*operands, *first, cu_seqlens, reset]))
            self._calls.put(key, call)
        return call

    def _has_compiler(self) -> bool:
        if self._compiler is None:
            from rekern.backends.cpp import toolchain

            try:
                toolchain()
                self._compiler = True
            except BuildError as error:
                first, rest = str(error).split("\n", 1)
                warnings.warn(
                    f"{first}; {self.spec.name} runs as a torch loop, many times slower ({rest})",
                    stacklevel=3,
                )
                self._compiler = False
        return self._compiler

    # -- what was made

    @property
    def source(self) -> str:
        """The C++ of the forward pass (for the axis lengths of a middling size), as it is compiled."""
        return self.sources()["forward"]

    def sources(self, **sizes: int) -> dict[str, str]:
        """The C++ of every pass, for these axis lengths."""
        lengths = {axis: sizes.get(axis, 64) for axis in self.spec.axes}
        chosen = plan(self.executor.programs, Shape.of(lengths, 1, 1, 1, False), detect()).compiled
        names = dict.fromkeys(["forward", self.executor.recording_name, "backward"])
        return {n: self.executor.source(chosen, n).text for n in names}

    def export(self, path: str | os.PathLike[str], **options: Any) -> None:
        """`GpuKernel.export` for the first GPU of this machine. C++ is not exported.

        Raises:
            PlanError: this kernel is for the CPU.
            MachineError: there is no GPU here.
        """
        if not self._any_device:
            raise PlanError(
                f"{self.spec.name}: a file is exported for a GPU, and this kernel is for the CPU\n"
                'name a GPU, which need not be there: rekern.compile(spec, "h100_sxm").export(path)'
            )
        self.on_gpu.export(path, **options)

    def __repr__(self) -> str:
        return f"<rekern.Kernel {self.spec.name}({', '.join(self.tensor_names)}) for the CPU>"
