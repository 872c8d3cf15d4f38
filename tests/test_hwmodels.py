"""The machine files, the errors of a wrong one, and the recognition of CPUs by what /proc and /sys say."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest

from rekern.hwmodels import Cpu, Level, Machine, MachineError, detect, load, names
from rekern.hwmodels.detect import recognise
from rekern.hwmodels.files import FOLDER
from rekern.hwmodels.host import Host, read_host
from rekern.hwmodels.parse import parse

AVX512 = (FOLDER / "x86_avx512.toml").read_text()


def cpu_of(machine: Machine) -> Cpu:
    assert machine.cpu is not None
    return machine.cpu


# ---------------------------------------------------------------- files


CPUS = ("arm64_neon", "x86_avx2", "x86_avx512")


def test_every_machine_file_is_named_like_its_machine() -> None:
    assert [load(name).name for name in names()] == list(names())
    assert tuple(name for name in names() if load(name).kind == "cpu") == CPUS


@pytest.mark.parametrize("name", CPUS)
def test_levels_of_memory_grow_larger_and_slower(name: str) -> None:
    machine = load(name)
    levels = cpu_of(machine).levels
    sizes = [level.bytes for level in levels[:-1] if level.bytes is not None]
    assert sizes == sorted(sizes) and levels[-1].bytes is None
    rates = [level.bytes_per_s for level in levels]
    assert rates == sorted(rates, reverse=True)


def test_what_can_be_computed_is_computed() -> None:
    cpu = cpu_of(load("x86_avx512"))
    assert cpu.float32_lanes == 16
    assert cpu.float32_flops_per_s == pytest.approx(117e9, rel=0.01)     # as measured
    assert [level.name for level in cpu.levels] == ["l1", "l2", "l3", "dram"]
    unknown_l3 = dataclasses.replace(cpu, l3_bytes_per_s=None)
    assert unknown_l3.levels[2:] == (Level("dram", None, cpu.dram_bytes_per_s),)


def test_the_resource_vector_has_everything_but_the_name() -> None:
    machine = load("arm64_neon")
    vector = machine.resource_vector()
    assert vector == dataclasses.replace(machine, name="other").resource_vector()
    assert ("cpu.vector_bytes", 16) in vector and ("kind", "cpu") in vector
    assert list(vector) == sorted(vector) and "cpu.l3_bytes_per_core" not in dict(vector)
    assert [tuple(pair) for pair in json.loads(json.dumps(vector))] == list(vector)
    for field in dataclasses.fields(Cpu):
        value = getattr(machine.cpu, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            other = dataclasses.replace(cpu_of(machine), **{field.name: value * 2})
            assert dataclasses.replace(machine, cpu=other).resource_vector() != vector
    assert pickle.loads(pickle.dumps(machine)) == machine


def test_a_machine_can_be_read_by_a_person() -> None:
    lines = str(load("x86_avx2")).splitlines()
    assert lines[0] == "x86_avx2" and "    cpu.l1_bytes                 32,768" in lines


def test_a_machine_can_be_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(AVX512.replace('"x86_avx512"', '"mine"'))
    assert load(path).name == load(str(path)).name == "mine"
    path.write_text(AVX512.replace("= 32_768 ", "= 65_536 "))
    assert cpu_of(load(path)).l1_bytes == 65_536
    with pytest.raises(MachineError) as caught:
        load(tmp_path / "gone.toml")
    assert str(caught.value) == (
        f"cannot read the machine file '{tmp_path / 'gone.toml'}': No such file or directory"
    )


def test_an_unknown_name_is_an_error_that_lists_the_known() -> None:
    def message(name: str) -> str:
        with pytest.raises(MachineError) as caught:
            load(name)
        return str(caught.value)

    known = f"known: {', '.join(names())}; or the path of a .toml file like theirs."
    assert message("x86_avx") == f"no machine is named 'x86_avx'. Did you mean 'x86_avx2'?\n{known}"
    assert message("nonsense") == f"no machine is named 'nonsense'.\n{known}"


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("\nl1_bytes  ", "\nl1_byte  ", "[cpu] has no key 'l1_byte'. Did you mean 'l1_bytes'?"),
        ("\nclock_hz ", "\n#", "[cpu] lacks 'clock_hz'"),
        ("= 3.66e9", '= "3.66 GHz"', "[cpu] clock_hz = '3.66 GHz', expected a number"),
        ("= 1_048_576 ", "= 1_048_576.0", "[cpu] l2_bytes = 1048576.0, expected a whole number"),
        ("= true", "= 1", "[cpu] bf16_dot = 1, expected true or false"),
        ("= 4_194_304 ", "= true #", "[cpu] l3_bytes_per_core = True, expected a whole number"),
        (
            "= 4_194_304 ",
            "= 0 #",
            "[cpu] l3_bytes_per_core = 0, expected more than 0; leave out what is unknown",
        ),
        ('"x86_64"', '"x86"', "[cpu] isa = 'x86', expected 'x86_64' or 'aarch64'"),
        (
            "[cpu.measured]",
            "[cpu.measured]\nline_bytes = 64",
            "'line_bytes' is in [cpu] and again in [cpu.measured]",
        ),
        (
            "[cpu.measured]",
            "[cpus.measured]",
            "[cpu] lacks 'fma_per_cycle', 'clock_hz', 'l1_bytes_per_cycle', 'l2_bytes_per_cycle', "
            "'dram_bytes_per_s', 'barrier_seconds'",
        ),
        ('kind = "cpu"', 'kind = "cpu"\nowner = "me"', "the file has no key 'owner'. Keys: name, kind, cpu, gpu."),
        ('kind = "cpu"', 'kind = "gpu"', "kind = 'gpu': a [cpu] table belongs to a cpu, and only to a cpu"),
        ('kind = "cpu"', "", "the file lacks 'kind'"),
        (
            "48 KiB\nl1_bytes_per_cycle  ",
            "\nl1_bytes_a_cycle  ",
            "[variant.cpu] has no key 'l1_bytes_a_cycle'. Did you mean 'l1_bytes_per_cycle'?",
        ),
        ("match = {", "matches = {", "[[variant]] has no key 'matches'. Did you mean 'match'?"),
        ('flags = "amx_tile" }', 'flags = "amx_tile" }\ncpu = 3', "[variant.cpu] = 3, expected a table"),
    ],
)
def test_a_wrong_machine_file_is_an_error_that_names_the_key(old: str, new: str, message: str) -> None:
    text = AVX512.replace(old, new, 1)
    assert text != AVX512
    if new.endswith("cpu = 3"):
        text = text[: text.index("[variant.cpu]       # Intel")]
    with pytest.raises(MachineError) as caught:
        parse(text, "mine.toml")
    assert str(caught.value) == f"mine.toml: {message}"


def test_a_file_that_is_no_toml_is_an_error_that_names_the_line() -> None:
    with pytest.raises(MachineError, match=r"^mine\.toml: .*line 2"):
        parse('name = "mine"\n[cpu\n', "mine.toml")


# ---------------------------------------------------------------- the machine at hand

AVX512_FLAGS = "fpu sse2 fma avx2 avx512f avx512dq avx512bw avx512vl"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def host(architecture: str, cpuinfo: dict[str, str]) -> Host:
    return Host(architecture, cpuinfo, {}, None, None, None)


def zen(family: str, model: str, flags: str = AVX512_FLAGS) -> Host:
    known = {"vendor_id": "AuthenticAMD", "cpu family": family, "model": model, "flags": flags}
    return host("x86_64", known)


def intel(flags: str) -> Host:
    return host("x86_64", {"vendor_id": "GenuineIntel", "flags": flags})


def neoverse(part: str, features: str) -> Host:
    return host("aarch64", {"CPU implementer": "0x41", "CPU part": part, "Features": features})


def test_this_machine_is_recognised_once() -> None:
    machine = detect()
    assert machine is detect() and machine.name in names()
    assert cpu_of(machine).cores <= (os.cpu_count() or 1)


def test_caches_cores_and_clock_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 cores of 2 threads, as one Zen 4 die has them; the process may use 6 threads of 4 cores."""
    cpus = "sys/devices/system/cpu"
    cache = f"{cpus}/cpu0/cache/index"
    first = f"processor : 0\nvendor_id : AuthenticAMD\nflags : {AVX512_FLAGS} avx512_bf16"
    files = {"proc/cpuinfo": f"{first}\n\nprocessor : 1\nvendor_id : Other\nflags : none"}
    caches = (
        (1, "Data", "32K", "0,8"),
        (1, "Instruction", "64K", "0,8"),
        (2, "Unified", "1024K", "0,8"),
        (3, "Unified", "32M", "0-15"),
    )
    for i, (level, kind, size, shared) in enumerate(caches):
        parts = {"level": str(level), "type": kind, "size": size, "shared_cpu_list": shared}
        files |= {f"{cache}{i}/{key}": text for key, text in (parts | {"coherency_line_size": "128"}).items()}
    files |= {f"{cpus}/cpu{i}/topology/thread_siblings_list": f"{i % 8},{i % 8 + 8}" for i in range(16)}
    files |= {f"{cpus}/cpu0/cpufreq/cpuinfo_max_freq": "5400000"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 8, 1, 9, 2, 3}, raising=False)
    seen = read_host(write(tmp_path, files))
    assert seen == Host(
        seen.architecture,
        {"processor": "0", "vendor_id": "AuthenticAMD", "flags": f"{AVX512_FLAGS} avx512_bf16"},
        {1: 32 << 10, 2: 1 << 20, 3: 4 << 20},
        line_bytes=128,
        cores=4,
        clock_hz=5.4e9,
    )
    cpu = cpu_of(recognise(dataclasses.replace(seen, architecture="x86_64")))
    assert (cpu.cores, cpu.clock_hz, cpu.line_bytes, cpu.l3_bytes_per_core) == (4, 5.4e9, 128, 4 << 20)
    assert cpu.bf16_dot
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "150000 100000"})
    assert read_host(tmp_path).cores == 2
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "max 100000"})
    assert read_host(tmp_path).cores == 4


