"""The language of the solver: values, errors in what is stated, and their messages word for word."""

import math
import pickle
from collections.abc import Callable

import pytest
import sympy

from rekern.solver import Limit, Problem, Slack, Solution, SolverError, Variable, evaluate, solve
from rekern.solver.program import VOCABULARY

ROWS = Variable("rows", 1, 16)
COLUMNS = Variable("columns", 16, 256, multiple_of=16)
r, c = ROWS.symbol, COLUMNS.symbol


def test_a_variable_is_a_set_of_numbers() -> None:
    assert Variable("x", 3, 20, multiple_of=5).values() == range(5, 21, 5)
    assert Variable("x", 0, 100, divides=12).values() == (1, 2, 3, 4, 6, 12)
    assert Variable("x", 3, 40, powers_of_two=True, multiple_of=8).values() == (8, 16, 32)
    assert Variable("x", 1, 8, divides=12, powers_of_two=True).values() == (1, 2, 4)
    assert Variable.one_of("x", (4, 1, 4)).values() == (4, 1)
    assert Variable("x", 2, 9, choices=(9, 1, 3), multiple_of=3).values() == (9, 3)
    assert Variable("x", 1, 2).symbol.is_positive and Variable("x", 0, 2).symbol.is_positive is None


def test_divisibility_and_equality_are_limits_that_read_as_such() -> None:
    whole = Limit.divides("whole_tiles", 16 * r, 768, "columns", "no tile is cut", advice="pad")
    assert str(whole) == "whole_tiles: 16*rows divides 768 (columns) (no tile is cut)"
    assert whole.relation == ("divides", 16 * r, 768) and whole.reads == {"rows"}
    area = Limit.equal("area", 4 * r * c, 4096 + c)
    assert str(area) == "area: 4*columns*rows == columns + 4096"
    assert str(Limit.equal("same", r, c)) in ("same: rows == columns", "same: columns == rows")
    assert Limit("rest", sympy.Mod(768, r, evaluate=False), 1).relation is None
    assert fault(Limit.divides, "d", "rows", 3) == "limit 'd' is 'rows', expected a sympy expression or a number"
    found = solve(Problem("p", [ROWS, COLUMNS], [whole, Limit.equal("area", r * c, 256)], {"f": r}), top=9)
    assert [tuple(s.values.values()) for s in found] == [(1, 256), (2, 128), (4, 64), (8, 32), (16, 16)][: len(found)]
    assert len(found) == 5 and found[0].slack["whole_tiles"].used == 0


def test_figures_are_reported_and_not_minimised() -> None:
    tiles = Problem("tiles", [ROWS], [Limit("few", r, 8)], {"loop": 1e-6 / r}, {"bytes": 4 * r, "half": r / 2})
    best = solve(tiles)
    assert best.figures == {"bytes": 32, "half": 4} and best.cost == 1e-6 / 8
    assert str(best).splitlines()[-2:] == ["    bytes  32", "    half   4"]
    assert str(tiles).splitlines()[-3:] == ["and report", "    bytes: 4*rows", "    half: rows/2"]
    again = pickle.loads(pickle.dumps(tiles))
    assert again == tiles and hash(again) == hash(tiles) and solve(again) == best
    assert tiles != Problem("tiles", [ROWS], tiles.limits, tiles.cost)
    assert fault(Problem, "t", [ROWS], [], {}, {"f": c}).startswith("figure 'f' of 't':\n    columns\n'columns' is not")
    undefined = Problem("tiles", [ROWS], [], {"loop": r}, {"share": 1 / (r - 1)})
    assert fault(solve, undefined) == "figure 'share' of 'tiles' is inf at rows=1:\n    1/(rows - 1)"


def test_a_variable_without_values_is_an_error() -> None:
    def message(**options: object) -> str:
        return fault(Variable, "rows", **{"low": 1, "high": 16, **options})

    assert message(low=17) == "variable 'rows' can have no value: 17..16"
    assert message(multiple_of=32) == "variable 'rows' can have no value: 1..16 (multiple of 32)"
    assert message(low=5, divides=6, powers_of_two=True) == (
        "variable 'rows' can have no value: 5..16 (divides 6, power of two)"
    )
    assert message(choices=(0, 32)) == "variable 'rows' can have no value: 1..16 (one of 0, 32)"
    assert message(high=2**62 + 1) == f"variable 'rows': high = {2**62 + 1}, expected at most 2**62"
    assert message(high=16.0) == "variable 'rows': high = 16.0, expected a whole number"
    assert message(choices=(1.5,)) == "variable 'rows': choices = 1.5, expected a whole number"
    assert message(low=-1) == "variable 'rows': low = -1, expected at least 0"
    assert message(multiple_of=0) == "variable 'rows': multiple_of = 0, expected at least 1"
    assert fault(Variable, "", 1, 2) == "a variable has an empty name"
    assert fault(Variable.one_of, "x", ()) == "variable 'x' can have no value: choices are empty"


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
        f"cost term 'loop' of 'tiles':\n    sin(rows) + 1\ncannot evaluate sin(rows). The solver knows: {VOCABULARY}."
    )
    assert "Piecewise" in VOCABULARY


def test_a_problem_stated_wrongly_is_an_error() -> None:
    twice = [Limit("l1", r, 1), Limit("l1", r, 2)]
    assert fault(Problem, "tiles", [ROWS, ROWS]) == "problem 'tiles' has two variables named 'rows'"
    assert fault(Problem, "tiles", [ROWS], twice) == "problem 'tiles' has two limits named 'l1'"
    assert fault(Problem, "tiles", [ROWS], [Limit("", r, 1)]) == "problem 'tiles' has limits without a name"
    assert fault(Limit, "l1", r) == "limit 'l1': give one of at_most and at_least"
    assert fault(Limit, "l1", r, 3, at_least=2) == "limit 'l1': give one of at_most and at_least"
    assert fault(Limit, "l1", r, math.nan) == "limit 'l1': at_most = nan, expected a finite number"
    assert fault(Limit, "l1", r, at_least=-math.inf) == "limit 'l1': at_least = -inf, expected a finite number"
    assert fault(Limit, "l1", r, "3") == "limit 'l1': at_most = '3', expected a finite number"
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
        solution.values._items = {}


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
