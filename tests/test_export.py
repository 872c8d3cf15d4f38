"""An exported file: it runs without rekern, it means what the spec means, and it is written with care."""

import builtins
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import rekern as rk
from kernel_checks import Run, close, cotangents, draw, errors, exact, run
from rekern import Input, Param, Scalar, State, zoo
from rekern.api import compile
from rekern.backends.offline import Resources, TritonSource
from rekern.backends.triton import compile_triton
from rekern.errors import ArgumentError, PlanError
from rekern.gate.verdicts import Accepted
from rekern.hwmodels import load
from rekern.math import maximum, sigmoid, tanh
from rekern.runtime.gpu import fits
from rekern.runtime.gpu.choose import TIME_LOOPS
from rekern.runtime.gpu.export_view import exported
from rekern.runtime.gpu.kernel import GpuKernel
from rekern.runtime.gpu.views import PASSES, views
from rekern.spec import Recurrence
from triton_interpreter import spec_of


@rk.recurrence
def awkward(
    state=State("B"), heads=State("B", init=2), out=State(), time=Input("B"), run=Input(2, "B"), x_first=Input(),
    D=Param("B"), torch=Param(), scale=Scalar(default=3),
):
    """Names that the exported file has uses for, and a backslash: \\sigma."""
    state = tanh(D * state + time + run[0]) * sigmoid(run[1])
    heads = sigmoid(time) * heads + state
    out = maximum(out + x_first, torch)
    return (state, heads, out), {"tensors": state + scale * out, "kept": heads, "d_time": out}


RUNNER = Path(__file__).parent / "exported_run.py"
LENGTHS = {"B": 6, "D": 20, "K": 20, "V": 60, "N": 5}
H100 = load("h100_sxm")


def kernel_of(spec: Recurrence) -> GpuKernel:
    kernel = compile(spec, "h100_sxm")
    assert isinstance(kernel, GpuKernel)
    return kernel


def lengths_of(spec: Recurrence) -> dict[str, int]:
    return {axis: LENGTHS[axis] for axis in spec.axes}


