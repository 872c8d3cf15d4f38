"""What an explanation says: laws between its numbers, a golden text, the same text in every process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from rekern import zoo
from rekern.cli.specs import find
from rekern.errors import PlanError
from rekern.explain.cpu import CpuCall
from rekern.explain.explain import explain
from rekern.explain.limits import limit_uses
from rekern.explain.others import NEAR, choices_beside
from rekern.explain.sensitivity import main_variable, sensitivity
from rekern.explain.values import Explanation
from rekern.hwmodels import load
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.ranking import problems
from rekern.solver import Limit, Problem, Variable, evaluate, solve

GPU_CASES = (("gla", "h100_sxm"), ("lstm", "h100_sxm"), ("hgrn", "mi300x"), ("gated_delta_rule", "t4"))
CPU_CASES = (("gla", "x86_avx512"), ("lstm", "arm64_neon"), ("hgrn", "x86_avx2"))


def gpu_call(spec: str, target: str, gradient: bool = True, **lengths: int) -> Call:
    found = find(spec)
    sizes = {axis: lengths.get(axis, 64) for axis in found.axes}
    return Call.of(found, sizes, load(target), batch=2, heads=4, time=1000, dtype="float16", gradient=gradient)


def cpu_call(spec: str, target: str) -> CpuCall:
    found = find(spec)
    return CpuCall(found, dict.fromkeys(found.axes, 64), 2, 4, "float32", 4, load(target))


@pytest.fixture(scope="module", params=[*GPU_CASES, *CPU_CASES], ids="-".join)
def explained(request: pytest.FixtureRequest) -> Explanation:
    spec, target = request.param
    return explain(gpu_call(spec, target) if (spec, target) in GPU_CASES else cpu_call(spec, target))


# -- laws ----------------------------------------------------------------------------------------------------


def test_parts_and_what_they_do_not_hide_add_up(explained: Explanation) -> None:
    assert sum(part.seconds for part in explained.parts) == pytest.approx(explained.seconds, rel=1e-12)
    for part in explained.parts:
        assert sum(part.exposed.values()) == pytest.approx(part.seconds, rel=1e-12)
        assert all(0 <= part.exposed[term] <= part.terms[term] * (1 + 1e-12) for term in part.terms)
        assert part.exposed[part.bound_by] == max(part.exposed.values())


def test_nothing_is_predicted_to_be_faster_than_its_floor(explained: Explanation) -> None:
    for floor in explained.floors:
        assert floor.floor_seconds == max(floor.memory_seconds, floor.arithmetic_seconds)
        assert floor.share == pytest.approx(floor.floor_seconds / floor.seconds)
        assert 0 < floor.share <= 1


def test_floors_cover_every_pass_of_a_gpu(explained: Explanation) -> None:
    expected = ["forward", "backward", "step"] if explained.subject.kind == "gpu" else []
    assert [floor.pass_name for floor in explained.floors] == expected


def test_choices_that_lost_cost_more_and_say_where(explained: Explanation) -> None:
    seconds = [other.seconds for other in explained.others]
    assert seconds == sorted(seconds)
    for other in explained.others:
        assert other.behind == pytest.approx(sum(c.seconds for c in other.changes), rel=1e-6, abs=1e-15)
        if other.schedule == explained.schedule:
            assert other.behind > NEAR * explained.seconds
            assert {**explained.sizes, **{n: value for n, (value, _) in other.differs.items()}} == other.sizes
            assert other.differs


def test_the_best_of_the_sensitivity_is_the_choice(explained: Explanation) -> None:
    found = {p.value: p.seconds for p in explained.sensitivity.points if p.seconds is not None}
    assert found[explained.sensitivity.chosen] == pytest.approx(explained.seconds, rel=1e-12)
    assert min(found.values()) == pytest.approx(explained.seconds, rel=1e-12)
    assert all(p.reason for p in explained.sensitivity.points if p.seconds is None)


def test_a_size_that_is_held_back_breaks_the_limit(explained: Explanation) -> None:
    for use in explained.limits:
        assert use.slack >= 0
        assert all(held.used > use.bound for held in use.holds)


def test_every_schedule_is_accounted_for() -> None:
    from rekern.schedules.gpu.ranking import SCHEDULES

    e = explain(gpu_call("gla", "h100_sxm"), top=1)
    told = [{e.schedule}, {o.schedule for o in e.others}, set(e.refused), {u.schedule for u in e.unfit}]
    assert set().union(*told) == set(SCHEDULES)


def test_top_limits_the_changes_of_sizes_but_not_the_schedules() -> None:
    few, many = (explain(gpu_call("gla", "h100_sxm"), top) for top in (1, 50))
    assert {o.schedule for o in few.others} == {o.schedule for o in many.others}
    assert len(few.others) < len(many.others)


def test_without_a_gradient_there_is_no_backward_pass() -> None:
    e = explain(gpu_call("gla", "h100_sxm", gradient=False))
    assert {part.pass_name for part in e.parts} == {"forward", "step"}
    assert "forward, on" in str(e).splitlines()[0]


# -- against brute force -------------------------------------------------------------------------------------


def small_problem(bound: int, weight: int) -> Problem:
    rows, columns, warps = (Variable(name, 1, 6) for name in ("rows", "columns", "warps"))
    r, c, w = rows.symbol, columns.symbol, warps.symbol
    return Problem(
        "tiles",
        (rows, columns, warps),
        [Limit("area", r * c, at_most=bound, unit="numbers"), Limit("threads", w * c, at_most=12)],
        {"load": sympy.Float(weight) / r + c / 8, "work": 1 / c + w / sympy.Integer(50)},
    )


def choices(problem: Problem) -> Iterator[dict[str, int]]:
    for values in product(*(v.values() for v in problem.variables)):
        yield dict(zip((v.name for v in problem.variables), values, strict=True))


@given(bound=st.integers(1, 40), weight=st.integers(1, 9))
def test_counts_and_held_sizes_are_those_of_trying_everything(bound: int, weight: int) -> None:
    problem = small_problem(bound, weight)
    best = solve(problem)
    area, threads = sorted(limit_uses(problem, best), key=lambda use: use.name)
    assert (area.choices, area.rejected) == (36, sum(r * c > bound for r in range(1, 7) for c in range(1, 7)))
    assert threads.rejected == sum(w * c > 12 for w in range(1, 7) for c in range(1, 7))
    r, c = best.values["rows"], best.values["columns"]
    expected = {("rows", r + 1)} if r < 6 and (r + 1) * c > bound else set()
    expected |= {("columns", c + 1)} if c < 6 and r * (c + 1) > bound else set()
    assert {(held.variable, held.next) for held in area.holds} == expected
    for held in area.holds:
        there = evaluate(problem, {**best.values, held.variable: held.next})
        assert held.seconds == pytest.approx(there.cost - best.cost)


@given(bound=st.integers(1, 40), weight=st.integers(1, 9))
def test_the_best_change_of_each_group_is_that_of_trying_everything(bound: int, weight: int) -> None:
    problem = small_problem(bound, weight)
    best = solve(problem)
    tried = [evaluate(problem, values) for values in choices(problem)]
    worse = [s for s in tried if all(k.met for k in s.slack.values()) and s.cost > best.cost * (1 + NEAR)]

    def anew(name: str) -> list[float]:
        by_value: dict[int, float] = {}
        for s in worse:
            if s.values[name] != best.values[name]:
                by_value[s.values[name]] = min(by_value.get(s.values[name], s.cost), s.cost)
        return [min(by_value.values())] if by_value else []

    expected: list[float] = []
    for free in ("rows", "warps"):
        kept = [n for n in best.values if n != free]
        near = [s.cost for s in worse if all(s.values[n] == best.values[n] for n in kept)]
        expected += [min(near)] if near else []
    expected += anew("columns")
    found = [evaluate(problem, values).cost for values in choices_beside(problem, best)]
    assert sorted(found) == pytest.approx(sorted(expected))


def test_the_size_that_most_terms_read_is_varied() -> None:
    problem = small_problem(20, 5)
    assert main_variable(problem).name == "columns"
    found = sensitivity(problem, solve(problem))
    for point in found.points:
        fits = [evaluate(problem, v) for v in choices(problem) if v["columns"] == point.value]
        costs = [s.cost for s in fits if all(k.met for k in s.slack.values())]
        assert point.seconds == pytest.approx(min(costs))


def test_a_value_that_does_not_fit_says_which_limit() -> None:
    found = sensitivity(small_problem(4, 5), solve(small_problem(4, 5)))
    assert [(p.value, p.reason) for p in found.points if p.seconds is None] == [(5, "area"), (6, "area")]


# -- text, JSON ----------------------------------------------------------------------------------------------


def test_text_of_an_explanation(golden: Any) -> None:
    golden(str(explain(gpu_call("simple_gla", "h100_sxm", K=64, V=64), top=3)))


def test_text_of_an_explanation_for_a_cpu(golden: Any) -> None:
    golden(str(explain(cpu_call("gla", "x86_avx512"))))


def test_text_says_that_it_predicts(explained: Explanation) -> None:
    assert str(explained).splitlines()[1] == "All figures are predicted by the model, none is measured."
    assert all(line == line.rstrip() for line in str(explained).splitlines())


def test_json_is_the_same_after_a_round_trip(explained: Explanation) -> None:
    found = explained.to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_json_has_its_schema(explained: Explanation) -> None:
    found: Any = explained.to_json()
    assert (found["schema"], found["figures_are"]) == (1, "predicted")
    assert list(found)[2:] == list(Explanation.__dataclass_fields__)
    assert found["subject"]["lengths"] == dict(explained.subject.lengths)
    assert [part["name"] for part in found["parts"]] == [part.name for part in explained.parts]
    assert all({"value", "seconds", "behind", "parts", "reason"} == p.keys() for p in found["sensitivity"]["points"])


PRINTS = """
from rekern.explain.explain import explain
from test_explain import cpu_call, gpu_call
import json
for e in (explain(gpu_call("gla", "h100_sxm")), explain(cpu_call("lstm", "x86_avx2"))):
    print(e, json.dumps(e.to_json()), e.to_html())
