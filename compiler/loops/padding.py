"""What the columns hold that only fill up a vector.

In: formulas, and what is known of the arrays that they read. Out: whether their values are 0 there. A row along
the lane is as long as whole vectors; operands are read with zeros behind their last number, and most formulas
keep zeros zero. Where that can be shown, a sum along the lane needs no mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from functools import cache

import torch

from rekern import ir
from rekern.functions import COMPARISONS, FUNCTIONS
from rekern.ir import Apply, Node, Number, Read, Reduce, Size


class Padding(IntEnum):
    """What is known of a value in the columns that hold no numbers."""

    ZERO = 0
    FINITE = 1  # or what the columns that hold numbers have as well
    ANYTHING = 2


KEEP = frozenset({"add", "sub", "neg", "abs", "sign", "square", "relu", "maximum", "minimum"})  # 0 of zeros


def initial(value: float) -> Padding:
    """What a state that begins as `value` holds: with a state of the caller's there are zeros."""
    if value == 0:
        return Padding.ZERO
    return Padding.FINITE if math.isfinite(value) else Padding.ANYTHING


def padding(root: Node, lane: str, known: Mapping[str, Padding]) -> Padding:
    """What `root` is in the padding of `lane`. `known` has the arrays by name; others hold anything.

    A value without the lane counts as finite: where it is not, the columns that hold numbers suffer as well.

    >>> from rekern.ir import Index, add, mul, number, read
    >>> v, k, w = (read(n, (), (Index(d),)) for n, d in (("v", "V"), ("k", "K"), ("w", "V")))
    >>> zero = {"v": Padding.ZERO}
    >>> [padding(x, "V", zero).name for x in (v, mul(k, v), add(v, number(1)), w)]
    ['ZERO', 'ZERO', 'FINITE', 'ANYTHING']
    """
    found: dict[Node, Padding] = {}
    for node in ir.walk([root]):
        found[node] = _padding(node, lane, known, found)
    return found[root]


def _padding(node: Node, lane: str, known: Mapping[str, Padding], found: Mapping[Node, Padding]) -> Padding:
    match node:
        case Number():
            return Padding.ZERO if node.value == 0 else Padding.FINITE
        case Size():
            return Padding.FINITE
        case _ if all(i.dim != lane for i in node.free):
            return Padding.FINITE
        case Read():
            return known.get(node.operand, Padding.ANYTHING)
        case Reduce():
            return found[node.body]
        case Apply():
            return _applied(node.function, node.arguments, lane, found)


def _applied(function: str, arguments: tuple[Node, ...], lane: str, found: Mapping[Node, Padding]) -> Padding:
    parts = [found[a] for a in arguments]
    worst = max(parts)
    if function == "mul":
        return Padding.ZERO if min(parts) == Padding.ZERO and worst <= Padding.FINITE else worst
    if function == "div":  # by a number of every column alike
        return parts[0] if all(i.dim != lane for i in arguments[1].free) else Padding.ANYTHING
    if function in KEEP:
        return worst
    if function == "where":
        return max(parts[1:])
    if function in COMPARISONS:
        return Padding.FINITE
    return _at_zero(function, len(parts)) if worst == Padding.ZERO else Padding.ANYTHING


@cache
def _at_zero(function: str, arity: int) -> Padding:
    value = float(FUNCTIONS[function].torch(*[torch.zeros(())] * arity))
    if value == 0:
        return Padding.ZERO
    return Padding.FINITE if math.isfinite(value) else Padding.ANYTHING
