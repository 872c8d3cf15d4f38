"""The search against trying everything in exact arithmetic."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from rekern.solver import Infeasible, Problem, Solution, Variable, rejections, solve
from rekern.solver.boxes import BOX_OPERATIONS
from rekern.solver.clock import Clock
from rekern.solver.points import POINT_OPERATIONS
from rekern.solver.program import compile_program
from rekern.solver.tighten import tighten
from solver_problems import Case, formulas, problems_in_parts, small_problems


def check(case: Case, top: int) -> None:
    """The search finds what trying everything finds, in the same order, and proves it."""
    found: tuple[Solution, ...] = ()
    with suppress(Infeasible):
        found = solve(case.problem, top=top)
    best = case.best()[:top]
    assert [tuple(s.values.values()) for s in found] == best
    for solution, point in zip(found, best, strict=True):
        assert solution.proven_optimal and solution.gap == 0
        assert solution.cost == pytest.approx(float(case.cost(point)), rel=1e-12)
        assert solution.cost == sum(solution.terms.values())
        for slack, use in zip(solution.slack.values(), case.uses, strict=True):
            assert slack.met and slack.used == pytest.approx(float(use(point)), rel=1e-12)


@contextmanager
def sizes(small: int, block: int, widest: int) -> Iterator[None]:
    """What is looked at as it is; rows a block; values a variable takes at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rekern.solver.engine.SMALL", small)
        for module in ("engine", "frontier"):
            patch.setattr(f"rekern.solver.{module}.BLOCK_POINTS", block)
        patch.setattr("rekern.solver.frontier.TOGETHER", block)
        patch.setattr("rekern.solver.frontier.WIDEST", widest)
        patch.setattr("rekern.solver.frontier.STRETCHES", 2)
        patch.setattr("rekern.solver.engine.FIRST_DIVE", 2)
        patch.setattr("rekern.solver.engine.FIRST_CELLS", 1)
        yield


@given(case=small_problems(of_whole=False), top=st.integers(1, 5))
def test_search_agrees_with_trying_everything(case: Case, top: int) -> None:
    check(case, top)


@pytest.mark.parametrize("block, widest", [(7, 64), (1 << 15, 2), (7, 2)])
@given(case=small_problems(of_whole=False), top=st.integers(1, 5))
def test_branch_and_bound_agrees_with_trying_everything(block: int, widest: int, case: Case, top: int) -> None:
    with sizes(0, block, widest):
        check(case, top)


@pytest.mark.parametrize("block", [7, 1 << 15])
@given(case=problems_in_parts(), top=st.integers(1, 5))
def test_parts_that_are_chosen_apart_agree_with_trying_everything(block: int, case: Case, top: int) -> None:
    with sizes(0, block, 64):
        check(case, top)


@given(case=problems_in_parts())
def test_counts_of_rejections_agree_with_counting(case: Case) -> None:
    counts = rejections(case.problem)
    assert counts is not None
    points, every = case.points(), range(len(case.uses))
    assert (counts.points, counts.feasible) == (len(points), len(case.feasible()))
    for i, limit in enumerate(case.problem.limits):
        missed = [p for p in points if not case.meets(p, [i])]
        assert counts.by[limit.name] == len(missed)
        assert counts.alone[limit.name] == sum(case.meets(p, [j for j in every if j != i]) for p in missed)


@given(case=small_problems(of_whole=False))
def test_tightening_keeps_every_point_that_meets_the_limits(case: Case) -> None:
    domains = tighten(case.problem, case.problem.limits, Clock())
    assert set(case.feasible()) <= set(itertools.product(*(d.values for d in domains.values())) if domains else ())


@given(case=small_problems(), data=st.data())
def test_bounds_over_a_box_hold_at_its_points(case: Case, data: st.DataObject) -> None:
    formula = data.draw(formulas([v.symbol for v in case.problem.variables], depth=3, of_whole=False))
    program = compile_program({v.symbol: v.name for v in case.problem.variables}, {"f": formula.expr})
    assert set(POINT_OPERATIONS) == set(BOX_OPERATIONS)
    box = {v.name: (float(min(v.values())), float(max(v.values()))) for v in case.problem.variables}
    [(low, high)] = program.over(box)
    for point in case.points()[:50]:
        [value] = program.at({v.name: x for v, x in zip(case.problem.variables, point, strict=True)})
        assert not (low > value or high < value)     # NaN is no bound
        assert value == pytest.approx(float(formula.exact(point)), rel=1e-12)


@pytest.mark.parametrize(
    "build, value",
    [
        (lambda x: sympy.sqrt(x) + x**sympy.Rational(-1, 2), 3 + 1 / 3),
        (lambda x: 2**x, 512),
        (lambda x: sympy.exp(-x) + sympy.log(x), math.exp(-9) + math.log(9)),
        (lambda x: sympy.log(x, 3), 2),
        (lambda x: sympy.Abs(x - 10) + sympy.pi, 1 + math.pi),
        (lambda x: sympy.Piecewise((1, sympy.Ne(x, 9)), (2, sympy.And(x >= 9, x > 8)), (3, True)), 2),
        (lambda x: sympy.Piecewise((1, sympy.Or(x > 9, sympy.Eq(x, 9)))), 1),
        (lambda x: sympy.Piecewise((1, sympy.Not(sympy.Eq(sympy.Mod(x, 4), 1))), (5, True)), 5),
        (lambda x: sympy.Mod(x + 6, 25 / (x + 6)) + 1, 1),
        (lambda x: (x - 12) ** 2 + (x - 10) ** 3 + 1 / (x - 8), 9),
    ],
)
def test_each_function_has_its_value(build: Callable[[sympy.Symbol], sympy.Expr], value: float) -> None:
    x = Variable("x", 9, 9)
    assert solve(Problem("p", [x], [], {"f": build(x.symbol)})).cost == pytest.approx(value, rel=1e-15)
    low, high = compile_program({x.symbol: "x"}, {"f": build(x.symbol)}).over({"x": (8.5, 11.0)})[0]
    assert not (low > value or high < value)     # NaN is no bound


@given(x=st.integers(1, 400), q=st.integers(1, 120))
def test_quotients_of_whole_numbers_round_once(x: int, q: int) -> None:
    """(1/49)*49 is below 1 in floating point; sympy.lambdify gives its floor as 0."""
    v = Variable("x", x, x)
    terms = {"f": sympy.floor(v.symbol / q), "c": sympy.ceiling((v.symbol + 1) / q)}
    found = solve(Problem("p", [v], [], terms))
    assert found.terms == {"f": x // q, "c": -(-(x + 1) // q)}
