"""Calibration: rounds become numbers, numbers an overlay, an overlay the machine that plans are made for."""

import dataclasses
import importlib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calibrations import WHO, calibration
from rekern.calibrate import cpu as on_cpu
from rekern.calibrate import gpu as on_gpu
from rekern.calibrate.measurement import (
    LEAST_ROUNDS,
    MOST_ROUNDS,
    Job,
    Measurement,
    host_timer,
    measurement,
    take_turns,
)
from rekern.calibrate.overlay import calibrate, save
from rekern.errors import RekernError
from rekern.hwmodels import Cpu, Gpu, MachineError, detect, load, names
from rekern.hwmodels.overlay import measured, with_overlay
from rekern.reference import reference
from rekern.runtime.kernel import Kernel
from rekern.zoo import load as spec

CPUS = [name for name in names() if load(name).kind == "cpu"]
GPUS = [name for name in names() if load(name).kind == "gpu"]


def cpu_of(name: str) -> Cpu:
    cpu = load(name).cpu
    assert cpu is not None
    return cpu


def gpu_of(name: str) -> Gpu:
    gpu = load(name).gpu
    assert gpu is not None
    return gpu


def by_key(numbers: tuple[Measurement, ...]) -> dict[str, Measurement]:
    return {m.key: m for m in numbers}


def nothing() -> None:
    pass


# ---------------------------------------------------------------- rounds


class Clock:
    """Time passes only when something runs."""

    def __init__(self) -> None:
        self.time = 0.0
        self.ran: list[str] = []

    def timer(self, job: Job) -> float:
        self.ran.append(job.name)
        self.time += 1.0
        return self.time


def test_jobs_take_turns_and_the_first_round_is_forgotten() -> None:
    clock = Clock()
    samples = take_turns([Job("a", nothing, "thread"), Job("b", nothing, "wall")], clock.timer, 0.0, lambda: clock.time)
    assert clock.ran == ["a", "b"] * (LEAST_ROUNDS + 1)
    assert samples == {"a": (3.0, 5.0, 7.0), "b": (4.0, 6.0, 8.0)}


@given(seconds=st.floats(0, 300))
def test_the_time_is_kept_but_for_the_least_rounds(seconds: float) -> None:
    clock = Clock()
    rounds = len(take_turns([Job("a", nothing, "thread")], clock.timer, seconds, lambda: clock.time)["a"])
    assert LEAST_ROUNDS <= rounds <= MOST_ROUNDS
    assert rounds == LEAST_ROUNDS or clock.time <= seconds
    assert rounds == MOST_ROUNDS or clock.time + 1.0 > seconds, "and it is used"


def test_of_several_threads_the_shortest_burst_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert host_timer(Job("barriers", nothing, "wall", repeats=3)) == 2.0
    with pytest.raises(ValueError, match=r"^launch is timed on a device, not on the host$"):
        host_timer(Job("launch", nothing, "device"))


def test_a_number_that_swings_is_shown_but_not_stored() -> None:
    steady = measurement("barrier_seconds", "s", [1.0, 1.1, 1.2], "")
    assert (steady.median, steady.low, steady.high) == pytest.approx((1.1, 1.05, 1.15)) and steady.stored
    assert not measurement("barrier_seconds", "s", [1.0, 2.0, 30.0], "").stored
    assert not dataclasses.replace(steady, kept=False).stored


# ---------------------------------------------------------------- CPU


@pytest.mark.parametrize("name", CPUS)
def test_the_numbers_of_a_cpu_come_back_from_the_time_that_they_would_take(name: str) -> None:
    cpu = cpu_of(name)
    rounds, size = on_cpu.counts(cpu), on_cpu.sizes(cpu)
    stream, fork = cpu.dram_stream_bytes_per_s or 3e10, cpu.fork_join_seconds or 1e-6
    chains = 24 if cpu.vector_registers == 32 else 12
    seconds = {
        "cycles": 16 * rounds["cycles"] / cpu.clock_hz,
        "multiply_adds": 16 * chains * rounds["multiply_adds"] / cpu.clock_hz / cpu.fma_per_cycle,
        "stream": 3 * size["stream"] * rounds["stream"] / stream,
        "barriers": rounds["barriers"] * cpu.barrier_seconds,
        "regions": rounds["regions"] * fork,
    }
    for level in cpu.levels:
        if level.name in size:
            seconds[level.name] = size[level.name] * rounds[level.name] / level.bytes_per_s
    found = by_key(on_cpu.measurements(cpu, {job: (s, s, s) for job, s in seconds.items()}))
    expected = cpu if cpu.dram_stream_bytes_per_s else dataclasses.replace(cpu, dram_stream_bytes_per_s=stream)
    for key, number in found.items():
        assert number.kept and number.median == pytest.approx(getattr(expected, key)), key
    fields = {f.name for f in dataclasses.fields(Cpu)}
    assert set(found) <= fields and {"clock_hz", "fma_per_cycle", "dram_bytes_per_s", "barrier_seconds"} <= set(found)