"""


def test_every_process_says_the_same_to_the_byte() -> None:
    def said(seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.path.dirname(__file__)}
        done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    first, second = said("1"), said("2")
    assert first == second
    assert first.startswith(b"gla ")


# -- what cannot be explained --------------------------------------------------------------------------------


def test_a_dtype_that_the_gpu_does_not_multiply_refuses_chunks_with_the_reason() -> None:
    call = Call.of(zoo.load("gla"), {"K": 64, "V": 64}, load("t4"), batch=2, heads=4, time=256, dtype="bfloat16")
    e = explain(call)
    assert "no matrix products of bfloat16" in e.refused["chunkwise"]
    assert e.schedule == "time_loop"
    assert e.ceilings is not None and e.ceilings.matrix_flops_per_s is None
    assert "no matrix products of bfloat16" in str(e)


def test_a_call_that_no_schedule_fits_shows_the_conflicts() -> None:
    call = gpu_call("based", "h100_sxm", K=128, V=128)
    with pytest.raises(PlanError, match=r"^no schedule fits based K=128 V=128") as caught:
        explain(call)
    assert "forward: tiles in registers: needs at least" in str(caught.value)
    assert set(problems(call)[0]) >= {"time_loop"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": {"K": 64}}, "gla: axis V has no length; give one: V=64"),
        ({"lengths": {"K": 64, "V": 64, "D": 4}}, "gla has no axis 'D'; it has K, V"),
        ({"batch": 0}, "gla: batch is 0, expected at least 1"),
        ({"threads": 0}, "gla: threads is 0, expected at least 1"),
        ({"dtype": "int8"}, "gla: there is no dtype 'int8'; expected one of float32, float64, bfloat16, float16"),
        ({"machine": load("t4")}, "t4 is a gpu, expected a CPU"),
    ],
)
def test_a_call_on_a_cpu_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    right = {
        "spec": zoo.load("gla"), "lengths": {"K": 64, "V": 64}, "batch": 1, "heads": 1, "dtype": "float32",
        "threads": 1, "machine": load("x86_avx2"),
    }  # fmt: skip
    with pytest.raises(PlanError) as caught:
        CpuCall(**{**right, **changes})
    assert str(caught.value) == message
