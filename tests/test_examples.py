"""The examples run, and show what they say: small sizes here, the real ones by hand."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch

import rekern as rk
from source_tree import ROOT


def example(name: str) -> ModuleType:
    """The module of an example, as a script would load it, but without running its `main`."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_the_language_model_learns_and_agrees_with_the_python_loop(capsys: pytest.CaptureFixture[str]) -> None:
    char_lm = example("char_lm")
    with threads(1):
        losses = char_lm.run(char_lm.Settings(steps=40, batch=8, length=48, dim=32, heads=1, layers=1))
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    shown = capsys.readouterr().out
    assert "differ by" in shown and "tokens/s" in shown and "times as fast" in shown
    assert len(shown[shown.index("A sample:") :]) > 300


def test_the_cell_of_the_language_model_is_its_python_loop() -> None:
    char_lm = example("char_lm")
    torch.manual_seed(0)
    operands = {
        "q": torch.randn(2, 9, 3, 4), "k": torch.randn(2, 9, 3, 4), "v": torch.randn(2, 9, 3, 5),
        "forget": torch.randn(2, 9, 3), "gain": torch.randn(3, 5), "bias": torch.randn(3, 5),
    }  # fmt: skip
    operands = {name: value.double() for name, value in operands.items()}
    meant, states = rk.reference(char_lm.surprise_memory, operands)
    looped, last = char_lm.python_loop(**operands)
    torch.testing.assert_close(looped, meant)
    torch.testing.assert_close(last["S"], states["S"])


@pytest.mark.slow
def test_slstm_learns_parity_and_linear_attention_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    state_tracking = example("state_tracking")
    with threads(1):
        found = state_tracking.run(state_tracking.Settings(steps=150, batch=48, dim=24, tested_strings=256))
    trained = [n for n, length in enumerate(state_tracking.LENGTHS) if length <= state_tracking.LONGEST_TRAINED]
    assert min(found["slstm"][n] for n in trained) > 0.95
    for name in ("linear_attention", "simple_gla"):
        assert 0.35 < found[name][trained[-1]] < 0.65
    table = capsys.readouterr().out
    for name in state_tracking.CELLS:
        assert re.search(rf"{name}\W+\d+\.\d %", table), table


@pytest.mark.parametrize("name", ["char_lm", "state_tracking"])
def test_examples_say_what_they_can_be_asked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        example(name).main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--short", "--steps", "--threads"))
