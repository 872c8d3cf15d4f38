"""Functions for limits and costs that stay as they are written.

In: formulas and numbers. Out: sympy expressions that sympy leaves alone, unless every argument is a number. `Min`,
`Max`, `ceiling`, `Piecewise` and comparisons are simplified with what sympy can deduce: that takes most of the time
of building a problem, and it is wrong at times (sympy 1.14 takes floor(2048/(w*(ceiling(4*q/w) + 40))) for at
least 32 whatever w and q are).
"""

from __future__ import annotations

import sympy
from sympy import Expr, Integer


def _numbers(*arguments: Expr) -> bool:
    return all(a.is_Number for a in arguments)


class Least(sympy.Function):
    """The smallest of its arguments.

    >>> rows = sympy.Symbol("rows", integer=True, positive=True)
    >>> Least(16, rows), Least(16, 8)
    (Least(16, rows), 8)
    """

    @classmethod
    def eval(cls, *arguments: Expr) -> Expr | None:
        return sympy.Min(*arguments) if _numbers(*arguments) else None


class Most(sympy.Function):
    """The largest of its arguments."""

    @classmethod
    def eval(cls, *arguments: Expr) -> Expr | None:
        return sympy.Max(*arguments) if _numbers(*arguments) else None


class RoundedUp(sympy.Function):
    """The least whole number that is not smaller."""

    @classmethod
    def eval(cls, number: Expr) -> Expr | None:
        return sympy.ceiling(number) if _numbers(number) else None


class RoundedDown(sympy.Function):
    """The largest whole number that is not larger."""

    @classmethod
    def eval(cls, number: Expr) -> Expr | None:
        return sympy.floor(number) if _numbers(number) else None


class AtMost(sympy.Function):
    """Whether the first argument is at most the second, 1 or 0: a condition for `When`."""

    @classmethod
    def eval(cls, left: Expr, right: Expr) -> Expr | None:
        return Integer(bool(left <= right)) if _numbers(left, right) else None


class When(sympy.Function):
    """The second argument where the first holds, the third elsewhere.

    >>> rows = sympy.Symbol("rows", integer=True, positive=True)
    >>> When(AtMost(rows, 16), 1, rows / 16), When(AtMost(20, 16), 1, rows)
    (When(AtMost(rows, 16), 1, rows/16), rows)
    """

    @classmethod
    def eval(cls, condition: Expr, then: Expr, otherwise: Expr) -> Expr | None:
        if _numbers(condition):
            return then if condition != 0 else otherwise
        return None
