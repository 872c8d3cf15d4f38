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
def small_problems(draw: st.DrawFn, tightest: int = 40) -> Case:
    domains = [draw(variables(name)) for name in "xyz"[: draw(st.integers(1, 3))]]
    symbols = [v.symbol for v in domains]
    uses, limits = [], []
    for i in range(draw(st.integers(0, 4))):
        use, bound = draw(formulas(symbols)), draw(st.integers(1, tightest))
        uses.append(use.exact)
        kind = "at_least" if draw(st.integers(0, 3)) == 0 else "at_most"
        limits.append(Limit(f"limit{i}", use.expr, unit="units", **{kind: bound}))
    terms = [draw(formulas(symbols)) for _ in range(draw(st.integers(1, 2)))]
    problem = Problem("a small problem", domains, limits, {f"term{i}": t.expr for i, t in enumerate(terms)})
    return Case(problem, tuple(uses), lambda p: sum((t.exact(p) for t in terms), Fraction(0)))
