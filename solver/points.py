"""The operations of a program on numpy arrays of points.

In: float64 arrays, or numbers, broadcast against each other. Out: the same. Truth is 1.0 and 0.0.
Whole numbers below 2**53 are exact, and so is the rounding of a quotient of two below `EXACT_BELOW`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64] | float
ROUNDING = 8 * float(np.finfo(np.float64).eps)     # relative; what a few operations may add up to
EXACT_BELOW = 0.5 / ROUNDING       # 2**48: a quotient p / q with p below this is whole, or further away than ROUNDING


def quiet() -> np.errstate:
    """Division by zero and the like give inf and NaN; who asked for the value decides what that means."""
    return np.errstate(all="ignore")


def snapped(value: Values) -> Values:
    """`value`, or the whole number that it misses by rounding only: 1/3 + 2/3 has a ceiling of 1, not 2."""
    whole = np.rint(value)
    return np.where(np.abs(value - whole) <= ROUNDING * np.abs(whole), whole, value)


def rest(value: Values, divisor: Values) -> Values:
    """The rest of a division; none where it is only rounding: 5/3 goes into 15 nine times."""
    left = np.mod(value, divisor)
    none = np.minimum(np.abs(left), np.abs(divisor - left)) <= ROUNDING * np.abs(value)
    return np.where(none, 0.0, left)


def _select(condition: Values, then: Values, otherwise: Values) -> Values:
    return np.where(np.asarray(condition) != 0.0, then, otherwise)


def _truth(compare: Callable[..., object]) -> Callable[..., Values]:
    return lambda a, b: np.asarray(compare(a, b), dtype=np.float64)


POINT_OPERATIONS: dict[str, Callable[..., Values]] = {
    "add": np.add,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "ceiling": lambda a: np.ceil(snapped(a)),
    "floor": lambda a: np.floor(snapped(a)),
    "ceiling_of_ratio": np.ceil,
    "floor_of_ratio": np.floor,
    "mod": rest,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "le": _truth(np.less_equal),
    "lt": _truth(np.less),
    "eq": _truth(np.equal),
    "not": lambda a: 1.0 - a,
    "select": _select,
}
