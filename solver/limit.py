"""What rules a choice out: a formula over variables with a bound, a unit and a reason.

In: a sympy formula and a bound. Out: a frozen `Limit`, which is checked when built and can be printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeAlias

import sympy

from rekern.solver.errors import SolverError
from rekern.solver.text import counted

Formula: TypeAlias = sympy.Expr | float


@dataclass(frozen=True, slots=True)
class Limit:
    """A formula that must not exceed a bound, or not fall below one.

    Args:
        expression: Over the symbols of the problem's variables; see `program.VOCABULARY` for what it may use.
            Evaluated in float64: a miss by rounding is none, and where only exact numbers can tell (a rest, an
            equality, a comparison, a ceiling), whole numbers beyond 2**48 are reported, never rounded.
        at_most: The bound; give this or `at_least`, not both.
        unit: What both sides count, for the reader.
        reason: Why the limit holds, for the reader.
        advice: What the user can change when it cannot be met, for the reader.
        at_least: The bound from below.

    Raises:
        SolverError: none or both of the bounds are given, or `expression` is not a formula.

    >>> rows = sympy.Symbol("rows", integer=True, positive=True)
    >>> print(Limit("registers", 4 * rows + 5, 32, "registers", reason="live in the K loop"))
    registers: 4*rows + 5 <= 32 registers (live in the K loop)
    """

    name: str
    expression: sympy.Expr
    at_most: float | None = None
    unit: str = ""
    reason: str = ""
    advice: str = ""
    at_least: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", formula(f"limit {self.name!r}", self.expression))
        if (self.at_most is None) == (self.at_least is None):
            raise SolverError(f"limit {self.name!r}: give one of at_most and at_least")
        field = "at_least" if self.at_most is None else "at_most"
        if not isinstance(self.bound, Real) or not math.isfinite(self.bound):
            raise SolverError(f"limit {self.name!r}: {field} = {self.bound!r}, expected a finite number")
        object.__setattr__(self, field, int(self.bound) if isinstance(self.bound, Integral) else float(self.bound))

    @classmethod
    def divides(
        cls, name: str, small: Formula, large: Formula, unit: str = "", reason: str = "", advice: str = ""
    ) -> Limit:
        """`small` divides `large` without a rest. What is used of the limit is the rest, of which 0 is allowed.

        >>> warps = sympy.Symbol("warps", integer=True, positive=True)
        >>> print(Limit.divides("whole_tiles", 16 * warps, 768, "columns"))
        whole_tiles: 16*warps divides 768 (columns)
        """
        small, large = formula(f"limit {name!r}", small), formula(f"limit {name!r}", large)
        return cls(name, sympy.Mod(large, small, evaluate=False), 0, unit, reason, advice)

    @classmethod
    def equal(
        cls, name: str, left: Formula, right: Formula, unit: str = "", reason: str = "", advice: str = ""
    ) -> Limit:
        """`left` is `right`. What is used of the limit is their distance, of which 0 is allowed.

        >>> warps, loops = sympy.symbols("warps loops", integer=True, positive=True)
        >>> print(Limit.equal("all_tiles", warps * loops, 12, "tiles"))
        all_tiles: loops*warps == 12 (tiles)
        """
        difference = formula(f"limit {name!r}", left) - formula(f"limit {name!r}", right)
        return cls(name, sympy.Abs(difference, evaluate=False), 0, unit, reason, advice)

    @property
    def relation(self) -> tuple[str, sympy.Expr, sympy.Expr] | None:
        """("divides", small, large) or ("==", left, right), if the limit says just that."""
        if self.at_most != 0:
            return None
        if isinstance(self.expression, sympy.Mod):
            large, small = self.expression.args
            return "divides", small, large
        if isinstance(self.expression, sympy.Abs):
            [difference] = self.expression.args
            taken = [term for term in difference.as_ordered_terms() if term.as_coeff_Mul()[0].is_negative]
            right = -sympy.Add(*taken)
            return "==", difference + right, right
        return None

    @property
    def bound(self) -> float:
        """`at_most` or `at_least`, whichever is given."""
        bound = self.at_most if self.at_most is not None else self.at_least
        assert bound is not None
        return bound

    @property
    def reads(self) -> frozenset[str]:
        """Names of the variables in the formula."""
        return frozenset(symbol.name for symbol in self.expression.free_symbols)

    def __str__(self) -> str:
        if self.relation is not None:
            verb, left, right = self.relation
            unit = f" ({self.unit})" if self.unit else ""
            text = f"{self.name}: {left} {verb} {right}{unit}"
        else:
            sense = "<=" if self.at_least is None else ">="
            text = f"{self.name}: {self.expression} {sense} {counted(self.bound, self.unit)}"
        return f"{text} ({self.reason})" if self.reason else text


def formula(where: str, value: object) -> sympy.Expr:
    """`value` as a formula; text is refused, because sympy would execute it."""
    if isinstance(value, sympy.Expr) and not value.has(sympy.nan, sympy.zoo):
        return value
    if isinstance(value, Real) and math.isfinite(value):
        return sympy.sympify(int(value) if isinstance(value, Integral) else float(value))
    raise SolverError(f"{where} is {value!r}, expected a sympy expression or a number")
