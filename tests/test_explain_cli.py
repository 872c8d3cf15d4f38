"""`rekern explain` on the command line: its options, its files, the texts of its errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rekern.cli.main import app
from rekern.explain.explain import explain
from test_explain import gpu_call

SMALL = ("--batch", "2", "--heads", "4", "--time", "1000", "--size", "K=64", "--size", "V=64")


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["explain", *words])


def printed(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_the_command_prints_what_the_function_returns() -> None:
    expected = explain(gpu_call("gla", "h100_sxm"), top=2)
    words = ("gla", "--target", "h100_sxm", "--dtype", "float16", *SMALL, "--top", "2")
    assert printed(*words) == f"{expected}\n"
    assert json.loads(printed(*words, "--json")) == expected.to_json()


def test_the_page_is_written_to_a_file_beside_the_text(tmp_path: Path) -> None:
    page = tmp_path / "gla.html"
    text = printed("gla", "--target", "h100_sxm", "--dtype", "float16", *SMALL, "--html", str(page))
    e = explain(gpu_call("gla", "h100_sxm"))
    assert text == f"{e}\n"
    assert page.read_text(encoding="utf-8") == e.to_html()


def test_forward_only_and_usual_lengths() -> None:
    first = printed("gla", "--target", "a100_sxm_80gb", "--forward-only").splitlines()[0]
    assert first == "gla K=64 V=64, batch 1, heads 4, time 1024, bfloat16, forward, on a100_sxm_80gb"


def test_a_gpu_without_bfloat16_is_explained_in_float16() -> None:
    assert "float16" in printed("hgrn", "--target", "t4").splitlines()[0]


@pytest.mark.parametrize("target", ["x86_avx512", "arm64_neon", "auto"])
def test_a_cpu_is_a_target_too(target: str) -> None:
    found = json.loads(printed("lstm", "--target", target, "--threads", "3", "--size", "D=48", "--json"))
    assert found["subject"]["lengths"] == {"D": 48}
    if found["subject"]["kind"] == "cpu":
        assert (found["subject"]["threads"], found["subject"]["time"]) == (3, None)
        assert found["schedule"] == "time_loop"


def test_a_spec_of_a_file_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "cells.py"
    path.write_text(
        "import rekern as rk\n"
        "from rekern import Input, State\n"
        "@rk.recurrence\n"
        'def mine(h=State("D"), x=Input("D"), g=Input("D", at_most=0)):\n'
        "    h = rk.math.exp(g) * h + x\n"
        "    return h, h\n"
    )
    assert printed(f"{path}:mine", "--target", "h100_sxm").startswith("mine D=512, ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gla", "--target", "h100"], "MachineError: no machine is named 'h100'. Did you mean 'h100_sxm'?"),
        (["gla", "--target", "t4", "--dtype", "float64"], "PlanError: gla: there is no dtype 'float64'; expected one"),
        (["gla", "--target", "t4", "--size", "D=4"], "SpecError: gla has no axis 'D'; it has K, V"),
        (["based", "--target", "h100_sxm", "--size", "K=128"], "PlanError: no schedule fits based K=128"),
        (["based", "--target", "h100_sxm", "--size", "K=128"], "forward: tiles in registers: needs at least"),
    ],
)
def test_what_cannot_be_explained_fails_with_the_reason(words: list[str], expected: str) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert expected in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gla", "--dtype", "int8"], "'int8' is not one of"),
        (["gla", "--top", "0"], "Invalid value for '--top'"),
        (["gla", "--target", "h100_sxm", "--threads", "2"], "h100_sxm is a GPU; threads are those of a CPU"),
        (["gla", "--target", "x86_avx2", "--forward-only"], "x86_avx2 is a CPU, whose sizes serve both passes"),
        (["gla", "--target", "x86_avx2", "--html", "nowhere/at/all.html"], "cannot write 'nowhere/at/all.html'"),
    ],
)
def test_a_wrong_command_line_has_exit_code_2(words: list[str], expected: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.replace("│", " ").split())
