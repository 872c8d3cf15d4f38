"""Small random problems for the solver, and their solutions in exact arithmetic, by trying everything."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

import sympy
from hypothesis import strategies as st

from rekern.solver import Limit, Problem, Variable

Point = tuple[int, ...]
Exact = Callable[[Point], Fraction]


@dataclass(frozen=True)
class Formula:
    """The same formula twice: for the solver, and in exact arithmetic. `whole`: its values are."""

    expr: sympy.Expr
    exact: Exact
    whole: bool


@dataclass(frozen=True)
class Case:
    """A small problem, and what is needed to solve it by hand."""

    problem: Problem
    uses: tuple[Exact, ...]
    cost: Exact

    def points(self) -> list[Point]:
        """All of them, in the order of preference."""
        return list(itertools.product(*(v.values() for v in self.problem.variables)))

    def meets(self, point: Point, limits: Iterable[int]) -> bool:
        """Whether the limits at these places hold."""
        pairs = ((self.problem.limits[i], self.uses[i](point)) for i in limits)
        return all(use <= limit.bound if limit.at_least is None else use >= limit.bound for limit, use in pairs)

    def feasible(self) -> list[Point]:
        """The points that meet all limits, in the order of preference."""
        return [p for p in self.points() if self.meets(p, range(len(self.uses)))]

    def best(self) -> list[Point]:
        """The same, the cheapest first."""
        return sorted(self.feasible(), key=self.cost)

    def with_limits(self, limits: Iterable[Limit]) -> "Case":
        """The same formulas under other bounds."""
        p = self.problem
        return replace(self, problem=Problem(p.name, p.variables, limits, p.cost))


def _ratio(a: Fraction, b: Fraction) -> Fraction:
    return a / b


Build = Callable[[sympy.Expr, sympy.Expr], sympy.Expr]
Apply = Callable[[Fraction, Fraction], Fraction]

# Positive wherever both operands are. A rest and a comparison need exact numbers, so their operands are whole.
OF_ANY: tuple[tuple[Build, Apply, bool], ...] = (
    (lambda a, b: a + b, lambda a, b: a + b, True),
    (lambda a, b: a * b, lambda a, b: a * b, True),
    (sympy.Max, max, True),
    (sympy.Min, min, True),
    (lambda a, b: a / b, _ratio, False),
    (lambda a, b: sympy.ceiling(a / b), lambda a, b: Fraction(math.ceil(a / b)), True),
    (lambda a, b: sympy.floor(a / b) + 1, lambda a, b: Fraction(math.floor(a / b) + 1), True),
    (lambda a, b: a / 4 + 3 * b / 8, lambda a, b: a / 4 + 3 * b / 8, False),
)
OF_WHOLE: tuple[tuple[Build, Apply, bool], ...] = (
    (lambda a, b: sympy.Mod(a, b) + 1, lambda a, b: a % b + 1, True),
    (lambda a, b: sympy.Abs(a - b) + 1, lambda a, b: abs(a - b) + 1, True),
    (lambda a, b: sympy.Piecewise((a, a < b), (b + 1, True)), lambda a, b: a if a < b else b + 1, True),
    (lambda a, b: sympy.Piecewise((a, sympy.Eq(a, b)), (a * b, True)), lambda a, b: a if a == b else a * b, True),
    (
        lambda a, b: sympy.Piecewise((a, sympy.Or(a <= 3, sympy.Ne(a, b))), (2 * b, True)),
        lambda a, b: a if a <= 3 or a != b else 2 * b,
        True,
    ),
    (
        lambda a, b: sympy.Piecewise((2, sympy.And(a >= b, a > 2)), (3, True)),
        lambda a, b: Fraction(2 if a >= b and a > 2 else 3),
        True,
    ),
)


@st.composite
def formulas(draw: st.DrawFn, symbols: list[sympy.Symbol], depth: int = 2, of_whole: bool = True) -> Formula:
    """Positive everywhere, so that every operation is defined.

    Args:
        of_whole: Rests and comparisons are of whole numbers only. Quotients compare as exact fractions here; other
            back ends scale them to whole numbers and may not.
    """
    if depth == 0 or draw(st.booleans()):
        if draw(st.integers(0, 3)) == 0:
            constant = draw(st.integers(1, 49))
            return Formula(sympy.Integer(constant), lambda _: Fraction(constant), True)
        axis = draw(st.integers(0, len(symbols) - 1))
        return Formula(symbols[axis], lambda p: Fraction(p[axis]), True)
    a, b = (draw(formulas(symbols, depth - 1, of_whole)) for _ in range(2))
    every = (a.whole and b.whole) or not of_whole
    build, exact, whole = draw(st.sampled_from(OF_ANY + OF_WHOLE if every else OF_ANY))
    return Formula(build(a.expr, b.expr), lambda p: exact(a.exact(p), b.exact(p)), whole and a.whole and b.whole)


@st.composite
def variables(draw: st.DrawFn, name: str) -> Variable:
    low = draw(st.integers(1, 6))
    high = low + draw(st.integers(3, 9))
    kinds = (
        Variable(name, low, high),
        Variable(name, low, high, multiple_of=draw(st.integers(2, 3))),
        Variable(name, 1, high, divides=draw(st.sampled_from((12, 16, 30)))),
        Variable(name, 1, high, powers_of_two=True),
        Variable.one_of(name, draw(st.permutations((1, 3, 4, 9)))),
    )
    return draw(st.sampled_from(kinds))


@st.composite
def limits(
    draw: st.DrawFn, name: str, symbols: list[sympy.Symbol], tightest: int, of_whole: bool = True
) -> tuple[Limit, Exact]:
    """A limit, and what it uses."""
    a = draw(formulas(symbols, of_whole=of_whole))
    kind = draw(st.sampled_from(("at_most", "at_most", "at_most", "at_least", "difference", "divides", "equal")))
    if kind in ("divides", "equal", "difference"):
        b = draw(formulas(symbols, of_whole=of_whole))
        if kind == "difference":
            return Limit(name, a.expr - b.expr, 0, "units"), lambda p: a.exact(p) - b.exact(p)
        if a.whole and b.whole:
            if kind == "equal":
                return Limit.equal(name, a.expr, b.expr, "units"), lambda p: abs(a.exact(p) - b.exact(p))
            return Limit.divides(name, a.expr, b.expr, "units"), lambda p: b.exact(p) % a.exact(p)
    bound = draw(st.integers(1, tightest))
    bounds = {"at_least": bound} if kind == "at_least" else {"at_most": bound}
    return Limit(name, a.expr, unit="units", **bounds), a.exact


@st.composite
def small_problems(draw: st.DrawFn, tightest: int = 40, most: int = 3, of_whole: bool = True) -> Case:
    """At most `most` variables; a small `tightest` makes many of them infeasible."""
    domains = [draw(variables(name)) for name in "xyzw"[: draw(st.integers(1, most))]]
    symbols = [v.symbol for v in domains]
    pairs = [draw(limits(f"limit{i}", symbols, tightest, of_whole)) for i in range(draw(st.integers(0, 4)))]
    terms = [draw(formulas(symbols, of_whole=of_whole)) for _ in range(draw(st.integers(1, 2)))]
    return _case(domains, pairs, terms)


@st.composite
def problems_in_parts(draw: st.DrawFn) -> Case:
    """Two or three pairs of variables that share one, in any order."""
    shared = Variable("s", 1, 3)
    parts = [[draw(_few_values(name)) for name in pair] for pair in ("ab", "cd", "ef")[: draw(st.integers(2, 3))]]
    domains = draw(st.permutations([shared, *itertools.chain(*parts)]))
    symbols = [v.symbol for v in domains]
    pairs, terms = [], []
    for part in parts:
        own = [shared.symbol, *(v.symbol for v in part)]
        # The formulas of a part read its own variables; the point that they are given holds all of them.
        for i in range(draw(st.integers(0, 2))):
            limit, use = draw(limits(f"limit_{part[0].name}{i}", own, 40, False))
            pairs.append((limit, _within(use, own, symbols)))
        term = draw(formulas(own, of_whole=False))
        terms.append(replace(term, exact=_within(term.exact, own, symbols)))
    return _case(domains, pairs, terms)


@st.composite
def _few_values(draw: st.DrawFn, name: str) -> Variable:
    low = draw(st.integers(1, 3))
    kinds = (Variable(name, low, low + 3), Variable.one_of(name, draw(st.permutations((1, 2, 5)))))
    return draw(st.sampled_from(kinds))


def _within(exact: Exact, own: list[sympy.Symbol], symbols: list[sympy.Symbol]) -> Exact:
    axes = [symbols.index(symbol) for symbol in own]
    return lambda p: exact(tuple(p[axis] for axis in axes))


def _case(domains: list[Variable], pairs: list[tuple[Limit, Exact]], terms: list[Formula]) -> Case:
    cost = {f"term{i}": t.expr * sympy.Rational(1, 8) for i, t in enumerate(terms)}
    problem = Problem("a small problem", domains, [limit for limit, _ in pairs], cost)
    return Case(problem, tuple(use for _, use in pairs), lambda p: sum((t.exact(p) for t in terms), Fraction(0)) / 8)
