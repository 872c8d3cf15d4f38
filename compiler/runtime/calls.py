"""Calls that are alike: what depends only on shapes, strides, dtypes and options is worked out once for all of them.

In: the first call of its kind, checked. Out: a `CheckedCall`, which takes the tensors of every such call. A kernel
remembers the kinds it has seen last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from rekern.runtime.arguments import Arguments
from rekern.runtime.backward import Backward
from rekern.runtime.execute import CpuExecutor
from rekern.runtime.heads import merged, merges, row_of_columns, row_of_heads
from rekern.runtime.signature import Key, Options, signature

MOST_KINDS = 64  # one with thousands of packed sequences takes some 100 KB
MOST_COTANGENTS = 8
Value = TypeVar("Value")


class Latest(Generic[Value]):
    """The values that were used last, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        found = self._values.get(key)
        if found is not None:
            with suppress(KeyError):    # another thread has just dropped it
                self._values.move_to_end(key)
        return found

    def put(self, key: Key, value: Value) -> None:
        self._values[key] = value
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def __len__(self) -> int:
        return len(self._values)


class CheckedCall:
    """One kind of call.

    plain: nothing of torch's dispatcher is needed to read its tensors.
    real: the precision of arithmetic and states.
    """

    def __init__(
        self, executor: CpuExecutor, arguments: Arguments, reset: Tensor | None, options: Options, plain: bool
    ) -> None:
        executor.start_unsolved(arguments, options)
        arguments = outlined(arguments)
        # Heads of an elementwise call that lie side by side are columns of one.
        self._heads = 0
        if not options.one_step and merges(executor.programs, arguments):
            self._heads, arguments = arguments.heads, merged(executor.programs, arguments)
        self.plain = plain
        self.options = options
        self._executor = executor
        self._arguments = arguments
        self._reset = None if reset is None else _outline(reset)
        self._segments = 1 if options.one_step else executor.segments(arguments, options.threads)
        self._defaults = executor.scalar_defaults(arguments, options)
        self._given = any(options.scalars)
        whole = self._segments == 1
        self._forward = executor.forward_loop(self._arguments, self._reset, options) if whole else None
        self.real = arguments.real
        self._views = self._forward is None or self._heads > 0 or self._forward.large
        self._backward: Latest[Backward] = Latest(MOST_COTANGENTS)

    def forward(
        self,
        operands: Sequence[Tensor],
        first: Sequence[Tensor | None],
        scalars: Sequence[float | None],
        reset: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Outputs, last states, and (if it records) what the gradient needs."""
        values = self._values(scalars)
        if self._forward is not None and not self._views:
            return self._forward(operands, first, values, reset)
        with torch._C._AutoDispatchBelowADInplaceOrView():  # results are no views in the eyes of autograd
            if self._heads:
                operands, first = [row_of_columns(t) for t in operands], [row_of_columns(t) for t in first]
            if self._forward is not None:
                outputs, last, saved = self._forward(operands, first, values, reset)
            else:
                outputs, last, saved = self._executor.cut_forward(
                    self._with(operands, first), self._segments, values, reset, self.options
                )
            if self._heads:
                outputs, last = ([row_of_heads(t, self._heads) for t in ts] for ts in (outputs, last))
        return outputs, last, saved

    def backward(
        self,
        operands: Sequence[Tensor],
        first: Sequence[Tensor | None],
        scalars: Sequence[float | None],
        reset: Tensor | None,
        cotangents: Sequence[Tensor | None],
        saved: Tensor,
    ) -> list[Tensor | None]:
        """Cotangents of the operands and of the first states that were given, from those of outputs and last states."""
        values = self._values(scalars)
        if self._heads:
            operands, first = [row_of_columns(t) for t in operands], [row_of_columns(t) for t in first]
            cotangents = [row_of_columns(t) for t in cotangents]
        count = len(self._executor.spec.step.output_dims)
        d_outputs, d_last = cotangents[:count], cotangents[count:]
        if self._segments == 1:
            key = signature(cotangents)
            loop = self._backward.get(key)
            if loop is None:
                loop = self._executor.backward_loop(self._arguments, self._reset, self.options, d_outputs, d_last)
                self._backward.put(key, loop)
            grads, d_first = loop(operands, values, reset, d_outputs, d_last, saved)
        else:
            grads, d_first = self._executor.cut_backward(
                self._with(operands, first), self._segments, values, reset, self.options, d_outputs, d_last, saved
            )
        found = [*grads, *(None if g is None else d for g, d in zip(first, d_first))]
        return [row_of_heads(t, self._heads) for t in found] if self._heads else found

    def _values(self, scalars: Sequence[float | None]) -> Sequence[float]:
        if not self._given:
            return self._defaults
        return [d if v is None else v for v, d in zip(scalars, self._defaults)]

    def _with(self, operands: Sequence[Tensor], first: Sequence[Tensor | None]) -> Arguments:
        states = zip((o.name for o in self._executor.spec.states), first)
        return replace(
            self._arguments,
            tensors=dict(zip(self._arguments.tensors, operands)),
            state={n: t for n, t in states if t is not None},
        )


def outlined(arguments: Arguments) -> Arguments:
    """The same without the numbers: a kind of call keeps no tensor of a caller alive."""
    return replace(
        arguments,
        tensors={n: _outline(t) for n, t in arguments.tensors.items()},
        state={n: _outline(t) for n, t in arguments.state.items()},
    )


def _outline(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
