"""Functions for limits and costs that stay as they are written.

In: formulas and numbers. Out: sympy expressions that sympy leaves alone. `Min`, `Max`, `Piecewise` and
comparisons are simplified with what sympy can deduce: that takes most of the time of building a problem, and it is
wrong at times (sympy 1.14 takes floor(2048/(w*(ceiling(4*q/w) + 40))) for at least 32 whatever w and q are).
"""

from __future__ import annotations

import sympy


class Least(sympy.Function):
    """The smallest of its arguments.

    >>> rows = sympy.Symbol("rows", integer=True, positive=True)
    >>> Least(16, rows)
    Least(16, rows)
    """


class Most(sympy.Function):
    """The largest of its arguments."""


class AtMost(sympy.Function):
    """Whether the first argument is at most the second: a condition for `When`."""

    nargs = 2


class When(sympy.Function):
    """The second argument where the first holds, the third elsewhere.

    >>> rows = sympy.Symbol("rows", integer=True, positive=True)
    >>> When(AtMost(rows, 16), 1, rows / 16)
    When(AtMost(rows, 16), 1, rows/16)
    """

    nargs = 3
