"""The functions that a spec may call. Each works on the arrays of a step, on numbers, and on torch tensors
(so that a spec's body can be run by hand on one step of real data).

In: arrays. Out: arrays; broadcasting as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from rekern import ir
from rekern.functions import FUNCTIONS
from rekern.trace import Array, as_array, elementwise
from rekern.trace import outer as _outer
from rekern.trace import reduce as _reduce

Value = Array | float
Axis = int | tuple[int, ...]


def _call(name: str, *values: object) -> Array:
    like = next((v for v in values if isinstance(v, torch.Tensor)), None)
    if like is None:
        return elementwise(name, *map(as_array, values))
    tensors = [v if isinstance(v, torch.Tensor) else like.new_tensor(v) for v in values]
    return cast(Array, FUNCTIONS[name].torch(*tensors))


def _unary(name: str, meaning: str) -> Callable[[Value], Array]:
    def function(x: Value) -> Array:
        return _call(name, x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = meaning
    return function


exp = _unary("exp", "e to the power x.")
log = _unary("log", "Natural logarithm; -inf at 0, NaN below.")
log1p = _unary("log1p", "log(1 + x), accurate near 0.")
expm1 = _unary("expm1", "exp(x) - 1, accurate near 0.")
sqrt = _unary("sqrt", "Square root; NaN below 0.")
rsqrt = _unary("rsqrt", "1 / sqrt(x).")
abs = _unary("abs", "Absolute value; slope 0 at 0.")
sign = _unary("sign", "-1, 0 or 1; slope 0 everywhere.")
sin = _unary("sin", "Sine, radians.")
cos = _unary("cos", "Cosine, radians.")
erf = _unary("erf", "The error function.")
tanh = _unary("tanh", "Hyperbolic tangent.")
sigmoid = _unary("sigmoid", "1 / (1 + exp(-x)).")
log_sigmoid = _unary("log_sigmoid", "log(sigmoid(x)), finite for every finite x.")
softplus = _unary("softplus", "log(1 + exp(x)), exact for large x.")
relu = _unary("relu", "max(x, 0); slope 0 at 0.")
gelu = _unary("gelu", "x Phi(x), the exact form.")
silu = _unary("silu", "x sigmoid(x).")
square = _unary("square", "x * x.")


def maximum(a: Value, b: Value) -> Array:
    """The larger of the two, NaN if one is; ties share the gradient."""
    return _call("maximum", a, b)


def minimum(a: Value, b: Value) -> Array:
    """The smaller of the two, NaN if one is; ties share the gradient."""
    return _call("minimum", a, b)


def logaddexp(a: Value, b: Value) -> Array:
    """log(exp(a) + exp(b)) without overflow."""
    return _call("logaddexp", a, b)


def where(condition: Value, a: Value, b: Value) -> Array:
    """`a` where `condition` is not 0, `b` elsewhere."""
    return _call("where", condition, a, b)


def outer(a: Array, b: Array) -> Array:
    """`outer(a, b)[i, j] = a[i] * b[j]` for two vectors."""
    if isinstance(a, torch.Tensor):
        return cast(Array, torch.outer(a, cast(torch.Tensor, b)))
    return _outer(as_array(a), as_array(b))


def _axes(axis: Axis) -> tuple[int, ...]:
    return axis if isinstance(axis, tuple) else (axis,)


def sum(x: Array, axis: Axis = -1, keepdims: bool = False) -> Array:
    """Sum over one axis or several."""
    if isinstance(x, torch.Tensor):
        return cast(Array, x.sum(_axes(axis), keepdim=keepdims))
    return _reduce(as_array(x), "sum", _axes(axis), keepdims)


def max(x: Array, axis: Axis = -1, keepdims: bool = False) -> Array:
    """Largest value over one axis or several; ties share the gradient."""
    if isinstance(x, torch.Tensor):
        return cast(Array, x.amax(_axes(axis), keepdim=keepdims))
    return _reduce(as_array(x), "max", _axes(axis), keepdims)


def mean(x: Array, axis: Axis = -1, keepdims: bool = False) -> Array:
    """Mean over one axis or several."""
    if isinstance(x, torch.Tensor):
        return cast(Array, x.mean(_axes(axis), keepdim=keepdims))
    x = as_array(x)
    total = sum(x, axis, keepdims)
    count = ir.product(
        ir.number(d) if isinstance(d, int) else ir.size(d) for d in (x.dims[n] for n in _axes(axis))
    )
    return total / Array((), {(): count})
