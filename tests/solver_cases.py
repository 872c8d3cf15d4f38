"""Random small problems, with what is needed to solve each by trying everything in exact arithmetic.

In: hypothesis. Out: a `Problem`, and the same formulas over fractions.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import sympy
from hypothesis import strategies as st

from rekern.solver import Limit, Problem, Variable

Point = tuple[int, ...]
Exact = Callable[[Point], Fraction]


@dataclass(frozen=True)
class Formula:
    """The same formula twice: for the solver, and in exact arithmetic."""

    expr: sympy.Expr
    exact: Exact


@dataclass(frozen=True)
class Case:
    """A small problem, and what is needed to solve it by hand."""

    problem: Problem
    uses: tuple[Exact, ...]
    cost: Exact

    def points(self) -> list[Point]:
        return list(itertools.product(*(v.values() for v in self.problem.variables)))

    def meets(self, point: Point, limits: Iterable[int]) -> bool:
        pairs = ((self.problem.limits[i], self.uses[i](point)) for i in limits)
        return all(u <= limit.bound if limit.at_least is None else u >= limit.bound for limit, u in pairs)

    def feasible(self) -> list[Point]:
        return [p for p in self.points() if self.meets(p, range(len(self.uses)))]


BINARY: tuple[tuple[Callable[..., sympy.Expr], Callable[[Fraction, Fraction], Fraction]], ...] = (
    (lambda a, b: a + b, lambda a, b: a + b),
    (lambda a, b: a * b, lambda a, b: a * b),
    (lambda a, b: a / b, lambda a, b: a / b),
    (sympy.Max, max),
    (sympy.Min, min),
    (lambda a, b: sympy.Mod(a, b) + 1, lambda a, b: a % b + 1),
    (lambda a, b: sympy.Piecewise((a, a < b), (b + 1, True)), lambda a, b: a if a < b else b + 1),
    (lambda a, b: sympy.ceiling(a / b), lambda a, b: Fraction(math.ceil(a / b))),
    (lambda a, b: sympy.floor(a / b) + 1, lambda a, b: Fraction(math.floor(a / b) + 1)),
)


@st.composite
def formulas(draw: st.DrawFn, symbols: list[sympy.Symbol], depth: int = 2) -> Formula:
    """Positive everywhere, so that every operation is defined."""
    if depth == 0 or draw(st.booleans()):
        if draw(st.booleans()):
            constant = draw(st.integers(1, 49))
            return Formula(sympy.Integer(constant), lambda _: Fraction(constant))
        axis = draw(st.integers(0, len(symbols) - 1))
        return Formula(symbols[axis], lambda p: Fraction(p[axis]))
    build, exact = draw(st.sampled_from(BINARY))
    a, b = draw(formulas(symbols, depth - 1)), draw(formulas(symbols, depth - 1))
    return Formula(build(a.expr, b.expr), lambda p: exact(a.exact(p), b.exact(p)))


@st.composite
def variables(draw: st.DrawFn, name: str) -> Variable:
    low = draw(st.integers(1, 6))
    high = low + draw(st.integers(3, 14))
    kinds = (
        Variable(name, low, high),
        Variable(name, low, high, multiple_of=draw(st.integers(2, 3))),
        Variable(name, 1, high, divides=draw(st.sampled_from((12, 16, 30)))),
        Variable(name, 1, high, powers_of_two=True),
        Variable.one_of(name, draw(st.permutations((1, 3, 4, 9)))),
    )
    return draw(st.sampled_from(kinds))


@st.composite
def products(draw: st.DrawFn, symbols: list[sympy.Symbol]) -> Formula:
    """A whole number times some variables."""
    factor = draw(st.integers(1, 12))
    axes = draw(st.lists(st.integers(0, len(symbols) - 1), max_size=3))
    expr = sympy.Mul(factor, *(symbols[axis] for axis in axes))
    return Formula(expr, lambda p: Fraction(factor * math.prod(p[axis] for axis in axes)))


@st.composite
def limits_on(draw: st.DrawFn, name: str, symbols: list[sympy.Symbol], tightest: int) -> tuple[Limit, Exact]:
    """A limit, and what it uses."""
    kind = draw(st.sampled_from(("at_most", "at_most", "at_most", "at_least", "divides", "equal")))
    if kind in ("at_most", "at_least"):
        use, bound = draw(formulas(symbols)), draw(st.integers(1, tightest))
        return Limit(name, use.expr, unit="units", **{kind: bound}), use.exact
    small, large = draw(products(symbols)), draw(products(symbols))
    if kind == "divides":
        return Limit.divides(name, small.expr, large.expr), lambda p: large.exact(p) % small.exact(p)
    return Limit.equal(name, small.expr, large.expr), lambda p: abs(large.exact(p) - small.exact(p))


@st.composite
def small_problems(draw: st.DrawFn, tightest: int = 40) -> Case:
    domains = [draw(variables(name)) for name in "xyz"[: draw(st.integers(1, 3))]]
    symbols = [v.symbol for v in domains]
    pairs = [draw(limits_on(f"limit{i}", symbols, tightest)) for i in range(draw(st.integers(0, 4)))]
    terms = [draw(formulas(symbols)) for _ in range(draw(st.integers(1, 2)))]
    return _case(domains, pairs, terms)


@st.composite
def problems_in_parts(draw: st.DrawFn) -> Case:
    """Two or three pairs of variables that share one, in any order."""
    shared = Variable("s", 1, 3)
    parts = [[draw(small_variables(name)) for name in pair] for pair in ("ab", "cd", "ef")[: draw(st.integers(2, 3))]]
    domains = draw(st.permutations([shared, *itertools.chain(*parts)]))
    symbols = [v.symbol for v in domains]
    pairs, terms = [], []
    for part in parts:
        own = [shared.symbol, *(v.symbol for v in part)]
        # The formulas of a part read its own variables; the point that they are given holds all of them.
        for i in range(draw(st.integers(0, 2))):
            limit, use = draw(limits_on(f"limit_{part[0].name}{i}", own, 40))
            pairs.append((limit, _within(use, own, symbols)))
        term = draw(formulas(own))
        terms.append(Formula(term.expr, _within(term.exact, own, symbols)))
    return _case(domains, pairs, terms)


@st.composite
def small_variables(draw: st.DrawFn, name: str) -> Variable:
    low = draw(st.integers(1, 3))
    kinds = (Variable(name, low, low + 3), Variable.one_of(name, draw(st.permutations((1, 2, 5)))))
    return draw(st.sampled_from(kinds))


def _within(exact: Exact, own: list[sympy.Symbol], symbols: list[sympy.Symbol]) -> Exact:
    axes = [symbols.index(symbol) for symbol in own]
    return lambda p: exact(tuple(p[axis] for axis in axes))


def _case(domains: list[Variable], pairs: list[tuple[Limit, Exact]], terms: list[Formula]) -> Case:
    cost = {f"term{i}": t.expr for i, t in enumerate(terms)}
    problem = Problem("a small problem", domains, [limit for limit, _ in pairs], cost)
    return Case(problem, tuple(use for _, use in pairs), lambda p: sum((t.exact(p) for t in terms), Fraction(0)))
