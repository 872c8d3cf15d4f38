"""`Kernel`: a compiled recurrence, called like a function of tensors.

In: operands by name. Out: outputs and final states, differentiable by autograd.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rekern.errors import ArgumentError, BuildError
from rekern.hwmodels import detect
from rekern.reference import reference
from rekern.runtime import ops
from rekern.runtime.arguments import check, check_operand_facts, dense_tensor, named_operands
from rekern.runtime.execute import CpuExecutor, Request
from rekern.schedules.cpu.choose import plan
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import programs
from rekern.spec import Recurrence

Output = Tensor | dict[str, Tensor]
Operand = Tensor | float | None


class Kernel:
    """A recurrence compiled for a target.

    Nothing is built before it is needed; lengths of axes, batch and time are free, and new ones build nothing
    new unless a register tile depends on them.
    """

    def __init__(self, spec: Recurrence, check_facts: bool = False) -> None:
        self.spec = spec
        self.check_facts = check_facts
        self.executor = CpuExecutor(programs(spec))
        self.tensor_names = tuple(o.name for o in spec.of_kind("input", "param"))
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
        for what, given_tensor in (("cu_seqlens", cu_seqlens), ("reset", reset)):
            if given_tensor is not None:
                dense_tensor(self.spec, what, given_tensor)
        _refuse_transforms(self.spec.name)
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
        names = list(self.spec.step.output_dims)
        outputs = dict(zip(names, results, strict=False))
        final = dict(zip((o.name for o in self.spec.states), results[len(names) :], strict=False))
        return (outputs["out"] if self.spec.step.single_output else outputs), final

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
        inputs = {o.name for o in self.spec.of_kind("input")}
        for name, value in operands.items():
            if name in inputs and isinstance(value, Tensor):
                expected = 2 + len(self.spec.operand(name).dims)
                if value.ndim != expected:
                    dims = ", ".join(map(str, ("B", "H", *self.spec.operand(name).dims)))
                    raise ArgumentError(
                        f"{self.spec.name}: operand {name!r} of a step has shape {list(value.shape)}, expected [{dims}]"
                    )
        longer = {
            n: v.unsqueeze(1) if n in inputs and isinstance(v, Tensor) else v for n, v in operands.items()
        }
        restart = dense_tensor(self.spec, "reset", reset).unsqueeze(1) if reset is not None else None
        tensors, scalars, states = self._sorted(longer, state)
        needs_gradient = torch.is_grad_enabled() and any(
            t.requires_grad for t in (*tensors, *states.values())
        )
        if in_place:
            self._check_in_place(tensors, states, needs_gradient)
        if needs_gradient or not self._has_compiler():
            result, final = self._run(longer, state, None, restart, reverse=False)
            outputs = {"out": result} if isinstance(result, Tensor) else result
        else:
            arguments = check(self.spec, self.by_name(tensors), states, None, restart)
            request = Request(scalars, restart, reverse=False, threads=torch.get_num_threads())
            outputs, final, _ = self.executor.forward(
                arguments, request, record=False, one_step=True, in_place=in_place
            )
        outputs = {n: t.squeeze(1) for n, t in outputs.items()}
        return (outputs["out"] if self.spec.step.single_output else outputs), final

    def _check_in_place(
        self, tensors: Sequence[Tensor], states: Mapping[str, Tensor], gradient: bool
    ) -> None:
        name = self.spec.name
        if gradient:
            raise ArgumentError(
                f"{name}: a step in place has no gradient; use torch.no_grad(), or in_place=False"
            )
        real = check(self.spec, self.by_name(tensors), states).real
        for o in self.spec.states:
            found = states[o.name].dtype if o.name in states else "missing"
            if found != real:
                raise ArgumentError(
                    f"{name}: a step in place needs every state in {real}; {o.name!r} is {found}\n"
                    f"pass the states that the kernel returned"
                )
            if any(n > 1 and s == 0 for n, s in zip(states[o.name].shape, states[o.name].stride())):
                raise ArgumentError(
                    f"{name}: a step in place cannot write state {o.name!r}, whose rows share memory; "
                    f"pass a copy: state={{{o.name!r}: {o.name}.clone(), ...}}"
                )

    # -- operands

    def by_name(self, operands: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.tensor_names, operands, strict=True))

    def states_by_name(self, names: str, states: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(filter(None, names.split(",")), states, strict=True))

    def _sorted(
        self, operands: Mapping[str, Operand], state: Mapping[str, Tensor] | None
    ) -> tuple[list[Tensor], dict[str, float], dict[str, Tensor]]:
        named_operands(self.spec, operands)
        names = {o.name for o in self.spec.states}
        if state is not None and not isinstance(state, Mapping):
            raise ArgumentError(
                f"{self.spec.name}: state is a {type(state).__name__}, expected a dict of tensors by name: "
                f"{', '.join(names)}"
            )
        for n in state or {}:
            if n not in names:
                raise ArgumentError(
                    f"{self.spec.name} has no state {n!r}; it has {', '.join(o.name for o in self.spec.states)}"
                )
        tensors: list[Tensor] = []
        for n in self.tensor_names:
            tensor = dense_tensor(self.spec, f"operand {n!r}", operands[n])
            if self.check_facts:
                check_operand_facts(self.spec, self.spec.operand(n), tensor)
            tensors.append(tensor)
        scalars = {}
        for o in self.spec.of_kind("scalar"):
            value = operands.get(o.name)
            if value is None:
                continue
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ArgumentError(
                    f"{self.spec.name}: scalar {o.name!r} has shape {list(value.shape)}, expected one number"
                )
            if isinstance(value, Tensor) and value.requires_grad:
                raise ArgumentError(
                    f"{self.spec.name}: scalar {o.name!r} gets no gradient; declare it as a Param to train it"
                )
            if not isinstance(value, Tensor | int | float):
                raise ArgumentError(f"{self.spec.name}: scalar {o.name!r} is {value!r}, expected a number")
            scalars[o.name] = float(value)
        given = {o.name: (state or {}).get(o.name) for o in self.spec.states}
        states = {n: dense_tensor(self.spec, f"state {n!r}", t) for n, t in given.items() if t is not None}
        return tensors, scalars, states

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

    def __repr__(self) -> str:
        return f"<rekern.Kernel {self.spec.name}({', '.join(self.tensor_names)}) for the CPU>"


def _refuse_transforms(name: str) -> None:
    """torch.func would drop tangents and batch axes silently.

    Raises:
        ArgumentError: the call is inside torch.func.grad, jvp, vmap or a relative of these.
    """
    if torch.compiler.is_compiling():
        return
    dual = torch.autograd.forward_ad._current_level >= 0
    if dual or torch._C._functorch.peek_interpreter_stack() is not None:
        raise ArgumentError(
            f"{name}: a kernel has no forward-mode derivative and no rule for torch.func transforms\n"
            f"use backward() or torch.autograd.grad; for the rest, rekern.reference is plain torch"
        )
