"""What the solver says when nothing fits, word for word."""

import pickle

import pytest
from hypothesis import given

from rekern.solver import Infeasible, Limit, Problem, Variable, solve
from solver_problems import Case, small_problems

ROWS = Variable("rows", 1, 16)
COLUMNS = Variable("columns", 16, 256, multiple_of=16)
r, c = ROWS.symbol, COLUMNS.symbol


@given(case=small_problems(tightest=6))
def test_limits_of_an_infeasible_problem_are_a_minimal_conflict(case: Case) -> None:
    if case.feasible():
        return
    with pytest.raises(Infeasible) as caught:
        solve(case.problem)
    error = caught.value
    named = [case.problem.limits.index(conflict.limit) for conflict in error.conflicts]
    assert error.minimal and named == sorted(named)
    assert not any(case.meets(p, named) for p in case.points())
    for dropped in named:
        assert any(case.meets(p, [i for i in named if i != dropped]) for p in case.points())
    assert error.nearest is not None
    point = tuple(error.nearest.values())
    for conflict, i in zip(error.conflicts, named, strict=True):
        assert conflict.use.used == pytest.approx(float(case.uses[i](point)), rel=1e-12)


def infeasible(*limits: Limit, variables: tuple[Variable, ...] = (ROWS, COLUMNS)) -> Infeasible:
    problem = Problem("tiles on a small core", variables, limits, {"loop": 1 / r})
    with pytest.raises(Infeasible) as caught:
        solve(problem)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert caught.value.problem == problem
    return caught.value


L1 = Limit("l1", 4096 * r * c, 32_768, "bytes", "the tile stays in L1", advice="dtype=bfloat16")
WIDE = Limit("wide", c, at_least=128, unit="columns")
AREA = Limit("area", r * c, 1024, "elements", advice="a schedule that splits columns")
TALL = Limit("tall", r, at_least=12, unit="rows", advice="dtype=bfloat16")


def test_one_limit_that_alone_is_too_much_is_named_alone() -> None:
    assert str(infeasible(WIDE, L1, AREA)) == (
        "no sizes fit tiles on a small core\n"
        "    l1: needs at least 65,536 bytes, 32,768 allowed (the tile stays in L1)\n"
        "nearest: rows=1, columns=16\n"
        "would do: l1 at most 524,288 bytes\n"
        "try: dtype=bfloat16"
    )


def test_limits_that_exclude_each_other_are_named_together() -> None:
    assert str(infeasible(Limit("other", r, 14), WIDE, AREA, TALL)) == (
        "no sizes fit tiles on a small core: these 3 limits cannot be met together\n"
        "    wide: 128 of at least 128 columns\n"
        "    area: 1,024 of at most 1,024 elements\n"
        "    tall: reaches 8 rows, 12 needed\n"
        "nearest: rows=8, columns=128\n"
        "any one would do: wide at least 80 columns; area at most 1,536 elements; tall at least 8 rows\n"
        "try: a schedule that splits columns; or dtype=bfloat16"
    )


def test_without_advice_the_limit_and_its_domains_are_named() -> None:
    assert str(infeasible(Limit("wide", c, at_least=512, unit="columns"))).splitlines()[-1] == (
        "try: relax wide; or allow more than columns in 16..256 (multiple of 16)"
    )
    assert str(infeasible(Limit("memory", 9, 8, "bytes"))).splitlines()[1:] == [
        "    memory: needs at least 9 bytes, 8 allowed",
        "nearest: rows=1, columns=16",
        "would do: memory at most 9 bytes",
        "try: relax memory",
    ]


def test_a_conflict_in_a_huge_space_is_explained_like_any_other() -> None:
    x = Variable("x", 1, 2**60)
    small = Limit("small", x.symbol + r, 1, "elements")
    error = infeasible(Limit("any", x.symbol, 100), small, variables=(x, ROWS))
    assert error.minimal
    assert str(error) == (
        "no sizes fit tiles on a small core\n"
        "    small: needs at least 2 elements, 1 allowed\n"
        "nearest: x=1, rows=1\n"
        "would do: small at most 2 elements\n"
        "try: relax small; or allow more than x in 1..1152921504606846976; rows in 1..16"
    )
    pair = infeasible(Limit("low", x.symbol, 9), Limit("high", x.symbol, at_least=12), variables=(x, ROWS))
    assert [conflict.limit.name for conflict in pair.conflicts] == ["low", "high"] and pair.minimal
    assert [conflict.enough for conflict in pair.conflicts] == [12, 9]
