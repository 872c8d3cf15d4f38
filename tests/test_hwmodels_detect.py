"""GPUs are recognised by what they have; what was measured here is laid over the files."""

import dataclasses
import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from rekern.hwmodels import Gpu, Machine, MachineError, detect, detect_gpus, load
from rekern.hwmodels.detect import recognise
from rekern.hwmodels.device import Device, from_torch, recognise_device
from rekern.hwmodels.host import read_host
from rekern.hwmodels.overlay import overlay_path, with_overlay

DETECT = importlib.import_module("rekern.hwmodels.detect")      # the function of the package hides it
GIB = 2**30
H100 = Device(
    name="NVIDIA H100 80GB HBM3",
    vendor="nvidia",
    architecture="sm_90",
    sms=132,
    dram_bytes=85_176_483_840,
    clock_hz=1.98e9,
    dram_bytes_per_s=3.352e12,
    l2_bytes=52_428_800,
    shared_bytes_per_block=232_448,
    shared_bytes_per_sm=233_472,
    registers_per_sm=65_536,
    threads_per_sm=2048,
    warp_threads=32,
)


def gpu_of(machine: Machine) -> Gpu:
    assert machine.gpu is not None
    return machine.gpu


# ---------------------------------------------------------------- GPUs


def test_a_known_chip_is_its_file_with_what_was_read() -> None:
    found = recognise_device(H100)
    file = gpu_of(load("h100_sxm"))
    assert (found.machine.name, found.note) == ("h100_sxm", "")
    assert gpu_of(found.machine) == dataclasses.replace(file, dram_bytes=85_176_483_840)
    assert gpu_of(found.machine).clock_hz == file.clock_hz, "the highest clock is not the one under load"


@pytest.mark.parametrize(
    "architecture, sms, gib, name",
    [
        ("sm_90", 132, 139.8, "h200_sxm"),
        ("sm_80", 108, 79.3, "a100_sxm_80gb"),
        ("sm_86", 80, 22.1, "a10g"),
        ("sm_86", 82, 23.7, "rtx3090"),
        ("sm_89", 142, 44.6, "l40s"),
        ("sm_89", 128, 23.6, "rtx4090"),
        ("sm_100", 148, 178.4, "b200"),
        ("sm_120", 170, 31.4, "rtx5090"),
        ("sm_75", 40, 14.6, "t4"),
        ("gfx942", 304, 191.7, "mi300x"),
        ("gfx1100", 96, 24.0, "rx7900xtx"),
    ],
)
def test_chips_are_told_apart_by_architecture_sms_and_memory(
    architecture: str, sms: int, gib: float, name: str
) -> None:
    vendor = "amd" if architecture.startswith("gfx") else "nvidia"
    found = recognise_device(Device("a chip", vendor, architecture, sms, int(gib * GIB)))
    assert (found.machine.name, found.note) == (name, "")


def test_an_unknown_chip_of_a_known_architecture_is_scaled_and_says_so() -> None:
    pcie = dataclasses.replace(
        H100, name="NVIDIA H100 PCIe", sms=114, clock_hz=1.755e9, dram_bytes_per_s=2.039e12, dram_bytes=85_028_765_696
    )
    found = recognise_device(pcie)
    gpu, file = gpu_of(found.machine), gpu_of(load("h100_sxm"))
    assert found.machine.name == "h100_sxm_114sms"
    assert found.note == (
        "no machine file is of NVIDIA H100 PCIe (sm_90, 114 SMs, 79 GiB): h100_sxm (132 SMs) is scaled to it; "
        "`rekern calibrate` measures the rest"
    )
    assert (gpu.sms, gpu.dram_bytes_per_s) == (114, 2.039e12)
    assert file.bfloat16_flops_per_s is not None
    assert gpu.bfloat16_flops_per_s == pytest.approx(file.bfloat16_flops_per_s * 114 / 132)
    assert gpu.l2_bytes_per_s == pytest.approx(file.l2_bytes_per_s * 114 / 132)
    assert gpu.shared_latency_seconds == file.shared_latency_seconds


def test_a_slow_clock_slows_and_a_fast_one_is_not_believed() -> None:
    def clock(hertz: float | None) -> float:
        return gpu_of(recognise_device(dataclasses.replace(H100, sms=120, clock_hz=hertz)).machine).clock_hz

    assert (clock(1.2e9), clock(1.98e9), clock(None)) == (1.2e9, 1.755e9, 1.755e9)


def test_a_slice_of_a_chip_is_no_faster_than_its_l2() -> None:
    slice_of_7 = dataclasses.replace(H100, sms=16, dram_bytes=10 * GIB, l2_bytes=6_553_600)
    gpu = gpu_of(recognise_device(slice_of_7).machine)
    assert gpu.dram_bytes_per_s * gpu.dram_share == pytest.approx(gpu.l2_bytes_per_s)
    assert (gpu.sms, gpu.l2_bytes) == (16, 6_553_600)


def test_nonsense_of_a_driver_is_not_taken_over() -> None:
    odd = dataclasses.replace(H100, l2_bytes=7, shared_bytes_per_block=1_000_000)
    assert gpu_of(recognise_device(odd).machine) == gpu_of(recognise_device(H100).machine)


def test_an_unknown_architecture_is_an_error_that_names_the_known() -> None:
    with pytest.raises(MachineError) as caught:
        recognise_device(dataclasses.replace(H100, name="NVIDIA Thor", architecture="sm_110"))
    assert str(caught.value) == (
        "no machine file is of sm_110, which NVIDIA Thor has; known: gfx1100, gfx942, sm_100, sm_120, sm_75, sm_80, "
        "sm_86, sm_89, sm_90\ncopy the nearest file of hwmodels, change what differs, and name its path instead"
    )


