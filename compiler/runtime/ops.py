"""The torch operators `rekern::forward` and `rekern::backward`.

In: the name of a live kernel and its tensors as lists. Out: tensors. There are two operators for all kernels, so
torch.compile sees one node a call; shapes for tracing come from the spec. Gradients are exact and go to every
input, parameter and first state; a second derivative raises.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from rekern.errors import DoubleBackwardError
from rekern.runtime.signature import Options, in_memory

if TYPE_CHECKING:
    from rekern.runtime.kernel import Kernel

T = TypeVar("T")
KERNELS: weakref.WeakValueDictionary[str, Kernel] = weakref.WeakValueDictionary()


def names_of(names: Iterable[str], values: Iterable[object]) -> str:
    """The names of the values that are given, as operators take them."""
    return ",".join(n for n, v in zip(names, values, strict=True) if v is not None)


def _by_name(names: str, values: Sequence[T]) -> dict[str, T]:
    return dict(zip(filter(None, names.split(",")), values, strict=True))


def _run_forward(
    kernel: str,
    operands: Sequence[Tensor],
    state_names: str,
    states: Sequence[Tensor],
    scalar_names: str,
    scalars: Sequence[float],
    cu_seqlens: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    record: bool,
) -> list[Tensor]:
    """Outputs, final states, saved values."""
    k = KERNELS[kernel]
    values = k.scalars_in_order(_by_name(scalar_names, scalars))
    first = k.states_in_order(_by_name(state_names, states))
    options = Options(reverse, torch.get_num_threads(), record, False, False, tuple(v is not None for v in values))
    call = k.checked(k.key(operands, first, cu_seqlens, reset, options), operands, first, cu_seqlens, reset, options)
    outputs, last, saved = call.forward(operands, first, values, reset)
    return [*outputs, *last, torch.empty(0, dtype=call.real, device="cpu") if saved is None else saved]


def _run_backward(
    kernel: str,
    operands: Sequence[Tensor],
    state_names: str,
    states: Sequence[Tensor],
    scalar_names: str,
    scalars: Sequence[float],
    cu_seqlens: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    cotangents: Sequence[Tensor | None],
    saved: Tensor,
) -> list[Tensor]:
    """Cotangents of the operands, then of the first states that were given."""
    k = KERNELS[kernel]
    values = k.scalars_in_order(_by_name(scalar_names, scalars))
    first = k.states_in_order(_by_name(state_names, states))
    # Sizes follow from the threads that the forward pass had.
    options = Options(reverse, int(saved[-1]), True, False, False, tuple(v is not None for v in values))
    call = k.checked(k.key(operands, first, cu_seqlens, reset, options), operands, first, cu_seqlens, reset, options)
    given = [None if c is None else in_memory(c) for c in cotangents]
    grads = call.backward(operands, first, values, reset, given, saved)
    return [g for g in grads if g is not None]


def _shape_forward(
    kernel: str,
    operands: Sequence[Tensor],
    state_names: str,
    states: Sequence[Tensor],
    scalar_names: str,
    scalars: Sequence[float],
    cu_seqlens: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    record: bool,
) -> list[Tensor]:
    k = KERNELS[kernel]
    tensors = dict(zip(k.tensor_names, operands, strict=True))
    sizes: dict[str, int] = {}
    for o in k.spec.of_kind("input", "param"):
        sizes.update(
            {
                d: n
                for d, n in zip(o.dims, tensors[o.name].shape[-len(o.dims) :], strict=False)
                if isinstance(d, str)
            }
        )
    first = tensors[k.spec.of_kind("input")[0].name]
    heads = max(t.shape[2 if k.spec.operand(n).kind == "input" else 0] for n, t in tensors.items())
    count = first.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    real = torch.float64 if any(t.dtype == torch.float64 for t in (*operands, *states)) else torch.float32

    def shape(dims: Sequence[int | str]) -> list[int]:
        return [d if isinstance(d, int) else sizes[d] for d in dims]

    outputs = [
        first.new_empty([first.shape[0], first.shape[1], heads, *shape(d)])
        for d in k.spec.step.output_dims.values()
    ]
    last = [first.new_empty([count, heads, *shape(o.dims)], dtype=real) for o in k.spec.states]
    length = torch.library.get_ctx().new_dynamic_size() if record else 0
    return [*outputs, *last, first.new_empty([length], dtype=real)]


def _shape_backward(
    kernel: str,
    operands: Sequence[Tensor],
    state_names: str,
    states: Sequence[Tensor],
    scalar_names: str,
    scalars: Sequence[float],
    cu_seqlens: Tensor | None,
    reset: Tensor | None,
    reverse: bool,
    cotangents: Sequence[Tensor | None],
    saved: Tensor,
) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (*operands, *states)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    kernel, operands, state_names, states, scalar_names, scalars, cu_seqlens, reset, reverse, _ = inputs
    ctx.options = (kernel, len(operands), state_names, len(states), scalar_names, scalars, reverse)
    ctx.set_materialize_grads(False)  # zeros for `saved`, which nobody differentiates, would be as large as it is
    ctx.save_for_backward(*operands, *states, cu_seqlens, reset, output[-1])


def _differentiate(ctx: Any, cotangents: list[Tensor | None]) -> tuple[Any, ...]:
    kernel, operand_count, state_names, state_count, scalar_names, scalars, reverse = ctx.options
    *tensors, cu_seqlens, reset, saved = ctx.saved_tensors
    operands, states = tensors[:operand_count], tensors[operand_count : operand_count + state_count]
    grads = backward(
        kernel,
        operands,
        state_names,
        states,
        scalar_names,
        scalars,
        cu_seqlens,
        reset,
        reverse,
        list(cotangents[:-1]),
        saved,
    )
    nothing = [None] * len(scalars)
    return None, grads[:operand_count], None, grads[operand_count:], None, nothing, None, None, None, None


def _refuse(ctx: Any, *cotangents: object) -> None:
    raise DoubleBackwardError(
        "the gradient of a rekern kernel is not differentiable again\n"
        "leave out create_graph=True, or take second derivatives through rekern.reference"
    )


# Defined by schema: torch.library.custom_op imports all of torch.compile at its first call, a second of every
# process that only wants to run a kernel.
CALL = (
    "str kernel, Tensor[] operands, str state_names, Tensor[] states, str scalar_names, float[] scalars, "
    "Tensor? cu_seqlens, Tensor? reset, bool reverse"
)
LIBRARY = torch.library.Library("rekern", "DEF")
LIBRARY.define(f"forward({CALL}, bool record) -> Tensor[]")
LIBRARY.define(f"backward({CALL}, Tensor?[] cotangents, Tensor saved) -> Tensor[]")
LIBRARY.impl("forward", _run_forward, "CPU")
LIBRARY.impl("backward", _run_backward, "CPU")
torch.library.register_fake("rekern::forward", _shape_forward, lib=LIBRARY)
torch.library.register_fake("rekern::backward", _shape_backward, lib=LIBRARY)
torch.library.register_autograd("rekern::forward", _differentiate, setup_context=_keep, lib=LIBRARY)
torch.library.register_autograd(
    "rekern::backward", _refuse, setup_context=lambda ctx, inputs, output: None, lib=LIBRARY
)
forward = torch.ops.rekern.forward.default
backward = torch.ops.rekern.backward.default
