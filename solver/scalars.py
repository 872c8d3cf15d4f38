"""The operations of a program on one number at a time, which numpy is slow at; the same to the last bit.

In: a program and a choice. Out: the value of each formula.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping

import numpy as np

from rekern.solver.points import POINT_OPERATIONS, ROUNDING, quiet
from rekern.solver.program import Program


def _snapped(value: float) -> float:
    whole = round(value)
    return float(whole) if abs(value - whole) <= ROUNDING * abs(whole) else value


def _rest(value: float, divisor: float) -> float:
    left = value % divisor
    return 0.0 if min(abs(left), abs(divisor - left)) <= ROUNDING * abs(value) else left


SCALAR_OPERATIONS: dict[str, Callable[..., float]] = {
    "add": operator.add,
    "mul": operator.mul,
    "div": operator.truediv,
    "max": max,
    "min": min,
    "ceiling": lambda a: float(math.ceil(_snapped(a))),
    "floor": lambda a: float(math.floor(_snapped(a))),
    "ceiling_of_ratio": lambda a: float(math.ceil(a)),
    "floor_of_ratio": lambda a: float(math.floor(a)),
    "mod": _rest,
    "abs": abs,
    "le": lambda a, b: float(a <= b),
    "lt": lambda a, b: float(a < b),
    "eq": lambda a, b: float(a == b),
    "not": lambda a: 1.0 - a,
    "select": lambda condition, then, otherwise: then if condition else otherwise,
}
"""`points.POINT_OPERATIONS` for one number; where libraries might round differently (powers, exp, log), numpy is
asked."""


def at_one(program: Program, values: Mapping[str, float]) -> list[float]:
    """Each formula of a program at one choice.

    >>> import sympy
    >>> from rekern.solver.program import compile_program
    >>> x = sympy.Symbol("x", integer=True, positive=True)
    >>> at_one(compile_program({x: "x"}, {"tiles": 4 * sympy.ceiling(x / 3)}), {"x": 7})
    [12.0]
    """
    results: list[float] = []
    try:
        with quiet():
            for step in program.steps:
                if step.operation == "constant":
                    results.append(step.value)
                elif step.operation == "variable":
                    results.append(float(values[step.name]))
                else:
                    apply = SCALAR_OPERATIONS.get(step.operation) or POINT_OPERATIONS[step.operation]
                    results.append(float(apply(*[results[i] for i in step.reads])))
    except (ZeroDivisionError, OverflowError, ValueError):     # numpy has inf and NaN for these
        at = program.at({name: np.float64(value) for name, value in values.items()})
        return [float(value) for value in at]
    return [results[i] for i in program.outputs]
