"""The solver against trying everything in exact arithmetic, and its messages word for word."""

import itertools
import math
import pickle
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from rekern.solver import Infeasible, Limit, Problem, Slack, Solution, SolverError, Variable, evaluate, solve
from rekern.solver.boxes import BOX_OPERATIONS
from rekern.solver.points import POINT_OPERATIONS
from rekern.solver.program import compile_program
from rekern.solver.tighten import tighten

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


@pytest.mark.parametrize("block, worth", [(1 << 15, 100_000), (7, 0)])
@given(case=small_problems(), top=st.integers(1, 5))
def test_search_agrees_with_trying_everything(block: int, worth: int, case: Case, top: int) -> None:
    found: tuple[Solution, ...] = ()
    with pytest.MonkeyPatch.context() as patch, suppress(Infeasible):
        patch.setattr("rekern.solver.grid.BLOCK_POINTS", block)
        patch.setattr("rekern.solver.search.WORTH_TIGHTENING", worth)
        found = solve(case.problem, top=top)
    best = sorted(case.feasible(), key=case.cost)[:top]     # stable: ties stay in lexicographic order
    assert [tuple(s.values.values()) for s in found] == best
    for solution, point in zip(found, best, strict=True):
        assert solution.proven_optimal
        assert solution.cost == pytest.approx(float(case.cost(point)), rel=1e-12)
        assert solution.cost == sum(solution.terms.values())
        for slack, use in zip(solution.slack.values(), case.uses, strict=True):
            assert slack.met and slack.used == pytest.approx(float(use(point)), rel=1e-12)


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


@given(case=small_problems())
def test_tightening_keeps_every_point_that_meets_the_limits(case: Case) -> None:
    domains = tighten(case.problem, case.problem.limits)
    assert set(case.feasible()) <= set(itertools.product(*domains.values()) if domains else ())


@given(case=small_problems(), data=st.data())
def test_bounds_over_a_box_hold_at_its_points(case: Case, data: st.DataObject) -> None:
    formula = data.draw(formulas([v.symbol for v in case.problem.variables], depth=3))
    program = compile_program({v.symbol: v.name for v in case.problem.variables}, {"f": formula.expr})
    assert set(POINT_OPERATIONS) == set(BOX_OPERATIONS)
    box = {v.name: (float(min(v.values())), float(max(v.values()))) for v in case.problem.variables}
    [(low, high)] = program.over(box)
    for point in case.points()[:50]:
        [value] = program.at({v.name: x for v, x in zip(case.problem.variables, point, strict=True)})
        assert low <= value <= high
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
        (lambda x: (x - 12) ** 2 + (x - 10) ** 3 + 1 / (x - 8), 9),
    ],
)
def test_each_function_has_its_value(build: Callable[[sympy.Symbol], sympy.Expr], value: float) -> None:
    x = Variable("x", 9, 9)
    assert solve(Problem("p", [x], [], {"f": build(x.symbol)})).cost == pytest.approx(value, rel=1e-15)
    low, high = compile_program({x.symbol: "x"}, {"f": build(x.symbol)}).over({"x": (8.5, 11.0)})[0]
    assert low <= value <= high