@pytest.mark.parametrize("name", CPUS)
def test_buffers_lie_within_their_level_and_beyond_the_one_before(name: str) -> None:
    cpu = cpu_of(name)
    size = on_cpu.sizes(cpu)
    assert size["l1"] < cpu.l1_bytes < size["l2"] <= cpu.l2_bytes
    assert size["dram"] > 2 * (cpu.l3_bytes_per_core or 0) * cpu.cores and 3 * size["stream"] > size["dram"] / 2
    assert all(s % (8 * cpu.vector_bytes) == 0 for s in size.values())
    if "l3" in size:
        assert cpu.l3_bytes_per_core is not None and 2 * cpu.l2_bytes <= size["l3"] < cpu.l3_bytes_per_core


def test_a_level_that_cannot_be_told_from_the_one_before_is_left_out() -> None:
    server = dataclasses.replace(cpu_of("x86_avx512"), l2_bytes=2 << 20, l3_bytes_per_core=1_966_080)
    assert "l3" not in on_cpu.sizes(server)
    small = dataclasses.replace(cpu_of("x86_avx512"), l1_bytes=1 << 20, l2_bytes=1 << 20)
    assert "l2" not in on_cpu.sizes(small)


@pytest.mark.parametrize("name", CPUS)
def test_the_source_is_that_of_the_instruction_set(name: str, golden: Any) -> None:
    cpu = dataclasses.replace(cpu_of(name), bf16_dot=name != "x86_avx2")
    source = on_cpu.source(cpu)
    golden(source.text, "cpp")
    assert f"#define REKERN_VECTOR_BYTES {cpu.vector_bytes}" in source.files["vector.h"]


@pytest.mark.slow
def test_this_cpu_is_measured() -> None:
    done = calibrate("cpu", seconds=0.1)
    cpu = done.machine.cpu
    assert cpu is not None and done.rounds >= LEAST_ROUNDS
    found = by_key(done.measurements)
    assert 0.5e9 < found["clock_hz"].median < 7e9
    assert 0.5 < found["fma_per_cycle"].median < 4.2
    rates = [found[f"{level}_bytes_per_cycle"].median * found["clock_hz"].median for level in ("l1", "l2")]
    rates += [found[f"{level}_bytes_per_s"].median for level in ("l3", "dram") if f"{level}_bytes_per_s" in found]
    assert rates[0] > rates[-1] and min(rates) > 1e9
    assert 1e-8 < found["barrier_seconds"].median < 1e-2
    overlay = measured(str(done), done.machine, done.processor)
    assert overlay == done.numbers


# ---------------------------------------------------------------- GPU


@pytest.mark.parametrize("name", GPUS)
def test_the_numbers_of_a_gpu_come_back_from_the_time_that_they_would_take(name: str) -> None:
    gpu = gpu_of(name)
    size = on_gpu.copies(gpu)
    assert size["copy_half_l2"] * 2 <= size["copy_l2"] + 8192 and 2 * size["copy_l2"] < gpu.l2_bytes < size["copy_dram"]
    launching = 5e-6
    seconds = {
        "copy_dram": 2 * size["copy_dram"] / (gpu.dram_share * gpu.dram_bytes_per_s),
        "copy_l2": launching + 2 * size["copy_l2"] / gpu.l2_bytes_per_s,
        "copy_half_l2": launching + 2 * size["copy_half_l2"] / gpu.l2_bytes_per_s,
        "launch": gpu.launch_seconds,
        "graph_launch": gpu.graph_launch_seconds,
    }
    for dtype in on_gpu.products(gpu):
        seconds[dtype] = 2 * on_gpu.order(gpu) ** 3 / (gpu.mma_share * getattr(gpu, f"{dtype}_flops_per_s"))
    found = by_key(on_gpu.measurements(gpu, {job: (s, s, s) for job, s in seconds.items()}))
    stored = {key: number for key, number in found.items() if number.stored}
    assert set(stored) == {"dram_share", "l2_bytes_per_s", "mma_share", "launch_seconds", "graph_launch_seconds"}
    for key, number in stored.items():
        assert number.median == pytest.approx(getattr(gpu, key)), key
    assert [key for key in found if key not in stored] == [f"{d}_reached_flops_per_s" for d in on_gpu.products(gpu)]


def test_a_t4_is_measured_in_float16() -> None:
    assert on_gpu.products(gpu_of("t4")) == ("float16",)
    assert on_gpu.products(gpu_of("rx7900xtx")) == ("bfloat16", "float16")


def test_a_gpu_that_beats_its_data_sheet_has_a_share_of_one() -> None:
    gpu = gpu_of("h100_sxm")
    samples = {job.name: (1e-9, 1e-9, 1e-9) for job in on_gpu.jobs(gpu, "meta")}
    found = by_key(on_gpu.measurements(gpu, samples))
    assert found["mma_share"].median == found["dram_share"].median == 1.0
    assert "l2_bytes_per_s" not in found, "two sizes that take equally long say nothing"


