"""The operations of a program on intervals, many at a time.

In: for each operand an array of lower ends and one of upper ends (or a number), broadcast against each other.
Out: the same for the result: every value that the operation can have, and perhaps more. NaN is no bound.

Rounding to nearest is monotone, so the ends hold what an evaluation in float64 gives; where a library function
is not known to be monotone, the ends are moved outwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from rekern.solver.points import POINT_OPERATIONS, ROUNDING, Values, rest

Box = tuple[Values, Values]
Operation = Callable[..., Box]


def _hull(*corners: Values) -> Box:
    low = high = corners[0]
    for corner in corners[1:]:
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return low, high


def _outwards(box: Box) -> Box:
    low, high = box
    return low - np.abs(low) * ROUNDING, high + np.abs(high) * ROUNDING


def _mul(a: Box, b: Box) -> Box:
    if a[0] is a[1]:
        a, b = b, a
    if b[0] is b[1]:
        return _hull(np.multiply(a[0], b[0]), np.multiply(a[1], b[0]))
    return _hull(*(np.multiply(x, y) for x in a for y in b))


def _div(a: Box, b: Box) -> Box:
    if b[0] is b[1]:
        return _hull(np.divide(a[0], b[0]), np.divide(a[1], b[0]))
    low, high = _hull(*(np.divide(x, y) for x in a for y in b))
    around_zero = np.logical_and(np.less_equal(b[0], 0), np.greater_equal(b[1], 0))
    return np.where(around_zero, math.nan, low), np.where(around_zero, math.nan, high)


def _pow(a: Box, b: Box) -> Box:
    """Over a base >= 0 a power is monotone in each operand, so the corners bound it."""
    low, high = _outwards(_hull(*(np.power(x, y) for x in a for y in b)))
    square = np.logical_and(np.equal(b[0], 2), np.equal(b[1], 2))
    low = np.where(np.logical_and(square, np.greater_equal(a[1], 0)), 0.0, low)
    unknown = np.logical_and(np.less(a[0], 0), ~square)
    low, high = (np.where(np.less(a[0], 0), np.where(unknown, math.nan, end), end) for end in (low, high))
    return low, high


def _each(operation: str) -> Operation:
    apply = POINT_OPERATIONS[operation]
    return lambda a: (apply(a[0]), apply(a[1]))


def _mod(a: Box, b: Box) -> Box:
    """By a divisor > 0; what is smaller than its divisor stays, one divisor and one quotient keep the order."""
    clear = 1.0 - 2 * ROUNDING      # what is nearer to a multiple of the divisor has no rest
    left = rest(a[0], b[0]), np.mod(a[1], b[1])
    same = np.equal(b[0], b[1]) & np.equal(np.floor(a[0] / b[0]), np.floor(a[1] / b[1]))
    same = same & np.less(left[1] + 2 * ROUNDING * np.abs(a[1]), b[1])
    below = np.greater_equal(a[0], 0) & np.less(a[1], b[0] * clear)
    most = np.where(np.greater_equal(a[0], 0), np.minimum(a[1], b[1]), b[1])
    low = np.where(same, left[0], np.where(below, a[0], 0.0))
    high = np.where(same, left[1], most)
    unknown = np.less_equal(b[0], 0)
    return np.where(unknown, math.nan, low), np.where(unknown, math.nan, high)


def _abs(a: Box) -> Box:
    ends = np.abs(a[0]), np.abs(a[1])
    inside = np.logical_and(np.less_equal(a[0], 0), np.greater_equal(a[1], 0))
    return np.where(inside, 0.0, np.minimum(*ends)), np.maximum(*ends)


def _log(a: Box) -> Box:
    low, high = _outwards((np.log(a[0]), np.log(a[1])))
    return np.where(np.less_equal(a[0], 0), -math.inf, low), high


def _certain(yes: object, no: object) -> Box:
    return np.asarray(yes, dtype=np.float64), 1.0 - np.asarray(no, dtype=np.float64)


def _eq(a: Box, b: Box) -> Box:
    apart = np.logical_or(np.less(a[1], b[0]), np.less(b[1], a[0]))
    same = np.logical_and(np.equal(a[0], a[1]), np.logical_and(np.equal(b[0], b[1]), np.equal(a[0], b[0])))
    return _certain(same, apart)


def _select(condition: Box, then: Box, otherwise: Box) -> Box:
    yes, no = np.equal(condition[0], 1.0), np.equal(condition[1], 0.0)
    low, high = np.minimum(then[0], otherwise[0]), np.maximum(then[1], otherwise[1])
    return (
        np.where(yes, then[0], np.where(no, otherwise[0], low)),
        np.where(yes, then[1], np.where(no, otherwise[1], high)),
    )


BOX_OPERATIONS: dict[str, Operation] = {
    "add": lambda a, b: (np.add(a[0], b[0]), np.add(a[1], b[1])),
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "max": lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1])),
    "min": lambda a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1])),
    "ceiling": _each("ceiling"),
    "floor": _each("floor"),
    "ceiling_of_ratio": _each("ceiling_of_ratio"),
    "floor_of_ratio": _each("floor_of_ratio"),
    "mod": _mod,
    "abs": _abs,
    "exp": lambda a: _outwards((np.exp(a[0]), np.exp(a[1]))),
    "log": _log,
    "le": lambda a, b: _certain(np.less_equal(a[1], b[0]), np.greater(a[0], b[1])),
    "lt": lambda a, b: _certain(np.less(a[1], b[0]), np.greater_equal(a[0], b[1])),
    "eq": _eq,
    "not": lambda a: (1.0 - a[1], 1.0 - a[0]),
    "select": _select,
}

# Where all operands are known to be >= 0 (of a quotient: the divisor > 0): two corners instead of four.
BOX_OPERATIONS_ABOVE_ZERO: dict[str, Operation] = BOX_OPERATIONS | {
    "mul": lambda a, b: (np.multiply(a[0], b[0]), np.multiply(a[1], b[1])),
    "div": lambda a, b: (np.divide(a[0], b[1]), np.divide(a[1], b[0])),
    "abs": lambda a: a,
}


def apply(operation: str, above_zero: bool, operands: list[Box]) -> Box:
    """One operation; operands that are points give a point, whose two ends are the same object."""
    for low, high in operands:
        if low is not high:
            rules = BOX_OPERATIONS_ABOVE_ZERO if above_zero else BOX_OPERATIONS
            return rules[operation](*operands)
    value = POINT_OPERATIONS[operation](*[low for low, _ in operands])
    return value, value