@given(x=st.integers(1, 400), q=st.integers(1, 120))
def test_quotients_of_whole_numbers_round_once(x: int, q: int) -> None:
    """(1/49)*49 is below 1 in floating point; sympy.lambdify gives its floor as 0."""
    v = Variable("x", x, x)
    terms = {"f": sympy.floor(v.symbol / q), "c": sympy.ceiling((v.symbol + 1) / q)}
    found = solve(Problem("p", [v], [], terms))
    assert found.terms == {"f": x // q, "c": -(-(x + 1) // q)}


def test_a_variable_is_a_set_of_numbers() -> None:
    assert Variable("x", 3, 20, multiple_of=5).values() == range(5, 21, 5)
    assert Variable("x", 0, 100, divides=12).values() == (1, 2, 3, 4, 6, 12)
    assert Variable("x", 3, 40, powers_of_two=True, multiple_of=8).values() == (8, 16, 32)
    assert Variable("x", 1, 8, divides=12, powers_of_two=True).values() == (1, 2, 4)
    assert Variable.one_of("x", (4, 1, 4)).values() == (4, 1)
    assert Variable("x", 2, 9, choices=(9, 1, 3), multiple_of=3).values() == (9, 3)
    assert Variable("x", 1, 2).symbol.is_positive and Variable("x", 0, 2).symbol.is_positive is None


def test_a_variable_without_values_is_an_error() -> None:
    def message(**options: object) -> str:
        return fault(Variable, "rows", **{"low": 1, "high": 16, **options})

    assert message(low=17) == "variable 'rows' can have no value: 17..16"
    assert message(multiple_of=32) == "variable 'rows' can have no value: 1..16 (multiple of 32)"
    assert message(low=5, divides=6, powers_of_two=True) == (
        "variable 'rows' can have no value: 5..16 (divides 6, power of two)"
    )
    assert message(choices=(0, 32)) == "variable 'rows' can have no value: 1..16 (one of 0, 32)"
    assert message(low=-1) == "variable 'rows': low = -1, expected at least 0"
    assert message(multiple_of=0) == "variable 'rows': multiple_of = 0, expected at least 1"
    assert fault(Variable, "", 1, 2) == "a variable has an empty name"
    assert fault(Variable.one_of, "x", ()) == "variable 'x' can have no value: choices are empty"


ROWS = Variable("rows", 1, 16)
COLUMNS = Variable("columns", 16, 256, multiple_of=16)
r, c = ROWS.symbol, COLUMNS.symbol


def fault(build: Callable[..., object], *args: object, **options: object) -> str:
    with pytest.raises(SolverError) as caught:
        build(*args, **options)
    return str(caught.value)


def test_a_formula_that_the_solver_cannot_read_is_quoted() -> None:
    def message(formula: sympy.Expr) -> str:
        return fault(Problem, "tiles", [ROWS], [Limit("l1", formula, 32_768, "bytes")])

    assert message(64 * r * c) == (
        "limit 'l1' of 'tiles':\n    64*columns*rows\n'columns' is not a variable. Variables here: rows."
    )
    assert message(sympy.Symbol("row")) == (
        "limit 'l1' of 'tiles':\n    row\n"
        "'row' is not a variable. Variables here: rows. Did you mean 'rows'?"
    )
    assert message(1 / sympy.Symbol("rows")) == (
        "limit 'l1' of 'tiles':\n    1/rows\n"
        "'rows' has the name of a variable but is another symbol: use Variable.symbol."
    )
    assert fault(Problem, "tiles", [ROWS], [], {"loop": 1 + sympy.sin(r)}) == (
        "cost term 'loop' of 'tiles':\n    sin(rows) + 1\ncannot evaluate sin(rows). The solver knows: "
        "+ - * / **, Abs, ceiling, exp, floor, log, Max, Min, Mod, Piecewise, comparisons, And, Or, Not."
    )


def test_a_problem_stated_wrongly_is_an_error() -> None:
    twice = [Limit("l1", r, 1), Limit("l1", r, 2)]
    assert fault(Problem, "tiles", [ROWS, ROWS]) == "problem 'tiles' has two variables named 'rows'"
    assert fault(Problem, "tiles", [ROWS], twice) == "problem 'tiles' has two limits named 'l1'"
    assert fault(Limit, "l1", r) == "limit 'l1': give one of at_most and at_least"
    assert fault(Limit, "l1", r, 3, at_least=2) == "limit 'l1': give one of at_most and at_least"
    assert fault(Limit, "l1", r, math.nan) == "limit 'l1': the bound is nan, expected a number"
    expected = "expected a sympy expression or a number"
    assert fault(Limit, "l1", "rows", 3) == f"limit 'l1' is 'rows', {expected}"
    assert fault(Limit, "l1", r < 3, 3) == f"limit 'l1' is rows < 3, {expected}"
    assert fault(Problem, "tiles", [], [], {"loop": math.inf}) == f"cost term 'loop' is inf, {expected}"


TILES = Problem(
    "tiles of the state",
    [ROWS, COLUMNS],
    [
        Limit("l1", 4 * r * c, 16_384, "bytes", "the tile stays in L1"),
        Limit("chains", r * c / 16, at_least=8, unit="sums", reason="hides the latency of the FMA"),
    ],
    {"loads": 1e-6 / r + 1e-6 / c, "blocks": sympy.ceiling(256 / c) * 1e-7},
)


def test_values_can_be_compared_hashed_and_pickled() -> None:
    again = pickle.loads(pickle.dumps(TILES))
    assert again == TILES and hash(again) == hash(TILES) and str(again) == str(TILES)
    solution = solve(TILES)
    assert pickle.loads(pickle.dumps(solution)) == solution == solve(again)
    assert hash(solution) == hash(solve(again))
    with pytest.raises(AttributeError):
        solution.values._items = {}  # type: ignore[attr-defined]


def test_equal_costs_go_to_the_first_variable_and_its_preferred_value() -> None:
    first, second = Variable("first", 1, 4), Variable.one_of("second", (3, 1, 2))
    distance = sympy.Abs(first.symbol * second.symbol - 4)
    found = solve(Problem("ties", [first, second], [], {"f": distance}), top=4)
    assert [tuple(s.values.values()) for s in found] == [(2, 2), (4, 1), (1, 3), (3, 1)]
    rounded = sympy.log(7 * r) - sympy.log(r)       # log(7), give or take a rounding
    found = solve(Problem("p", [ROWS], [], {"f": rounded}), top=16)
    assert [s.values["rows"] for s in found] == [*range(1, 17)]


def test_a_problem_without_variables_or_cost_has_a_solution() -> None:
    assert solve(Problem("nothing", [])) == Solution({}, 0, {}, {}, proven_optimal=True)
    assert solve(Problem("any", [ROWS])).values == {"rows": 1}
    assert len(solve(Problem("any", [ROWS]), top=99)) == 16


def test_a_huge_space_is_searched_where_limits_make_it_small_and_else_refused() -> None:
    x, y = Variable("x", 1, 2**60), Variable("y", 1, 2**60)
    area = Limit("area", x.symbol * y.symbol, 1000, "elements")
    best = solve(Problem("huge", [x, y], [area], {"f": 1 / (x.symbol * y.symbol)}))
    assert best.values == {"x": 1, "y": 1000} and best.proven_optimal
    assert fault(solve, Problem("huge", [Variable("x", 1, 2**40), ROWS], [], {"f": r})) == (
        "'huge' has 1.8e+13 choices within its bounds, more than 50,000,000\n"
        "    x 1,099,511,627,776, rows 16\n"
        "try: a smaller interval, multiple_of, divides or powers_of_two for the largest of them."
    )


def test_what_has_no_value_is_an_error() -> None:
    root = Problem("p", [ROWS], [Limit("root", sympy.sqrt(3 - r), 9)])
    assert fault(solve, root) == "limit 'root' of 'p' has no value at rows=4:\n    root: sqrt(3 - rows) <= 9"
    quotient = Problem("p", [ROWS], [], {"a": r, "b": 1 / (3 - r)})
    assert fault(solve, quotient) == "cost term 'b' of 'p' is inf at rows=3:\n    1/(3 - rows)"
    guarded = Problem("p", [ROWS], [Limit("guard", r, 2)], {"b": 1 / (3 - r)})
    assert solve(guarded).values == {"rows": 1}
    assert fault(solve, guarded, top=0) == "top = 0, expected at least 1"


def test_a_given_choice_can_be_evaluated() -> None:
    best = solve(TILES)
    same = evaluate(TILES, dict(reversed(list(best.values.items()))))
    assert (same.values, same.cost, same.slack) == (best.values, best.cost, best.slack)
    assert list(same.values) == ["rows", "columns"] and not same.proven_optimal
    full = evaluate(TILES, {"rows": 16, "columns": 256}).slack["l1"]
    assert full == Slack(16_384, 16_384, "bytes") and full.left == 0
    assert not evaluate(TILES, {"rows": 1, "columns": 16}).slack["chains"].met

    assert fault(evaluate, TILES, {"rows": 4}) == "no value is given for 'columns' of 'tiles of the state'"
    assert fault(evaluate, TILES, {"rows": 4, "columns": 17}) == (
        "columns = 17 is outside columns in 16..256 (multiple of 16)"
    )
    assert fault(evaluate, TILES, {"rows": 4, "colums": 16}) == (
        "'tiles of the state' has no variable 'colums'. Did you mean 'columns'?"
    )


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
        "try: dtype=bfloat16"
    )


