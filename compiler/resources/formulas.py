"""Arithmetic that takes whole numbers and sympy symbols alike, so that one rule serves a test and a solver.

In: numbers or formulas. Out: a number if all of them are numbers, else a formula in the solver's functions, which
sympy leaves as they are.
"""

from __future__ import annotations

from typing import TypeAlias

import sympy

from rekern.solver.formulas import AtMost, Least, Most, When

Size: TypeAlias = int | sympy.Expr
Truth: TypeAlias = bool | sympy.Expr


def larger(a: Size, b: Size) -> Size:
    """The larger of two sizes.

    >>> larger(2, 3), larger(2, sympy.Symbol("x"))
    (3, Most(2, x))
    """
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else Most(a, b)


def smaller(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else Least(a, b)


def ratio(a: Size, b: Size) -> Size:
    """How many times `b` goes into `a`. Both are powers of two: there is no rest, or the ratio is below 1.

    >>> ratio(64, 16), ratio(8, 16), ratio(sympy.Symbol("x"), 16)
    (4, 0, x/16)
    """
    return a // b if isinstance(a, int) and isinstance(b, int) else sympy.sympify(a) / b


def reaches(a: Size, b: Size) -> Truth:
    """Whether `a` is at least `b`.

    >>> reaches(2, 3), reaches(sympy.Symbol("x"), 3)
    (False, AtMost(3, x))
    """
    return a >= b if isinstance(a, int) and isinstance(b, int) else AtMost(b, a)


def both(*conditions: Truth) -> Truth:
    """Whether all the conditions hold.

    >>> both(True, 2 < 3), both(True, reaches(sympy.Symbol("x"), 3))
    (True, AtMost(3, x))
    """
    if False in conditions:
        return False
    unknown = [c for c in conditions if not isinstance(c, bool)]
    return Least(*unknown) if len(unknown) > 1 else unknown[0] if unknown else True


def either(*conditions: Truth) -> Truth:
    """Whether one of the conditions holds."""
    if True in conditions:
        return True
    unknown = [c for c in conditions if not isinstance(c, bool)]
    return Most(*unknown) if len(unknown) > 1 else unknown[0] if unknown else False


def choose(value: Size, condition: Truth, otherwise: Size) -> Size:
    """`value` where the condition holds.

    >>> choose(1, 2 < 3, 0), choose(1, reaches(sympy.Symbol("x"), 3), 0)
    (1, When(AtMost(3, x), 1, 0))
    """
    if isinstance(condition, bool):
        return value if condition else otherwise
    return When(condition, value, otherwise)