def test_every_job_of_a_gpu_runs_and_is_timed_on_the_device() -> None:
    """On tensors without data: shapes and types are checked, and nothing is computed."""
    before = torch.get_float32_matmul_precision()
    for job in on_gpu.jobs(gpu_of("h100_sxm"), "meta"):
        job.call()
        assert job.clock in ("device", "graph") and job.repeats > 1
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.gpu
def test_this_gpu_is_measured() -> None:
    done = calibrate("gpu", seconds=10)
    found = by_key(done.measurements)
    assert 0.3 < found["dram_share"].median <= 1 and 0.2 < found["mma_share"].median <= 1
    assert found["graph_launch_seconds"].median <= found["launch_seconds"].median < 1e-4


# ---------------------------------------------------------------- overlay


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    detect.cache_clear()
    yield tmp_path
    detect.cache_clear()


def test_an_overlay_says_who_when_how_and_with_what(own_cache: Path) -> None:
    swings = measurement("dram_bytes_per_s", "bytes/s", [1e10, 2e10, 9e10], "disturbed")
    made = calibration(load("x86_avx512"), clock_hz=3.66123e9, barrier_seconds=4.2e-7)
    made = dataclasses.replace(made, measurements=(*made.measurements, swings))
    assert str(made) == (
        'name = "x86_avx512"\n'
        'processor = "A \\"quoted\\" core, 2 cores"\n'
        "\n"
        "[cpu.measured]    # `rekern calibrate`, 2026-11-21 09:05 UTC, 3 rounds, g++ 99\n"
        "clock_hz = 3.661e+09    # made up, clock_hz; half of the rounds: 3.661e+09 to 3.661e+09\n"
        "barrier_seconds = 4.2e-07    # made up, barrier_seconds; half of the rounds: 4.2e-07 to 4.2e-07\n"
    )
    assert tomllib.loads(str(made))["cpu"]["measured"] == made.numbers
    assert made.numbers == {"clock_hz": 3.661e9, "barrier_seconds": 4.2e-7}


@pytest.mark.parametrize("name", ["x86_avx512", "h100_sxm"])
def test_what_was_saved_is_read_again(name: str, own_cache: Path) -> None:
    numbers = {"barrier_seconds": 4e-7} if name == "x86_avx512" else {"launch_seconds": 4e-6, "mma_share": 0.8}
    machine = load(name)
    path = save(calibration(machine, **numbers))
    assert path.parent == own_cache / "machines" and os.listdir(path.parent) == [path.name]
    here = dict(with_overlay(machine, WHO).resource_vector())
    assert {key: here[f"{machine.kind}.{key}"] for key in numbers} == numbers
    assert with_overlay(machine, "another") == machine
    save(calibration(machine, **{key: value / 2 for key, value in numbers.items()}))
    assert with_overlay(machine, WHO) != machine and os.listdir(path.parent) == [path.name]


def test_numbers_that_make_no_machine_are_not_saved(own_cache: Path) -> None:
    with pytest.raises(MachineError, match=r"^\[cpu\] clock_hz = 3\.0, expected 2e8 to 1e10 hertz; is it in GHz\?$"):
        save(calibration(load("x86_avx2"), clock_hz=3.0))
    assert not (own_cache / "machines").exists()


def test_a_write_that_fails_leaves_what_was_there(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = load("x86_avx2")
    path = save(calibration(machine, barrier_seconds=4e-7))
    before = path.read_text()

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RekernError) as caught:
        save(calibration(machine, barrier_seconds=9e-7))
    assert str(caught.value) == (
        f"cannot keep the calibration in {path.parent}: No space left on device\n"
        "set REKERN_CACHE_DIR to a folder that can be written"
    )
    assert path.read_text() == before and os.listdir(path.parent) == [path.name]


def test_kernels_are_right_with_other_numbers(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration changes sizes, never results."""
    recognise = importlib.import_module("rekern.hwmodels.detect")
    found = recognise.at_hand("cpu")
    assert found.machine.cpu is not None
    numbers = {"barrier_seconds": 9e-4, "fma_per_cycle": 0.5, "l2_bytes_per_cycle": 2.0, "dram_bytes_per_s": 2e9}
    made = calibration(found.machine, **numbers)
    save(dataclasses.replace(made, processor=found.processor))
    here = detect().cpu
    assert here is not None and here.fma_per_cycle == 0.5
    recurrence = dataclasses.replace(spec("hgrn"), name="calibrated")
    given = {name: -torch.rand(2, 7, 1, 5) for name in ("x", "g")}
    out, _ = Kernel(recurrence)(**given)
    want, _ = reference(recurrence, {name: t.double() for name, t in given.items()})
    assert isinstance(out, torch.Tensor) and isinstance(want, torch.Tensor)
    torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-6)
