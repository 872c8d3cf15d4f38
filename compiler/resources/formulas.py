"""Arithmetic that takes whole numbers and sympy symbols alike, so that one rule serves a test and a solver.

In: numbers or formulas. Out: a number if all of them are numbers, else a formula.
"""

from __future__ import annotations

from typing import TypeAlias

import sympy

Size: TypeAlias = int | sympy.Expr
Truth: TypeAlias = bool | sympy.logic.boolalg.Boolean


def larger(a: Size, b: Size) -> Size:
    """The larger of two sizes.

    >>> larger(2, 3), larger(2, sympy.Symbol("x"))
    (3, Max(2, x))
    """
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return sympy.Max(a, b, evaluate=False)      # its simplifications take a second and find nothing


def smaller(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return sympy.Min(a, b, evaluate=False)


def ratio(a: Size, b: Size) -> Size:
    """How many times `b` goes into `a`. Both are powers of two: there is no rest, or the ratio is below 1.

    >>> ratio(64, 16), ratio(8, 16), ratio(sympy.Symbol("x"), 16)
    (4, 0, x/16)
    """
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return sympy.sympify(a) / b


def both(*conditions: Truth) -> Truth:
    """Whether all the conditions hold.

    >>> both(True, 2 < 3), both(True, sympy.Symbol("x") < 3)
    (True, x < 3)
    """
    if all(isinstance(c, bool) for c in conditions):
        return all(conditions)
    return sympy.And(*conditions)


def either(*conditions: Truth) -> Truth:
    """Whether one of the conditions holds."""
    if all(isinstance(c, bool) for c in conditions):
        return any(conditions)
    return sympy.Or(*conditions)


def choose(value: Size, condition: Truth, otherwise: Size) -> Size:
    """`value` where the condition holds.

    >>> choose(1, 2 < 3, 0), choose(1, sympy.Symbol("x") < 3, 0)
    (1, Piecewise((1, x < 3), (0, True)))
    """
    if isinstance(condition, bool):
        return value if condition else otherwise
    return sympy.Piecewise((value, condition), (otherwise, True))
