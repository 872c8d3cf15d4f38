"""A formula over integer variables as constraints of CP-SAT, exactly.

In: the program of a formula. Out: its value as a quotient of two integer expressions, with their bounds.

A quotient is never rounded: sums and comparisons are brought to a common denominator. What cannot be said this
way (powers that are not whole, exp, log, a rest of what is not whole, numbers too large for exact arithmetic on
either side) raises `NotWhole`, and the caller lists the rows of a table instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from ortools.sat.python import cp_model

from rekern.solver.points import EXACT_BELOW
from rekern.solver.program import Program, Step

LARGEST = 1 << 60       # CP-SAT refuses what may overflow 64 bits


class NotWhole(Exception):
    """A formula that is not made of integer operations, or whose numbers are too large."""


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """An integer expression and bounds of it. Not compared: to CP-SAT an equality is a constraint."""

    expr: cp_model.LinearExpr
    low: int
    high: int

    @property
    def fixed(self) -> bool:
        """Whether it is a number."""
        return self.low == self.high

    @property
    def one(self) -> bool:
        """Whether it is 1."""
        return self.low == self.high == 1


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """`top` / `under`; `under` is above 0."""

    top: Whole
    under: Whole

    @property
    def whole(self) -> Whole:
        """The value, if the denominator is 1.

        Raises:
            NotWhole: it is not.
        """
        if not self.under.one:
            raise NotWhole
        return self.top


def number(value: int) -> Whole:
    """A constant."""
    return Whole(cp_model.LinearExpr.constant(value), value, value)


ONE = number(1)


class Translator:
    """Adds the constraints of formulas to a model; each step of a program becomes one `Ratio`."""

    def __init__(self, model: cp_model.CpModel, variables: Mapping[str, Whole]) -> None:
        self.model, self.variables = model, variables

    def formula(self, program: Program) -> Ratio:
        """The value of the program's only formula.

        Raises:
            NotWhole: it has no exact translation. What was added to the model is harmless.
        """
        results: list[Ratio] = []
        for step in program.steps:
            results.append(self._step(step, [results[i] for i in step.reads]))
        return results[program.outputs[0]]

    def _step(self, step: Step, given: list[Ratio]) -> Ratio:
        if step.operation == "constant":
            if not math.isfinite(step.value):
                raise NotWhole
            value = Fraction(step.value)
            return Ratio(number(value.numerator), number(value.denominator))
        if step.operation == "variable":
            return Ratio(self.variables[step.name], ONE)
        if step.operation not in OPERATIONS:
            raise NotWhole
        return OPERATIONS[step.operation](self, *given)

    # -- integer expressions ---------------------------------------------------------------------------------

    def new(self, low: int, high: int) -> Whole:
        """A new variable."""
        if max(abs(low), abs(high)) > LARGEST:
            raise NotWhole
        return Whole(self.model.new_int_var(low, high, ""), low, high)

    def plus(self, a: Whole, b: Whole) -> Whole:
        """a + b."""
        low, high = a.low + b.low, a.high + b.high
        if max(abs(low), abs(high)) > LARGEST:
            raise NotWhole
        return Whole(a.expr + b.expr, low, high)

    def times(self, a: Whole, b: Whole) -> Whole:
        """a * b; linear where one of them is a number."""
        corners = [x * y for x, y in product((a.low, a.high), (b.low, b.high))]
        if max(map(abs, corners)) > LARGEST:
            raise NotWhole
        if a.fixed or b.fixed:
            factor, rest = (a.low, b) if a.fixed else (b.low, a)
            return Whole(factor * rest.expr, min(corners), max(corners))
        found = self.new(min(corners), max(corners))
        self.model.add_multiplication_equality(found.expr, a.expr, b.expr)
        return found

    def floor_of(self, top: Whole, under: Whole) -> Whole:
        """The quotient rounded down, of numbers that are not negative."""
        if top.low < 0:
            raise NotWhole
        if under.one:
            return top
        found = self.new(top.low // under.high, top.high // under.low)
        self.model.add_division_equality(found.expr, top.expr, under.expr)
        return found

    def truth(self, left: Whole, right: Whole, holds: list[list[int]], fails: list[list[int]]) -> Ratio:
        """1 where left - right is in the intervals `holds`, 0 where it is in `fails`."""
        found = self.model.new_bool_var("")
        difference = left.expr - right.expr
        for intervals, literal in ((holds, found), (fails, ~found)):
            domain = cp_model.Domain.from_intervals(intervals)
            self.model.add_linear_expression_in_domain(difference, domain).only_enforce_if(literal)
        return Ratio(Whole(found, 0, 1), ONE)

    def chosen(self, condition: Whole, then: Whole, otherwise: Whole) -> Whole:
        """`then` where the condition is 1, `otherwise` where it is 0."""
        if condition.fixed:
            return then if condition.low else otherwise
        found = self.new(min(then.low, otherwise.low), max(then.high, otherwise.high))
        literal = self.model.new_bool_var("")
        self.model.add(condition.expr == literal)
        self.model.add(found.expr == then.expr).only_enforce_if(literal)
        self.model.add(found.expr == otherwise.expr).only_enforce_if(~literal)
        return found

    # -- quotients -------------------------------------------------------------------------------------------

    def common(self, a: Ratio, b: Ratio) -> tuple[Whole, Whole, Whole]:
        """Both numerators over a common denominator, and that."""
        if a.under is b.under:
            return a.top, b.top, a.under
        if a.under.fixed and b.under.fixed:
            under = math.lcm(a.under.low, b.under.low)
            left, right = (self.times(r.top, number(under // r.under.low)) for r in (a, b))
            return left, right, number(under)
        return self.times(a.top, b.under), self.times(b.top, a.under), self.times(a.under, b.under)


def _add(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    x, y, under = t.common(a, b)
    return Ratio(t.plus(x, y), under)


def _mul(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    return Ratio(t.times(a.top, b.top), t.times(a.under, b.under))


def _div(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    if b.top.low <= 0:
        raise NotWhole
    return Ratio(t.times(a.top, b.under), t.times(a.under, b.top))


def _pow(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    exponent = b.whole
    if not exponent.fixed or not 0 <= exponent.low <= 8:
        raise NotWhole
    found = Ratio(ONE, ONE)
    for _ in range(exponent.low):
        found = _mul(t, found, a)
    return found


def _max(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    x, y, under = t.common(a, b)
    found = t.new(max(x.low, y.low), max(x.high, y.high))
    t.model.add_max_equality(found.expr, x.expr, y.expr)
    return Ratio(found, under)


def _min(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    x, y, under = t.common(a, b)
    found = t.new(min(x.low, y.low), min(x.high, y.high))
    t.model.add_min_equality(found.expr, x.expr, y.expr)
    return Ratio(found, under)


def _exact(a: Ratio) -> Ratio:
    """A quotient whose rounding in float64 is the true one."""
    if a.top.high >= EXACT_BELOW or a.under.high >= EXACT_BELOW:
        raise NotWhole
    return a


def _floor(t: Translator, a: Ratio) -> Ratio:
    return Ratio(t.floor_of(_exact(a).top, a.under), ONE)


def _ceiling(t: Translator, a: Ratio) -> Ratio:
    if _exact(a).under.one:
        return a
    if a.top.low < 0:
        raise NotWhole
    raised = Whole(a.top.expr + a.under.expr - 1, a.top.low + a.under.low - 1, a.top.high + a.under.high - 1)
    return Ratio(t.floor_of(raised, a.under), ONE)


def _mod(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    x, y = a.whole, b.whole
    if x.low < 0 or y.low <= 0 or x.high >= EXACT_BELOW:
        raise NotWhole
    found = t.new(0, min(x.high, y.high - 1))
    t.model.add_modulo_equality(found.expr, x.expr, y.expr)
    return Ratio(found, ONE)


def _abs(t: Translator, a: Ratio) -> Ratio:
    found = t.new(0, max(abs(a.top.low), abs(a.top.high)))
    t.model.add_abs_equality(found.expr, a.top.expr)
    return Ratio(found, a.under)


def _le(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    x, y = a.whole, b.whole
    if x.high <= y.low or x.low > y.high:
        return Ratio(number(int(x.high <= y.low)), ONE)
    return t.truth(x, y, [[x.low - y.high, 0]], [[1, x.high - y.low]])


def _lt(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    return _not(t, _le(t, b, a))


def _eq(t: Translator, a: Ratio, b: Ratio) -> Ratio:
    x, y = a.whole, b.whole
    if x.high < y.low or x.low > y.high:
        return Ratio(number(0), ONE)
    if x.fixed and y.fixed:
        return Ratio(ONE, ONE)
    low, high = min(x.low - y.high, -1), max(x.high - y.low, 1)
    return t.truth(x, y, [[0, 0]], [[low, -1], [1, high]])


def _not(t: Translator, a: Ratio) -> Ratio:
    x = a.whole
    return Ratio(Whole(1 - x.expr, 1 - x.high, 1 - x.low), ONE)


def _select(t: Translator, condition: Ratio, then: Ratio, otherwise: Ratio) -> Ratio:
    x, y, under = t.common(then, otherwise)
    return Ratio(t.chosen(condition.whole, x, y), under)


OPERATIONS: dict[str, Callable[..., Ratio]] = {
    "add": _add,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "max": _max,
    "min": _min,
    "ceiling": _ceiling,
    "floor": _floor,
    "ceiling_of_ratio": _ceiling,
    "floor_of_ratio": _floor,
    "mod": _mod,
    "abs": _abs,
    "le": _le,
    "lt": _lt,
    "eq": _eq,
    "not": _not,
    "select": _select,
}