def test_torch_describes_devices_of_both_vendors() -> None:
    nvidia = SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, total_memory=85_176_483_840,
        clock_rate=1_980_000, memory_clock_rate=2_619_000, memory_bus_width=5120, L2_cache_size=52_428_800,
        shared_memory_per_block_optin=232_448, shared_memory_per_multiprocessor=233_472,
        regs_per_multiprocessor=65_536, max_threads_per_multi_processor=2048, warp_size=32, gcnArchName="",
    )  # fmt: skip
    assert from_torch(nvidia) == dataclasses.replace(H100, dram_bytes_per_s=3.35232e12)
    bare = SimpleNamespace(name="old", major=8, minor=0, multi_processor_count=108, total_memory=80 * GIB)
    assert from_torch(bare) == Device("old", "nvidia", "sm_80", 108, 80 * GIB)
    amd = SimpleNamespace(
        name="AMD Instinct MI300X", major=9, minor=4, multi_processor_count=304, total_memory=205_822_885_888,
        gcnArchName="gfx942:sramecc+:xnack-", L2_cache_size=4_194_304, regs_per_multiprocessor=65_536,
        shared_memory_per_multiprocessor=19_922_944, warp_size=64, memory_clock_rate=1_300_000, memory_bus_width=8192,
    )  # fmt: skip
    device = from_torch(amd)
    assert (device.vendor, device.architecture) == ("amd", "gfx942")
    assert gpu_of(recognise_device(device).machine) == gpu_of(load("mi300x"))


def test_without_a_gpu_detection_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DETECT, "read_devices", lambda: ())
    assert detect_gpus() == ()
    with pytest.raises(MachineError) as caught:
        detect.__wrapped__("gpu")
    assert str(caught.value) == (
        "torch finds no GPU on this machine; name a machine file instead, such as 'h100_sxm'"
    )


def test_a_scaled_gpu_warns_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(DETECT, "read_devices", lambda: (dataclasses.replace(H100, sms=114),))
    with pytest.warns(UserWarning, match=r"h100_sxm \(132 SMs\) is scaled to it"):
        assert detect.__wrapped__("gpu").name == "h100_sxm_114sms"


@pytest.mark.gpu
def test_the_gpu_at_hand_is_recognised() -> None:
    assert detect("gpu").kind == "gpu"


# ---------------------------------------------------------------- overlays

WHO = "AMD EPYC 9B14 (family 25 model 17), 2 cores"
OVERLAY = f"""
name = "x86_avx512"
processor = "{WHO}"

[cpu.measured]      # `rekern calibrate`, 2026-11-21
dram_bytes_per_s = 2.0e10
barrier_seconds  = 3.0e-7   # 2 threads
"""


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    path = overlay_path("x86_avx512", WHO)
    path.parent.mkdir(parents=True)
    path.write_text(OVERLAY)
    return path


def test_measured_numbers_lie_over_those_of_the_file(overlay: Path) -> None:
    file, here = load("x86_avx512"), with_overlay(load("x86_avx512"), WHO)
    assert file.cpu is not None and here.cpu is not None
    expected = dataclasses.replace(file.cpu, dram_bytes_per_s=2.0e10, barrier_seconds=3.0e-7)
    assert here == dataclasses.replace(file, cpu=expected)
    assert with_overlay(file, WHO.replace("2 cores", "4 cores")) == file, "another machine"
    assert load("x86_avx512") == file, "a machine that is named is as its file says, everywhere"


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("[cpu.measured]", "[cpu.measured", "Expected"),
        ("2.0e10", "20", r"dram_bytes_per_s = 20, expected 1e9 to 1e14 bytes per second; is it in GB/s or TB/s\?"),
        ("barrier_seconds ", "barrier_second ", "the table has no key 'barrier_second'. Did you mean"),
        ("[cpu.measured]", "[gpu.measured]", "the overlay has no key 'gpu'"),
        ("[cpu.measured]", "[cpu]", r"expected one table, \[cpu.measured\]"),
        ("x86_avx512", "x86_avx2", "name = 'x86_avx2', expected 'x86_avx512'"),
        ("EPYC", "Ryzen", "processor = 'AMD Ryzen"),
        ("# `rekern calibrate`, 2026-11-21", "", "'dram_bytes_per_s = 2.0e10' has no source"),
    ],
)
def test_a_damaged_overlay_is_ignored_with_one_warning(old: str, new: str, why: str, overlay: Path) -> None:
    overlay.write_text(OVERLAY.replace(old, new))
    with pytest.warns(UserWarning, match=why) as caught:
        assert with_overlay(load("x86_avx512"), WHO) == load("x86_avx512")
    assert len(caught) == 1
    text = str(caught[0].message)
    assert text.startswith(f"ignored the calibration in {overlay}: ")
    assert text.endswith("\nrun `rekern calibrate` again, or delete the file")


def test_an_overlay_that_is_no_text_is_ignored(overlay: Path) -> None:
    overlay.write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="ignored the calibration"):
        assert with_overlay(load("x86_avx512"), WHO) == load("x86_avx512")


def test_detect_applies_the_overlay_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    machine = recognise(read_host())
    assert machine.cpu is not None
    who = read_host().processor(machine.cpu.cores)
    path = overlay_path(machine.name, who)
    path.parent.mkdir(parents=True)
    head = f'name = "{machine.name}"\nprocessor = "{who}"\n'
    path.write_text(f"{head}[cpu.measured]  # by hand\nbarrier_seconds = 1e-6\n")
    found = detect.__wrapped__().cpu
    assert found == dataclasses.replace(machine.cpu, barrier_seconds=1e-6)