def run_exported(
    spec: Recurrence, folder: Path, batch: int, time: int, heads: int, dtype: torch.dtype, device: str = "cpu"
) -> tuple[Any, Run]:
    """What the exported file of `spec` gives in a process without rekern; and the float64 reference.

    On a CPU kernels are interpreted.
    """
    file = folder / "exported.py"
    kernel_of(spec).export(file, dtype=str(dtype).removeprefix("torch."), **lengths_of(spec))
    operands, state = draw(spec, batch=batch, time=time, heads=heads, sizes=LENGTHS, dtype=dtype)
    # Not dense: the axis of time lies outermost.
    inputs = [o.name for o in spec.of_kind("input")]
    operands = {n: t.transpose(0, 1).contiguous().transpose(0, 1) if n in inputs else t for n, t in operands.items()}
    state = {n: t.float() for n, t in state.items()}
    expected = run(None, spec, exact(operands), exact(state))
    results = [t.to(dtype) for t in expected.outputs.values()] + [t.float() for t in expected.final.values()]
    weights = [t.to(device) for t in cotangents(results)]
    operands, state = ({n: t.to(device) for n, t in values.items()} for values in (operands, state))
    data = {"operands": operands, "state": state, "inputs": inputs, "cotangents": weights}
    torch.save(data, folder / "given.pt")
    words = [str(RUNNER), str(file), spec.name, str(folder / "given.pt"), str(folder / "got.pt")]
    command = [sys.executable, "-I", *words]
    environment = {**os.environ, "TRITON_INTERPRET": "1" if device == "cpu" else "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "got.pt"), expected


@pytest.mark.parametrize(
    "name, batch, time, heads, dtype",
    [
        ("lstm", 2, 3, 2, torch.float32),
        ("lstm", 2, 3, 1, torch.float16),
        ("gated_delta_rule", 1, 3, 2, torch.float32),
        ("hgrn", 2, 4, 1, torch.float32),
        ("mlstm", 1, 3, 1, torch.float32),
        ("layer_norm_lstm", 1, 2, 2, torch.float32),
        ("gru", 1, 0, 1, torch.float32),
    ],
)
def test_an_exported_file_means_what_the_spec_means(
    name: str, batch: int, time: int, heads: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    got, expected = run_exported(spec_of(name), tmp_path, batch, time, heads, dtype)
    assert got["rekern"] == [] and got["repeated"]
    limits = (1e-5, 5e-5) if dtype == torch.float32 else (2e-3, 4e-3)
    close(Run(got["outputs"], got["final"], got["gradients"]), expected, *limits)
    steps = Run(got["steps"] or got["outputs"], got["final of steps"], {})
    found = errors(steps, Run(expected.outputs, expected.final, {}))
    assert max(found.values()) <= limits[0], found


def test_the_names_of_the_caller_give_way_to_nothing_but_words_of_the_file(tmp_path: Path) -> None:
    got, expected = run_exported(awkward, tmp_path, 2, 3, 2, torch.float32)
    close(Run(got["outputs"], got["final"], got["gradients"]), expected)
    steps = Run(got["steps"], got["final of steps"], {})
    assert max(errors(steps, Run(expected.outputs, expected.final, {})).values()) <= 1e-5


@pytest.mark.parametrize("name", zoo.names())
def test_every_recurrence_can_be_exported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(name)
    accepted = Accepted(Resources(128, 64, 0, 0, 0, 0, ()))  # the whole zoo is compiled elsewhere
    monkeypatch.setattr(fits, "ask", lambda source, machine: accepted)
    for dtype in ("float32", "bfloat16"):
        text = exported(views(spec, H100, dtype, lengths_of(spec), among=TIME_LOOPS))
        names: dict[str, Any] = {"__name__": "exported"}
        (tmp_path / "exported.py").write_text(text)
        exec(compile_python(text, tmp_path / "exported.py"), names)
        assert callable(names[spec.name]) and callable(names[f"{spec.name}_step"])
    host = text[: text.index(f"\ndef {spec.name}(")].count("\n") + 1
    linted = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F", "--output-format=json"]
    done = subprocess.run([*linted, str(tmp_path / "exported.py")], capture_output=True, text=True)
    faults = [(f["message"], f["location"]["row"]) for f in json.loads(done.stdout)]
    assert [f for f in faults if f[1] > host or "ndefined" in f[0]] == [], "a name without a meaning, or without a use"


def compile_python(text: str, path: Path) -> Any:
    return builtins.compile(text, str(path), "exec")


@pytest.mark.parametrize("name", ["lstm", "mlstm"])
def test_the_kernels_of_the_file_compile_without_a_gpu(name: str) -> None:
    spec = spec_of(name)
    found = views(spec, H100, "bfloat16", lengths_of(spec), among=TIME_LOOPS)
    text = exported(found)
    for pass_name in PASSES:
        (view,) = found.of(pass_name)
        entry = f"step_{spec.name}" if pass_name == "step" and f"def step_{spec.name}(" in text else view.entry
        arguments = tuple((a.name, a.dtype) for a in view.arguments)
        source = TritonSource(text, entry, arguments, (), (), view.sizes.warps, view.sizes.stages)
        assert compile_triton(source, "sm_90", disassemble=False).resources.spill_bytes == 0


def test_a_file_is_written_in_one_piece_and_only_over_one_of_ours(tmp_path: Path) -> None:
    kernel, path = kernel_of(zoo.load("hgrn")), tmp_path / "hgrn.py"
    kernel.export(path, D=20)
    kernel.export(str(path), D=40)
    assert "D = tl.constexpr(40)" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["hgrn.py"], "no temporary file is left"
    path.write_text('"""My own."""\n# exported by rekern\n')
    with pytest.raises(ArgumentError) as caught:
        kernel.export(path, D=40)
    assert str(caught.value) == (
        f"hgrn: {path} exists and was not exported by rekern; it is left as it is\n"
        "export to another file, or remove this one"
    )
    assert path.read_text().startswith('"""My own."""')
    with pytest.raises(ArgumentError, match=r"there is no folder .*nowhere\ncreate it first"):
        kernel.export(tmp_path / "nowhere" / "hgrn.py")


def test_a_kernel_for_the_cpu_says_how_to_export(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        compile(zoo.load("hgrn"), "cpu").export(tmp_path / "hgrn.py")
    assert str(caught.value) == (
        "hgrn: a file is exported for a GPU, and this kernel is for the CPU\n"
        'name a GPU, which need not be there: rekern.compile(spec, "h100_sxm").export(path)'
    )


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        kernel_of(zoo.load("hgrn")).export(tmp_path / "hgrn.py", D=20)
    assert list(tmp_path.iterdir()) == []


def test_sources_are_those_of_the_lengths_and_the_dtype() -> None:
    kernel = kernel_of(zoo.load("gated_delta_rule"))
    sources = kernel.sources(dtype="bfloat16", K=20, V=60)
    assert list(sources) == ["forward", "recording", "backward", "step"]
    assert all("K = tl.constexpr(20)" in text and "V = tl.constexpr(60)" in text for text in sources.values())
    assert ".to(tl.float32)" in sources["forward"] and ".to(tl.float32)" not in kernel.sources(K=20, V=60)["forward"]
    assert kernel.source == kernel.sources()["forward"]
    assert repr(kernel) == "<rekern.GpuKernel gated_delta_rule(q, k, v, g, beta) for h100_sxm>"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"Z": 3}, "hgrn has no axis 'Z'; it has D"),
        ({"D": 0}, "hgrn: D is 0, expected at least 1"),
        ({"dtype": "int8"}, "hgrn: there is no dtype 'int8'; expected one of bfloat16, float16, float32"),
        ({"batch": 0}, "hgrn: batch is 0, expected at least 1"),
    ],
)
def test_what_cannot_be_shown_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        kernel_of(zoo.load("hgrn")).sources(**given)
    assert str(caught.value) == message
