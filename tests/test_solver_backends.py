"""All back ends against trying everything in exact arithmetic, and what they say when they cannot go on."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from rekern.solver import Infeasible, Limit, OutOfTime, Problem, SolverError, Variable, solve
from rekern.solver.backends import cpsat, python_constraint, scaled, table
from rekern.solver.backends.python_constraint import SCALAR_OPERATIONS
from rekern.solver.points import POINT_OPERATIONS, quiet
from solver_problems import Case, Point, small_problems

ALL = ("native", "cpsat", "python_constraint")


def points(problem: Problem, top: int, backend: str) -> list[Point]:
    """Choices in order; none if there is none."""
    try:
        found = solve(problem, top, backend=backend)
    except Infeasible:
        return []
    assert all(s.proven_optimal and s.gap == 0 for s in found)
    return [tuple(s.values.values()) for s in found]


@contextmanager
def settings(formulas: bool) -> Iterator[None]:
    """`formulas`: back ends state formulas wherever they can, although tables would do."""
    with pytest.MonkeyPatch.context() as patch:
        if formulas:
            patch.setattr(cpsat, "FEW_POINTS", 0)
            patch.setattr(scaled, "SHORT_ROWS", 0)
            patch.setattr(python_constraint, "SET_ROWS", 0)
        yield


@pytest.mark.parametrize("backend, formulas", [("native", False), *((b, f) for b in ALL[1:] for f in (False, True))])
@given(case=small_problems(), top=st.integers(1, 5))
def test_back_ends_agree_with_trying_everything(backend: str, formulas: bool, case: Case, top: int) -> None:
    with settings(formulas):
        assert points(case.problem, top, backend) == case.best()[:top]


@pytest.mark.parametrize("backend", ALL)
@given(case=small_problems())
def test_feasible_sets_are_the_same(backend: str, case: Case) -> None:
    p = case.problem
    assert points(Problem(p.name, p.variables, p.limits), 10_000, backend) == case.feasible()


@pytest.mark.parametrize("backend", ALL)
@given(case=small_problems(tightest=4))
def test_a_conflict_excludes_everything_and_nothing_less_does(backend: str, case: Case) -> None:
    feasible = case.feasible()
    try:
        solve(case.problem, backend=backend)
    except Infeasible as error:
        assert not feasible and error.minimal
        conflicting = [case.problem.limits.index(c.limit) for c in error.conflicts]
        assert not any(case.meets(p, conflicting) for p in case.points())
        for one in conflicting:
            fewer = [i for i in conflicting if i != one]
            assert any(case.meets(p, fewer) for p in case.points())
    else:
        assert feasible


@pytest.mark.parametrize("backend", ALL)
@given(case=small_problems(), more=st.integers(0, 20), which=st.integers(0, 3))
def test_more_of_a_resource_allows_more(backend: str, case: Case, more: int, which: int) -> None:
    p = case.problem
    if which >= len(p.limits):
        return
    limit = p.limits[which]
    sense = "at_most" if limit.at_least is None else "at_least"
    relaxed = replace(limit, **{sense: limit.bound + (more if limit.at_least is None else -more)})
    others = [relaxed if other is limit else other for other in p.limits]
    fewer = points(Problem(p.name, p.variables, p.limits), 10_000, backend)
    assert {*fewer} <= {*points(Problem(p.name, p.variables, others), 10_000, backend)}


@given(
    a=st.floats(allow_nan=False, allow_infinity=False),
    b=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9).map(float),
)
def test_operations_on_numbers_are_those_on_arrays(a: float, b: float) -> None:
    for name, operation in SCALAR_OPERATIONS.items():
        count = {"ceiling": 1, "floor": 1, "ceiling_of_ratio": 1, "floor_of_ratio": 1, "abs": 1, "not": 1, "select": 3}
        operands = (a, b, a)[: count.get(name, 2)]
        with quiet():
            wanted = float(POINT_OPERATIONS[name](*map(np.float64, operands)))
        try:
            found = operation(*operands)
        except (ZeroDivisionError, OverflowError):
            continue    # numpy is asked
        assert found == wanted or math.isnan(wanted), name


x, y = Variable("x", 1, 60), Variable("y", 1, 60)
WIDE = [Variable(f"v{i}", 1, 60) for i in range(6)]
TOTAL = sum((v.symbol for v in WIDE), sympy.Integer(0))


@pytest.mark.parametrize("backend", ALL)
def test_functions_that_are_not_of_integers_and_their_ties(backend: str) -> None:
    root = Limit("root", sympy.sqrt(x.symbol) * sympy.log(1 + y.symbol), 20)
    cost = {"a": sympy.exp(-x.symbol / 100) + sympy.Abs(y.symbol - 30) / 7, "b": 1e-3 / (x.symbol + y.symbol)}
    problem = Problem("transcendental", [x, y], [root], cost)
    assert points(problem, 7, backend) == points(problem, 7, "native")
    ties = Problem("ties", [x, y], [], {"a": sympy.log(7 * x.symbol) - sympy.log(x.symbol)})
    assert points(ties, 3, backend) == [(1, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize("backend", ALL)
def test_problems_without_variables_limits_or_cost(backend: str) -> None:
    assert points(Problem("nothing", []), 3, backend) == [()]
    assert points(Problem("any", [Variable("r", 3, 5)]), 9, backend) == [(3,), (4,), (5,)]
    with pytest.raises(Infeasible, match="memory: needs at least 9 bytes, 8 allowed"):
        solve(Problem("none", [], [Limit("memory", 9, 8, "bytes")]), backend=backend)


@pytest.mark.parametrize("backend", ALL[1:])
def test_a_deadline_ends_the_search_with_an_honest_gap(backend: str) -> None:
    crowded = Problem("crowded", WIDE, [Limit("sum", TOTAL, 355)], {"f": sympy.Abs(TOTAL - 200) + 1})
    try:
        found = solve(crowded, 2, deadline=1.0, backend=backend)
    except OutOfTime as error:
        assert backend == "cpsat" and "within 1 s" in str(error)
    else:
        assert not any(s.proven_optimal and s.cost > 1 for s in found)
        assert all(s.cost * (1 - s.gap) <= 1 or s.gap == math.inf for s in found)
    odd = Limit("odd", sympy.Mod(2 * TOTAL, 4) + sympy.Mod(TOTAL, 2), 0.5)
    never = Problem("never", WIDE, [odd, Limit("even", sympy.Mod(TOTAL, 2), at_least=1)])
    if backend == "python_constraint":
        with pytest.raises(OutOfTime) as caught:
            solve(never, deadline=0.3, backend=backend)
        assert str(caught.value) == (
            "no choice for 'never' was found by 'python_constraint' within 0.3 s\n"
            "try: a later deadline, or the native search."
        )


def test_what_is_too_wide_or_too_long_is_said() -> None:
    wide = Problem("wide", WIDE, [Limit("sum", sympy.exp(TOTAL), 9)], {})
    with pytest.raises(SolverError) as caught:
        solve(wide, backend="cpsat")
    assert str(caught.value) == (
        f"the back end 'cpsat' cannot state a part of 'wide':\n    {sympy.exp(TOTAL)}\n"
        "It is not made of integer operations below 2**60, and has no table of at most 200,000 rows over "
        "v0, v1, v2, v3, v4, v5.\ntry: the native search."
    )
    long = Problem("long", [Variable("n", 1, 2**40)], [Limit("few", Variable("n", 1, 2**40).symbol, 4)])
    with pytest.raises(SolverError) as caught:
        solve(long, backend="python_constraint")
    assert str(caught.value) == (
        "the back end 'python_constraint' lists every value of n in 1..1099511627776, more than 1,048,576\n"
        "try: the native search, or a smaller interval."
    )
    assert points(long, 9, "cpsat") == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize(
    "backend, module, distribution",
    [("cpsat", "ortools.sat.python", "ortools"), ("python_constraint", "constraint", "python-constraint2")],
)
def test_a_missing_package_is_named_as_it_is_installed(backend: str, module: str, distribution: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module, None)
        patch.delitem(sys.modules, f"rekern.solver.backends.{backend}", raising=False)
        with pytest.raises(SolverError) as caught:
            solve(Problem("p", [x]), backend=backend)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"back end {backend!r} needs the package {distribution}, which is not installed (")
    assert second == f"try: pip install {distribution}, or the native search, which needs nothing more."


def test_a_table_is_joined_and_cut_as_it_grows() -> None:
    problem = Problem("t", WIDE, [Limit("pair", WIDE[0].symbol + WIDE[1].symbol, 3), Limit("all", TOTAL, 9)])
    found = table.rows(problem, {"v0", "v1", "v2"})
    assert found is not None and len(found["v0"]) == 3 * 60
    assert table.rows(problem, {"v1", "v2", "v3", "v4"}) is None


@pytest.mark.parametrize("backend", ["native", "cpsat", "python_constraint"])
def test_the_rest_of_a_negative_divisor_is_negative(backend: str) -> None:
    x = Variable("x", 0, 8)
    below = Limit("rest", sympy.Mod(7, x.symbol - 9), at_most=-1)
    found = solve(Problem("rests", [x], [below], {"x": 1e-9 * x.symbol}), 20, backend=backend)
    assert [s.values["x"] for s in found] == [v for v in range(9) if 7 % (v - 9) <= -1]
