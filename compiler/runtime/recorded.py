"""A call that is recorded for the gradient, in eager mode.

In: a checked call and its tensors. Out: outputs and last states, differentiable. It says to autograd what the operator
`rekern::forward` says, in a third of the time; where somebody watches or traces the way back, it takes the operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from rekern.runtime import ops
from rekern.runtime.calls import CheckedCall
from rekern.runtime.signature import eager, plain

if TYPE_CHECKING:
    from rekern.runtime.kernel import Kernel


class Recorded(torch.autograd.Function):
    """`Recorded.apply(kernel, call, scalars, cu_seqlens, reset, *operands, *first states)`."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Kernel,
        call: CheckedCall,
        scalars: Sequence[float | None],
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        count = len(kernel.tensor_names)
        operands = cast("Sequence[Tensor]", tensors[:count])  # only states may be left out
        outputs, last, saved = call.forward(operands, tensors[count:], scalars, reset)
        ctx.kernel, ctx.call, ctx.scalars = kernel, call, scalars
        ctx.save_for_backward(cu_seqlens, reset, saved, *tensors)
        ctx.set_materialize_grads(False)
        return *outputs, *last

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        cu_seqlens, reset, saved, *tensors = ctx.saved_tensors
        kernel, call, scalars = ctx.kernel, ctx.call, ctx.scalars
        count = len(kernel.tensor_names)
        operands, first = tensors[:count], tensors[count:]
        # With create_graph the result must refuse to be differentiated again: the operator does.
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling() and eager() and plain(cotangents):
            grads = call.backward(operands, first, scalars, reset, cotangents, saved)
        else:
            found = iter(
                ops.backward(
                    kernel.name,
                    operands,
                    ops.names_of(kernel.state_names, first),
                    [t for t in first if t is not None],
                    ops.names_of(kernel.scalar_names, scalars),
                    [v for v in scalars if v is not None],
                    cu_seqlens,
                    reset,
                    call.options.reverse,
                    list(cotangents),
                    saved,
                )
            )
            grads = [None if t is None else next(found) for t in tensors]
        return None, None, None, None, None, *grads
