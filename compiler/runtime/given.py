"""What a caller passes by name, put in the order of the spec.

In: operands and states by name. Out: tensors, numbers and states that a kernel can read. Every fault is an
`ArgumentError` that quotes the operand and says what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rekern.errors import ArgumentError
from rekern.runtime.arguments import check_operand_facts, dense_tensor, in_double, named_operands
from rekern.spec import Recurrence

Operand = Tensor | float | None


def sort_operands(
    spec: Recurrence,
    operands: Mapping[str, Operand],
    state: Mapping[str, Tensor] | None,
    with_facts: bool,
    device: str = "cpu",
) -> tuple[list[Tensor], dict[str, float], dict[str, Tensor]]:
    """Inputs and parameters in order, the scalars and the states that are given.

    Args:
        with_facts: Compare the values with the facts that the spec declares.

    Raises:
        ArgumentError: something is missing, unknown, or not what a kernel can read.
    """
    named_operands(spec, operands)
    names = [o.name for o in spec.states]
    if state is not None and not isinstance(state, Mapping):
        raise ArgumentError(
            f"{spec.name}: state is a {type(state).__name__}, expected a dict of tensors by name: {', '.join(names)}"
        )
    for n in state or {}:
        if n not in names:
            raise ArgumentError(f"{spec.name} has no state {n!r}; it has {', '.join(names)}")
    wanted = [o.name for o in spec.of_kind("input", "param")]
    tensors = {n: dense_tensor(spec, f"operand {n!r}", operands[n], device) for n in wanted}
    if with_facts:
        check_facts(spec, tensors)
    given = {n: operands.get(n) for n in (o.name for o in spec.of_kind("scalar"))}
    scalars = {n: _number(spec, n, value) for n, value in given.items() if value is not None}
    first = {n: (state or {}).get(n) for n in names}
    states = {n: dense_tensor(spec, f"state {n!r}", t, device) for n, t in first.items() if t is not None}
    return list(tensors.values()), scalars, states


def _number(spec: Recurrence, name: str, value: Tensor | float) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ArgumentError(f"{spec.name}: scalar {name!r} has shape {list(value.shape)}, expected one number")
    if isinstance(value, Tensor) and value.requires_grad:
        raise ArgumentError(
            f"{spec.name}: scalar {name!r} gets no gradient; declare it as a Param to train it"
        )
    if not isinstance(value, Tensor | int | float):
        raise ArgumentError(f"{spec.name}: scalar {name!r} is {value!r}, expected a number")
    return float(value)


def check_facts(spec: Recurrence, tensors: Mapping[str, Tensor]) -> None:
    """Compare the values of operands with what the spec declares.

    Raises:
        ArgumentError: a value breaks a declared fact.
    """
    for name, tensor in tensors.items():
        check_operand_facts(spec, spec.operand(name), tensor)


def check_in_place(
    spec: Recurrence, tensors: Mapping[str, Tensor], states: Mapping[str, Tensor], gradient: bool
) -> None:
    """A step in place can write the states that it is given.

    Raises:
        ArgumentError: a gradient is asked for, a state is missing or of another dtype, or its rows share memory.
    """
    name = spec.name
    if gradient:
        raise ArgumentError(
            f"{name}: a step in place has no gradient; use torch.no_grad(), or in_place=False"
        )
    real = torch.float64 if in_double(spec, [*tensors.values(), *states.values()]) else torch.float32
    for o in spec.states:
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


def with_time(spec: Recurrence, operands: Mapping[str, Operand]) -> dict[str, Operand]:
    """The operands of a step with a time axis, one step long.

    Raises:
        ArgumentError: an input has another number of axes than [B, H, *dims].
    """
    found = dict(operands)
    for o in spec.of_kind("input"):
        value = operands.get(o.name)
        if isinstance(value, Tensor):
            if value.ndim != 2 + len(o.dims):
                raise ArgumentError(
                    f"{spec.name}: operand {o.name!r} of a step has shape {list(value.shape)}, "
                    f"expected [{', '.join(map(str, ('B', 'H', *o.dims)))}]"
                )
            found[o.name] = value.unsqueeze(1)
    return found


def refuse_transforms(name: str) -> None:
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
