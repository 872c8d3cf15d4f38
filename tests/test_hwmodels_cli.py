"""`rekern hw` and `rekern calibrate`: what they print, their JSON, and their errors."""

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from calibrations import calibration
from rekern.calibrate.measurement import measurement
from rekern.calibrate.overlay import Calibration
from rekern.cli.main import app
from rekern.hwmodels import detect, load, names
from rekern.hwmodels.files import FOLDER
from rekern.hwmodels.overlay import overlay_path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    detect.cache_clear()
    yield tmp_path
    detect.cache_clear()


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def printed(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


@pytest.fixture
def quick(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Calibration by numbers that are given."""
    recognise = importlib.import_module("rekern.hwmodels.detect")

    def set_numbers(**numbers: float) -> None:
        found = recognise.at_hand("cpu")

        def calibrate(kind: str, seconds: float) -> Calibration:
            assert kind == "cpu"
            return dataclasses.replace(calibration(found.machine, **numbers), processor=found.processor)

        monkeypatch.setattr(importlib.import_module("rekern.cli.calibrate"), "calibrate", calibrate)

    return set_numbers


def test_calibrate_prints_what_it_kept_and_where(quick: Callable[..., None], own_cache: Path) -> None:
    quick(barrier_seconds=4.2e-7)
    text = printed("calibrate")
    line = next(line for line in text.splitlines() if line.startswith("barrier_seconds"))
    assert line.split()[:2] == ["barrier_seconds", "4.2e-07"] and line.endswith("made up, barrier_seconds")
    assert f"kept in {own_cache / 'machines'}" in text
    cpu = detect().cpu
    assert cpu is not None and cpu.barrier_seconds == 4.2e-7
    shown = json.loads(printed("hw", "show", "--json"))["numbers"]["barrier_seconds"]
    assert (shown["value"], shown["origin"], shown["unit"]) == (4.2e-7, "measured", "seconds")
    assert shown["source"].startswith("made up, barrier_seconds; half of") and "`rekern calibrate`" in shown["source"]
    assert "measured numbers are kept in" in printed("hw", "show")
    assert json.loads(printed("hw", "detect", "--json"))[0]["calibrated"] is True


def test_a_dry_run_keeps_nothing(quick: Callable[..., None], own_cache: Path) -> None:
    quick(barrier_seconds=4.2e-7)
    assert "nothing was kept" in printed("calibrate", "--dry-run")
    told = json.loads(printed("calibrate", "--dry-run", "--json"))
    assert told["overlay"] is None and told["measurements"][0]["key"] == "barrier_seconds"
    assert told["measurements"][0]["stored"] is True and told["measurements"][0]["file"] > 0
    assert list(own_cache.iterdir()) == []
    assert "rekern calibrate" in printed("hw", "detect")


def test_numbers_that_swing_are_named(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swings = measurement("barrier_seconds", "s", [1e-7, 2e-7, 3e-6], "")
    made = dataclasses.replace(calibration(load("x86_avx2")), measurements=(swings,))
    monkeypatch.setattr(importlib.import_module("rekern.cli.calibrate"), "calibrate", lambda kind, seconds: made)
    text = printed("calibrate", "--dry-run")
    assert "not kept, because the rounds differ too much: barrier_seconds; is the machine busy?" in text


def test_calibrate_on_a_gpu_says_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("rekern.hwmodels.detect"), "read_devices", lambda: ())
    result = run("calibrate", "--gpu")
    assert result.exit_code == 1
    assert "MachineError: torch finds no GPU on this machine; name a machine file instead" in result.stderr
    assert run("calibrate", "--seconds", "0").exit_code == 2


def test_hw_ls_lists_every_machine() -> None:
    rows = json.loads(printed("hw", "ls", "--json"))
    assert [row["name"] for row in rows] == list(names())
    by_name = {row["name"]: row for row in rows}
    assert by_name["h100_sxm"] == {
        "name": "h100_sxm", "kind": "gpu", "architecture": "sm_90", "sms": 132, "dram_bytes": 85_899_345_920,
        "dram_bytes_per_s": 3.35e12, "flops_per_s": 9.894e14,
    }  # fmt: skip
    line = next(line for line in printed("hw", "ls").splitlines() if line.startswith("t4 "))
    assert line.split() == ["t4", "gpu", "sm_75", "40", "17.2", "GB", "320", "GB/s", "65.0", "TFLOP/s"]


@pytest.mark.parametrize("name", names())
def test_hw_show_has_every_number_with_its_source(name: str) -> None:
    told = json.loads(printed("hw", "show", name, "--json"))
    vector = {key.partition(".")[2]: value for key, value in load(name).resource_vector() if "." in key}
    assert {key: number["value"] for key, number in told["numbers"].items()} == vector
    assert all(number["source"] and number["origin"] == "file" for number in told["numbers"].values())
    assert all(key in printed("hw", "show", name) for key in vector)


def test_hw_show_reads_a_file_of_the_user(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (FOLDER / "t4.toml").read_text().replace('"t4"', '"mine"')
    path.write_text(text)
    assert printed("hw", "show", str(path)).startswith("mine\n")
    path.write_text(text.replace("= 3.20e11", "= 320"))
    result = run("hw", "show", str(path))
    assert result.exit_code == 1
    assert f"MachineError: {path}: [gpu] dram_bytes_per_s = 320, expected 1e9 to 1e14" in result.stderr
    missing = run("hw", "show", "h100")
    assert missing.exit_code == 1 and "no machine is named 'h100'. Did you mean 'h100_sxm'?" in missing.stderr


def test_hw_show_marks_what_was_read_here(own_cache: Path) -> None:
    told = json.loads(printed("hw", "show", "--json"))
    assert told["name"] == detect().name
    assert {number["origin"] for number in told["numbers"].values()} <= {"file", "read"}
    assert overlay_path(told["name"], "x").parent == own_cache / "machines"
