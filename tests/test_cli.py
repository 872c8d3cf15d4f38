"""The command line: what it prints, its JSON, its exit codes and the texts of its errors."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rekern import zoo
from rekern.api import compile
from rekern.cli.main import app
from rekern.cli.options import spec_of

GPU_CALL: dict[str, Any] = {"K": 20, "V": 60, "batch": 2, "time": 50, "heads": 3}
CELLS = '''
import rekern as rk
from rekern import Input, State
from rekern.math import exp, tanh

@rk.recurrence
def mine(h=State("D"), x=Input("D"), g=Input("D", at_most=0)):
    """A cell of mine."""
    h = exp(g) * h + tanh(x)
    return h, {"out": h, "twice": 2 * h}

@rk.recurrence
def grows(h=State("D", init=2), x=Input("D")):
    h = h * h + x * x
    return h, h

def helper():
    pass
'''


@pytest.fixture
def cells(tmp_path: Path) -> str:
    path = tmp_path / "cells.py"
    path.write_text(CELLS)
    return str(path)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def printed(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def json_of(*words: str) -> Any:
    return json.loads(printed(*words, "--json"))


def shell(words: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rekern.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


# -- zoo, show, render ---------------------------------------------------------------------------------------


def test_zoo_lists_every_recurrence_with_its_paper_and_kind() -> None:
    rows = json_of("zoo")
    assert [r["name"] for r in rows] == list(zoo.names())
    assert all(r["paper"] and r["operands"] and r["kind"] for r in rows)
    by_name = {r["name"]: r for r in rows}
    assert by_name["gru"] == {
        "name": "gru",
        "paper": "Cho et al. 2014, arXiv:1406.1078, in the reset-after form of cuDNN and torch",
        "operands": "x(3 D); R(3 D D) b(3 D) b_n(D)",
        "kind": "dense",
        "also": [],
    }
    assert by_name["simple_gla"]["also"] == ["mamba2", "ssd"]


def test_the_table_of_the_zoo_is_plain_when_piped() -> None:
    text = printed("zoo")
    assert "\x1b" not in text
    assert all(name in text for name in zoo.names())


def test_show_has_the_equations_the_facts_and_the_sizes() -> None:
    text = printed("show", "gla", "--size", "K=32", "--threads", "1")
    assert str(zoo.load("gla")) in text
    assert "S: affine, matrix, K decay" in text
    assert "B1 T1024 H4 K32 V64, float32, 1 thread" in text
    assert "of at most" in text, "the slack of the limits"


def test_show_as_json_follows_the_options() -> None:
    found = json_of("show", "lstm", "--size", "D=48", "--batch", "3", "--threads", "1", "--dtype", "float64")
    assert found["name"] == "lstm"
    assert found["facts"]["stages"][0]["states"] == ["h", "c"]
    plan = found["plan"]
    assert (plan["sizes"], plan["batch"], plan["threads"]) == ({"D": 48}, 3, 1)
    assert plan["compiled"]["real"] == "double"
    assert all({"used", "bound", "unit"} == set(limit) for limit in plan["limits"].values())


def test_render_prints_what_is_compiled() -> None:
    expected = compile(zoo.load("hgrn")).sources(D=48)
    assert printed("render", "hgrn", "--size", "D=48") == expected["forward"]
    assert printed("render", "hgrn", "--size", "D=48", "--pass", "backward") == expected["backward"]
    assert json_of("render", "hgrn", "--size", "D=48")["sources"] == expected


def test_render_prints_the_triton_of_a_gpu_that_is_not_there() -> None:
    kernel = compile(zoo.load("gla"), "h100_sxm")
    expected = kernel.sources(**GPU_CALL, dtype="bfloat16")
    words = ["render", "gla", "--target", "h100_sxm", "--dtype", "bfloat16", "--size", "K=20", "--size", "V=60"]
    words += ["--batch", "2", "--time", "50", "--heads", "3"]
    assert printed(*words) == expected["forward"]
    assert printed(*words, "--pass", "step") == expected["step"]
    assert json_of(*words) == {"name": "gla", "target": "h100_sxm", "sources": expected}


def test_an_axis_is_bound_by_an_option_or_as_the_zoo_needs_it() -> None:
    assert spec_of("gated_delta_product", None, None)[0].bindings == (("n", 2),)
    assert spec_of("gated_delta_product", None, ["n=3"])[0].bindings == (("n", 3),)


# -- a spec in a file ----------------------------------------------------------------------------------------


def test_a_spec_of_a_file_is_shown(cells: str) -> None:
    assert "h[d] = exp(g[d]) * h(t-1)[d] + tanh(x[d])" in printed("show", f"{cells}:mine")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gated_delta", "did you mean 'gated_delta_rule'?"),
        ("nowhere.py:mine", "there is no file 'nowhere.py'"),
        ("{cells}", "name the recurrence in it: {cells}:NAME\nit has mine, grows"),
        ("{cells}:mime", "{cells} has no 'mime'; did you mean 'mine'?\nit has mine, grows"),
        ("{cells}:helper", "'helper' in {cells} is a function, not a recurrence\nit has mine, grows"),
        ("{cells}:rk", "'rk' in {cells} is a module, not a recurrence"),
        ("{folder}/fails.py:x", "cannot run {folder}/fails.py: ZeroDivisionError: division by zero\n    1 / 0\nline 2"),
        ("{folder}/wrong.py:x", "cannot run {folder}/wrong.py: SyntaxError"),
        ("{folder}/empty.py:x", "it has no recurrence; decorate a step with @rekern.recurrence"),
        ("{folder}/text.txt:x", "is not a Python file"),
    ],
)
def test_a_spec_that_is_not_there_is_explained(name: str, expected: str, cells: str) -> None:
    folder = Path(cells).parent
    for file, text in {"fails.py": "x = 1\n1 / 0\n", "wrong.py": "x = = 1\n", "empty.py": "", "text.txt": ""}.items():
        (folder / file).write_text(text)
    result = run("show", name.format(cells=cells, folder=folder))
    assert result.exit_code == 1
    assert expected.format(cells=cells, folder=folder) in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "gla", "--size", "D=4"], "SpecError: gla has no axis 'D'; it has K, V"),
        (["render", "gla", "--target", "h100"], "PlanError: there is no target 'h100'; expected"),
        (["render", "gla", "--target", "h100"], "Did you mean 'h100_sxm'?"),
        (["render", "gla", "--target", "x86_avx2"], "target x86_avx2 is a cpu, expected a GPU"),
        (["show", "gated_delta_product", "--size", "n=4"], "has no axis 'n' (bound already)"),
        (["show", "gla", "--bind", "n=4"], "SpecError: gla has no axis 'n' to bind"),
        (["bench", "{cells}:grows", "--time", "40", "--seconds", "0"], "grows overflows on random data"),
    ],
)
def test_what_does_not_fit_the_spec_fails(words: list[str], expected: str, cells: str) -> None:
    result = run(*(word.format(cells=cells) for word in words))
    assert result.exit_code == 1
    assert expected in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["show"],
        ["show", "gla", "--size", "K:4"],
        ["show", "gla", "--size", "K=0"],
        ["show", "gla", "--dtype", "int8"],
        ["render", "gla", "--pass", "sideways"],
        ["render", "gla", "--target", "h100_sxm", "--pass", "sideways"],
        ["render", "gla", "--target", "h100_sxm", "--dtype", "int8"],
        ["render", "gla", "--dtype", "bfloat16"],
        ["bench", "gla", "--batch", "0"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_has_exit_code_2(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Error" in result.stderr


# -- bench ---------------------------------------------------------------------------------------------------

TIMED = {"name", "median_seconds", "min_seconds", "quartile_seconds", "rounds", "error", "kept_bytes"}


def check_result(result: dict[str, Any], names: set[str]) -> None:
    assert result["rekern"].keys() == TIMED
    assert {b["name"] for b in result["baselines"]} | result["slower_seconds"].keys() >= names
    assert [b["role"] for b in result["baselines"]] == sorted({b["role"] for b in result["baselines"]}, key=ROLES.index)
    for timed in (result["rekern"], *result["baselines"]):
        assert timed["rounds"] >= 3
        assert 0 < timed["min_seconds"] <= timed["median_seconds"]
        assert timed["error"] < 1e-4
    assert result["floor"]["bytes"] > 0 < result["floor"]["flops"]


ROLES = ["loop", "torch", "nn"]


def test_bench_compares_with_the_loop_torch_and_torch_nn() -> None:
    found = json_of("bench", "elman", "--batch", "2", "--time", "6", "--size", "D=16", "--seconds", "0")
    assert {"machine", "cpu", "torch", "compiler", "environment"} <= found["machine"].keys()
    assert [r["pass"] for r in found["results"]] == ["forward", "forward+backward"]
    for result in found["results"]:
        check_result(result, {"nn.RNN"})
        assert (result["batch"], result["time"], result["sizes"]) == (2, 6, {"D": 16})
    first, second = found["results"]
    assert second["floor"]["flops"] == 3 * first["floor"]["flops"]


def test_bench_prints_a_table_for_a_spec_of_a_file(cells: str) -> None:
    words = ["--batch", "2", "--time", "6", "--size", "D=16", "--seconds", "0", "--pass", "forward"]
    text = printed("bench", f"{cells}:mine", *words)
    assert text.startswith("mine, B2 T6 H1 D16, float32, 1 thread")
    assert "generated loop" in text and "floor, forward" in text


# -- doctor and the process ----------------------------------------------------------------------------------


def test_doctor_compiles_and_runs_a_kernel() -> None:
    found = json_of("doctor")
    assert found["ok"]
    assert {c["name"]: c["verdict"] for c in found["checks"]} | {"OpenMP": "ok"} == dict.fromkeys(
        ["versions", "machine", "compiler", "cache", "self test", "OpenMP"], "ok"
    )
    assert found["variables"]["REKERN_CACHE_DIR"] == os.environ["REKERN_CACHE_DIR"]


def test_doctor_says_what_to_do_where_there_is_no_compiler(tmp_path: Path) -> None:
    done = shell(["doctor"], PATH=str(tmp_path), CXX="", REKERN_CXX="", REKERN_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "something is broken" in done.stdout
    assert "name it in REKERN_CXX" in done.stdout


def test_the_module_runs_as_a_command() -> None:
    done = shell(["--version"])
    assert (done.returncode, done.stdout.split()[0]) == (0, "rekern")
    assert shell(["show", "nothing_like_it"]).returncode == 1
    assert shell(["show"]).returncode == 2
