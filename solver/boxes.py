"""The operations of a program on intervals.

In: closed intervals (low, high) that hold an operand. Out: one that holds every result, and perhaps more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rekern.solver.points import snapped

Box = tuple[float, float]
EVERYTHING: Box = (-math.inf, math.inf)
YES: Box = (1.0, 1.0)
NO: Box = (0.0, 0.0)
MAYBE: Box = (0.0, 1.0)


def _hull(*values: float) -> Box:
    return EVERYTHING if any(math.isnan(v) for v in values) else (min(values), max(values))


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _add(a: Box, b: Box) -> Box:
    low, high = a[0] + b[0], a[1] + b[1]
    return -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high


def _mul(a: Box, b: Box) -> Box:
    return _hull(*(_times(x, y) for x in a for y in b))


def _div(a: Box, b: Box) -> Box:
    return EVERYTHING if b[0] <= 0 <= b[1] else _hull(*(x / y for x in a for y in b))


def _power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf
    except ZeroDivisionError:
        return math.inf


def _pow(a: Box, b: Box) -> Box:
    """Over a base >= 0 a power is monotone in each operand, so the corners bound it."""
    if a[0] >= 0:
        return _hull(*(_power(x, y) for x in a for y in b))
    if b == (2.0, 2.0):
        low = 0.0 if a[1] >= 0 else a[1] ** 2
        return low, max(_power(a[0], 2), _power(a[1], 2))
    return EVERYTHING


def _whole(rounding: Callable[[float], int]) -> Callable[[Box], Box]:
    def apply(a: Box) -> Box:
        low, high = (v if math.isinf(v) else float(rounding(float(snapped(v)))) for v in a)
        return low, high

    return apply


def _mod(a: Box, b: Box) -> Box:
    if b[0] <= 0:
        return EVERYTHING
    if a[0] == a[1] and b[0] == b[1] and math.isfinite(a[0]):
        return (a[0] % b[0], a[0] % b[0])
    return (0.0, min(a[1], b[1])) if a[0] >= 0 else (0.0, b[1])


def _abs(a: Box) -> Box:
    high = max(abs(a[0]), abs(a[1]))
    return (0.0, high) if a[0] <= 0 <= a[1] else (min(abs(a[0]), abs(a[1])), high)


def _exp(a: Box) -> Box:
    low, high = (_power(math.e, v) if v < 709 else math.inf for v in a)
    return low, high


def _log(a: Box) -> Box:
    if a[1] <= 0:
        return EVERYTHING
    low = -math.inf if a[0] <= 0 else math.log(a[0]) if math.isfinite(a[0]) else math.inf
    return low, math.log(a[1]) if math.isfinite(a[1]) else math.inf


def _le(a: Box, b: Box) -> Box:
    return YES if a[1] <= b[0] else NO if a[0] > b[1] else MAYBE


def _lt(a: Box, b: Box) -> Box:
    return YES if a[1] < b[0] else NO if a[0] >= b[1] else MAYBE


def _eq(a: Box, b: Box) -> Box:
    if a[1] < b[0] or b[1] < a[0]:
        return NO
    return YES if a[0] == a[1] == b[0] == b[1] else MAYBE


def _select(condition: Box, then: Box, otherwise: Box) -> Box:
    if condition == YES:
        return then
    if condition == NO:
        return otherwise
    return _hull(*then, *otherwise)


BOX_OPERATIONS: dict[str, Callable[..., Box]] = {
    "add": _add,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "ceiling": _whole(math.ceil),
    "floor": _whole(math.floor),
    "mod": _mod,
    "abs": _abs,
    "exp": _exp,
    "log": _log,
    "le": _le,
    "lt": _lt,
    "eq": _eq,
    "not": lambda a: (1.0 - a[1], 1.0 - a[0]),
    "select": _select,
}