def test_limits_that_exclude_each_other_are_named_together() -> None:
    assert str(infeasible(Limit("other", r, 14), WIDE, AREA, TALL)) == (
        "no sizes fit tiles on a small core: these 3 limits cannot be met together\n"
        "    wide: 128 of at least 128 columns\n"
        "    area: 1,024 of at most 1,024 elements\n"
        "    tall: reaches 8 rows, 12 needed\n"
        "nearest: rows=8, columns=128\n"
        "try: a schedule that splits columns; or dtype=bfloat16"
    )


def test_without_advice_the_limit_and_its_domains_are_named() -> None:
    assert str(infeasible(Limit("wide", c, at_least=512, unit="columns"))).splitlines()[-1] == (
        "try: relax wide; or allow more than columns in 16..256 (multiple of 16)"
    )
    assert str(infeasible(Limit("memory", 9, 8, "bytes"))).splitlines()[1:] == [
        "    memory: needs at least 9 bytes, 8 allowed",
        "nearest: rows=1, columns=16",
        "try: relax memory",
    ]


def test_a_conflict_in_a_huge_space_is_proved_from_bounds() -> None:
    x = Variable("x", 1, 2**60)
    small = Limit("small", x.symbol + r, 1, "elements")
    error = infeasible(Limit("any", x.symbol, 100), small, variables=(x, ROWS))
    assert error.nearest is None and error.minimal
    assert str(error) == (
        "no sizes fit tiles on a small core\n"
        "    small: needs at least 2 elements, 1 allowed\n"
        "try: relax small; or allow more than x in 1..1152921504606846976; rows in 1..16"
    )
    pair = infeasible(Limit("low", x.symbol, 9), Limit("high", x.symbol, at_least=12), variables=(x, ROWS))
    assert [conflict.limit.name for conflict in pair.conflicts] == ["low", "high"] and not pair.minimal
