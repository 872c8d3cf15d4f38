"""What benchmarks compare computes the same numbers, on data that keeps the facts; and the benchmark itself runs."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rekern import zoo
from rekern.cli.candidates import MODULES, Candidate, candidates
from rekern.cli.errors import kept_bytes, truth
from rekern.cli.floor import floor
from rekern.cli.measure import measure
from rekern.cli.specs import ZOO_BINDINGS, find
from rekern.cli.timing import LEAST_ROUNDS, MOST_ROUNDS, interleave
from rekern.cli.workload import Data, Workload, draw, workloads
from rekern.hwmodels import detect
from rekern.reference import reference

SMALL = {"D": 6, "K": 5, "V": 4, "N": 3}
ROOT = Path(__file__).resolve().parent.parent


def small(name: str, time: int = 70, heads: int = 2) -> Workload:
    spec = find(name)
    return Workload(spec, 2, time, heads, {axis: SMALL[axis] for axis in spec.axes})


def in_float64(data: Data) -> Data:
    source = tuple(t.double() for t in data.source) if data.source else None
    return Data(data.workload, {n: t.double() for n, t in data.operands.items()}, source)


def baselines(data: Data) -> list[Candidate]:
    return [c for c in candidates(data, ("loop", "torch")) if c.role != "rekern"]


@pytest.mark.parametrize("name", zoo.names())
def test_every_baseline_computes_what_the_spec_means(name: str) -> None:
    data = in_float64(draw(small(name)))
    wanted, _ = reference(data.workload.spec, data.operands)
    found = baselines(data)
    assert {"reference loop", "generated loop", "hand-written loop"} <= {c.name for c in found}
    for candidate in found:
        (out,) = candidate.run()
        torch.testing.assert_close(out, wanted, rtol=1e-9, atol=1e-9, msg=lambda m, c=candidate: f"{c.name}: {m}")


def test_no_baseline_is_left_out_by_a_slip_of_the_pen() -> None:
    kinds = {name: [c.role for c in baselines(draw(small(name, time=2)))] for name in zoo.names()}
    without = {name for name, roles in kinds.items() if "torch" not in roles}
    assert without == {
        "elman", "lstm", "gru", "slstm", "lstm_peephole", "layer_norm_lstm",    # no product with time in parallel
        "indrnn", "sru",    # not linear in the state
        "oja",              # nobody has written it
    }  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_torch_nn_is_given_the_same_problem(name: str) -> None:
    data = draw(small(name, heads=1))
    true = truth(data, gradients=True)
    module = next(c for c in candidates(true.data, ("nn",)) if c.role == "nn")
    assert true.output_error(module) < 1e-5
    assert true.gradient_error(module) < 1e-4


@pytest.mark.parametrize("name", zoo.names())
def test_data_keeps_the_facts_and_numbers_stay_small(name: str) -> None:
    for work in workloads(find(name)):
        data = draw(replace(work, batch=1))
        for o in work.spec.of_kind("input", "param"):
            value = data.operands[o.name]
            assert o.at_most is None or float(value.max()) <= o.at_most
            assert o.at_least is None or float(value.min()) >= o.at_least
        loop = next(c for c in candidates(data, ("loop",)) if c.name == "hand-written loop")
        assert all(float(out.abs().max()) < 1e4 for out in loop.run())


def test_specs_that_need_a_binding_are_in_the_zoo() -> None:
    assert set(ZOO_BINDINGS) <= set(zoo.names())


def test_the_floor_grows_with_the_work() -> None:
    work, machine = small("gla"), detect()
    one, two = (floor(replace(work, batch=batch), False, machine, 1) for batch in (1, 2))
    assert (two.bytes, two.flops) == (2 * one.bytes, 2 * one.flops)
    assert floor(work, True, machine, 1).bytes > 2 * floor(work, False, machine, 1).bytes


def test_rounds_take_turns_and_keep_to_the_budget() -> None:
    order: list[str] = []
    ticks = iter(range(10**6))
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    long = interleave(calls, lambda: float(next(ticks)), 0.0, {"a": 1.0, "b": 1.0})
    assert order == ["a", "b"] * LEAST_ROUNDS
    short = interleave(calls, lambda: float(next(ticks)), 1e9, {"a": 1.0, "b": 1.0})
    assert [len(s.seconds) for s in (long["a"], short["b"])] == [LEAST_ROUNDS, MOST_ROUNDS]


def test_what_a_loop_keeps_for_the_gradient_is_counted() -> None:
    data = draw(small("hgrn", time=8))
    loop = next(c for c in candidates(data, ("loop",)) if c.name == "hand-written loop")
    number_of_states = 2 * 8 * 2 * SMALL["D"]
    assert kept_bytes(loop) >= 4 * number_of_states


def test_a_measurement_has_every_part() -> None:
    work = Workload(find("hgrn"), 2, 8, 1, {"D": 16})
    seen: list[str] = []
    found = measure(work, seconds=0.0, after=lambda m: seen.append(m.passes))
    assert seen == [m.passes for m in found] == ["forward", "forward+backward"]
    for m in found:
        assert m.rekern.name == "rekern"
        assert {b.role for b in m.baselines} == {"loop", "torch"}
        assert m.ratio("loop") is not None and m.ratio("nn") is None
        assert m.checked_steps == 8


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "machine" / "cpu.json"
    command = [sys.executable, ROOT / "benchmarks" / "cpu.py", "--quick", "--spec", "hgrn", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["failed"] == [] and report["quick"]
    assert [r["pass"] for r in report["results"]] == ["forward", "forward+backward"]
    assert {"cpu", "torch", "compiler", "environment"} <= report["machine"].keys()
    (memory,) = report["memory"]
    assert memory["kept_bytes"] > 0 < memory["all_states_bytes"]
    calls = {o["call"]: o["inside"] for o in report["call_overhead"]}
    assert calls.keys() == {"forward", "step", "step in place", "forward+backward"}
    assert all(inside > 0 for inside in calls.values()), "the libraries were not timed"
    (first,) = report["first_call"]
    assert first["nothing_cached"]["seconds"] > 0 < first["cached"]["seconds"]
    assert "hgrn" in done.stdout


@pytest.mark.parametrize("kernel", ["linear_attention", "projected_lstm"])
def test_the_table_of_goals_runs(kernel: str, tmp_path: Path) -> None:
    out = tmp_path / "limits.json"
    command = [sys.executable, ROOT / "benchmarks" / "limits.py", "--quick", "--only", kernel, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(out.read_text())
    assert {row["kernel"] for row in report["results"]} == {kernel}
    assert all(row["ratio"] > 0 and row["error"] < 1e-4 for row in report["results"])
    assert "1 thread(s), allocator: kept" in done.stdout


def test_the_benchmark_of_an_unknown_spec_fails(tmp_path: Path) -> None:
    described = importlib.util.spec_from_file_location("benchmarks_cpu", ROOT / "benchmarks" / "cpu.py")
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    assert module.main(["--spec", "nothing", "--out", str(tmp_path / "cpu.json"), "--no-first-call"]) == 1


def test_published_tables_show_what_was_measured() -> None:
    command = [sys.executable, ROOT / "benchmarks" / "publish.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_benchmark_for_gpus_runs_without_one(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--dry-run", "--minutes", "0.2", "--out", str(out)]
    cases = ["--case", "12 heads of 64", "--case", "step, gated delta rule", "--case", "elementwise"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([*command, *cases], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    report = json.loads(out.read_text())
    assert report["dry_run"] and report["failed"] == []
    assert {"torch", "triton", "copy_bytes_per_s"} <= report["machine"].keys()
    first = report["results"][0]
    assert (first["case"], first["passes"]) == ("dense LSTM, 12 heads of 64", "forward")
    assert first["timed"]["rekern"]["error"] < 1e-4 and first["bytes"] > 0 < first["floor_seconds"]
    assert "flashrnn cuda_fused" in first["missing"], "a peer that is not installed is named"
    assert [p.name for p in tmp_path.iterdir()] == ["gpu.json"]
    assert "dense LSTM, 12 heads of 64" in done.stdout


def test_a_peer_that_ends_the_process_costs_its_case_the_peers_only(tmp_path: Path) -> None:
    (tmp_path / "flashrnn.py").write_text("import os\n\nos._exit(3)\n")
    out = tmp_path / "gpu.json"
    words = ["--dry-run", "--minutes", "0.1", "--out", str(out), "--case", "12 heads of 64"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    report = json.loads(out.read_text())
    assert done.returncode == 1
    assert [f["case"] for f in report["failed"]] == ["peers of dense LSTM, 12 heads of 64"]
    assert [r["passes"] for r in report["results"]] == ["forward", "forward+backward"]


def test_the_benchmark_for_gpus_says_what_it_needs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"}
    dry = subprocess.run([*command, "--dry-run"], env=environment, capture_output=True, text=True)
    assert dry.returncode == 2 and "a dry run needs TRITON_INTERPRET=1" in dry.stdout
    environment["CUDA_VISIBLE_DEVICES"] = ""
    real = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert real.returncode == 2 and "torch finds no GPU here" in real.stdout