@pytest.mark.parametrize(
    "architecture, name",
    [("x86_64", "x86_avx2"), ("AMD64", "x86_avx2"), ("aarch64", "arm64_neon"), ("arm64", "arm64_neon")],
)
def test_without_proc_and_sys_the_file_is_used_as_it_is(
    architecture: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = read_host(tmp_path)
    assert (seen.cpuinfo, seen.cache_bytes, seen.line_bytes, seen.clock_hz) == ({}, {}, None, None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert read_host(tmp_path).cores is None
    assert recognise(dataclasses.replace(read_host(tmp_path), architecture=architecture)) == load(name)


def test_garbage_in_sys_is_not_read(tmp_path: Path) -> None:
    cache = "sys/devices/system/cpu/cpu0/cache/index0"
    files = {"level": "1", "type": "Data", "size": "K", "shared_cpu_list": "a-b", "coherency_line_size": "-"}
    seen = read_host(write(tmp_path, {f"{cache}/{key}": text for key, text in files.items()}))
    assert seen.cache_bytes == {} and seen.line_bytes is None


def test_a_core_is_recognised_by_its_flags() -> None:
    def row(seen: Host) -> tuple[str, int, float, bool]:
        machine = recognise(seen)
        cpu = cpu_of(machine)
        return machine.name, cpu.vector_bytes, cpu.fma_per_cycle, cpu.bf16_dot

    assert row(zen("25", "17", f"{AVX512_FLAGS} avx512_bf16")) == ("x86_avx512", 64, 1, True)
    assert row(zen("26", "2", f"{AVX512_FLAGS} avx512_bf16")) == ("x86_avx512", 64, 2, True)
    assert row(zen("26", "36")) == ("x86_avx512", 64, 1, False)      # mobile Zen 5: half the data path
    assert row(zen("23", "49", "sse2 fma avx2")) == ("x86_avx2", 32, 2, False)
    assert row(intel(f"{AVX512_FLAGS} amx_tile")) == ("x86_avx512", 64, 2, False)
    assert row(intel(AVX512_FLAGS)) == ("x86_avx512", 64, 1, False)
    assert row(intel("sse2 avx")) == ("x86_avx2", 16, 1, False)
    assert row(neoverse("0xd0c", "fp asimd")) == ("arm64_neon", 16, 2, False)
    assert row(neoverse("0xd40", "fp asimd bf16")) == ("arm64_neon", 16, 4, True)


def test_an_architecture_without_a_file_is_an_error() -> None:
    with pytest.raises(MachineError, match=r"fits the architecture 'riscv64': only x86_64 and aarch64$"):
        recognise(host("riscv64", {}))
