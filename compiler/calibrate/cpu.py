"""The numbers of a CPU: clock, multiply-adds, the levels of its memory, and what waiting for other cores costs.

In: a machine. Out: `Measurement`s. The loops are C++ (templates/cpp/calibrate.cpp.j2), built and kept as kernels are.
Where a level is too small to be told from the one before, it is left out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekern.backends.cpp import Source, build
from rekern.calibrate.measurement import Job, Measurement, Samples, measurement
from rekern.hwmodels import Cpu
from rekern.render import environment, headers, tidy

STEPS = 16
JOB_SECONDS = 0.015     # of one job in one round, by the rates of the machine file
BURSTS = 30             # of barriers in that time: short enough that some meet no other process
LEAST_DRAM_BYTES, MOST_DRAM_BYTES = 256 << 20, 1 << 30
FAR_BEYOND_L3 = 4       # a buffer of so many times the whole L3 is read from memory
READ_BLOCK = 8          # vectors, of `read_all`


@dataclass(frozen=True, slots=True)
class View:
    """What the template sees; the bf16 texts are those of the instruction set."""

    chains: int
    steps: int
    register: str
    bf16: bool
    bf16_header: str
    bf16_cast: str
    bf16_float: str
    bf16_dot: str


def source(cpu: Cpu) -> Source:
    """The loops for this CPU."""
    text = tidy(environment().get_template("cpp/calibrate.cpp.j2").render(c=_view(cpu)))
    return Source("the loops of `rekern calibrate`", text, {"vector.h": headers("float", cpu.vector_bytes)["vector.h"]})


def _view(cpu: Cpu) -> View:
    chains = 24 if cpu.vector_registers >= 32 else 12     # the rest holds factor, summand and what the compiler needs
    if cpu.isa == "aarch64":
        return View(chains, STEPS, "w", cpu.bf16_dot, "arm_neon.h", "(bfloat16x8_t)", "(float32x4_t)", "vbfdotq_f32")
    bits = cpu.vector_bytes * 8
    size = "" if bits == 128 else bits
    kind = "v" if bits == 512 else "x"      # the upper registers belong to AVX-512
    return View(
        chains, STEPS, kind, cpu.bf16_dot, "immintrin.h", f"(__m{bits}bh)", f"(__m{bits})", f"_mm{size}_dpbf16_ps"
    )


def jobs(cpu: Cpu) -> tuple[Job, ...]:
    """What is run. The buffers live as long as the jobs.

    Raises:
        BuildError: the compiler is missing or fails.
    """
    return tuple(_jobs(cpu, ctypes.CDLL(str(build(source(cpu))))))


def _jobs(cpu: Cpu, library: ctypes.CDLL) -> Iterator[Job]:
    i64, f32, pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
    library.cycles.argtypes = [i64, i64, i64]
    library.read_all.argtypes = [i64, pointer, i64]
    library.triad.argtypes = [i64, pointer, pointer, pointer, i64]
    library.read_all.restype = library.cycles.restype = i64
    library.triad.restype = None
    rounds = counts(cpu)
    yield Job("cycles", lambda: library.cycles(rounds["cycles"], 1, 2), "thread")
    for name in ("multiply_adds", *(["dot_products"] if cpu.bf16_dot else [])):
        loop = getattr(library, name)
        loop.argtypes, loop.restype = [i64, f32, f32], f32
        yield Job(name, _repeat(loop, rounds["multiply_adds"], 0.5, 0.25), "thread")
    for name, size in sizes(cpu).items():
        if name == "stream":
            out, left, right = (_aligned(size) for _ in range(3))
            yield Job(name, _repeat(library.triad, rounds[name], out, left, right, size), "thread")
        else:
            yield Job(name, _repeat(library.read_all, rounds[name], _aligned(size), size), "thread")
    for name in ("barriers", "regions"):
        loop = getattr(library, name)
        loop.argtypes, loop.restype = [i64, ctypes.c_int], None
        yield Job(name, _repeat(loop, rounds[name], cpu.cores), "wall", BURSTS)


def _repeat(loop: Callable[..., object], *given: object) -> Callable[[], object]:
    def call() -> object:
        return loop(*(g.ctypes.data if isinstance(g, np.ndarray) else g for g in given))

    return call


def _aligned(size: int) -> NDArray[np.float32]:
    """`size` bytes of ones, which start at a page."""
    page = 4096
    raw = np.empty(size + page, np.uint8)
    start = -raw.ctypes.data % page
    data = raw[start : start + size].view(np.float32)
    data.fill(1.0)
    return data


def sizes(cpu: Cpu) -> dict[str, int]:
    """Bytes of the buffer for each level: in the middle of it, and far beyond the level before."""
    block = cpu.vector_bytes * READ_BLOCK
    beyond = FAR_BEYOND_L3 * (cpu.l3_bytes_per_core or 0) * cpu.cores
    dram = min(max(LEAST_DRAM_BYTES, beyond), MOST_DRAM_BYTES)
    wanted = {"l1": cpu.l1_bytes // 2, "l2": max(cpu.l2_bytes // 2, 2 * cpu.l1_bytes)}
    if cpu.l3_bytes_per_core is not None and cpu.l3_bytes_per_core // 2 >= 2 * cpu.l2_bytes:
        wanted["l3"] = cpu.l3_bytes_per_core // 2
    if wanted["l2"] > cpu.l2_bytes:
        del wanted["l2"]
    wanted |= {"dram": dram, "stream": dram // 4}
    return {name: size // block * block for name, size in wanted.items()}


def counts(cpu: Cpu) -> dict[str, int]:
    """Rounds of each job, so that it takes about JOB_SECONDS at the rates that the machine file has."""
    rates = {level.name: level.bytes_per_s for level in cpu.levels}
    rates |= {"stream": cpu.dram_stream_bytes_per_s or cpu.dram_bytes_per_s}
    seconds = {
        "cycles": STEPS / cpu.clock_hz,
        "multiply_adds": STEPS * _view(cpu).chains / (cpu.fma_per_cycle * cpu.clock_hz),
        "barriers": cpu.barrier_seconds * BURSTS,
        "regions": (cpu.fork_join_seconds or cpu.barrier_seconds) * BURSTS,
    }
    for name, size in sizes(cpu).items():
        moved = 3 * size if name == "stream" else size
        seconds[name] = moved / rates.get(name, cpu.dram_bytes_per_s)
    return {name: max(1, round(JOB_SECONDS / taken)) for name, taken in seconds.items()}


def measurements(cpu: Cpu, samples: Samples) -> tuple[Measurement, ...]:
    """The numbers that the rounds of `jobs(cpu)` make."""
    return tuple(_measurements(cpu, samples))


def _measurements(cpu: Cpu, samples: Samples) -> Iterator[Measurement]:
    rounds, size = counts(cpu), sizes(cpu)
    clock = [rounds["cycles"] * STEPS / s for s in samples["cycles"]]
    yield measurement("clock_hz", "Hz", clock, "a chain of exclusive ors, one cycle each")
    operations = rounds["multiply_adds"] * STEPS * _view(cpu).chains

    def per_cycle(name: str) -> Sequence[float]:
        return [operations / s / c for s, c in zip(samples[name], clock, strict=True)]

    lanes = f"{cpu.float32_lanes} float32 a vector"
    yield measurement("fma_per_cycle", "vectors per cycle", per_cycle("multiply_adds"), f"independent chains, {lanes}")
    if "dot_products" in samples:
        how = f"dot products of pairs of bfloat16, {lanes}"
        yield measurement("bf16_dots_per_cycle", "vectors per cycle", per_cycle("dot_products"), how, kept=False)

    def rate(name: str) -> list[float]:
        moved = size[name] * rounds[name] * (3 if name == "stream" else 1)
        return [moved / s for s in samples[name]]

    for level in ("l1", "l2"):
        if level in samples:
            per = [r / c for r, c in zip(rate(level), clock, strict=True)]
            how = f"one core reads {size[level] >> 10} KiB over and over"
            yield measurement(f"{level}_bytes_per_cycle", "bytes per cycle", per, how)
    if "l3" in samples:
        how = f"one core reads {size['l3'] >> 20} MiB over and over"
        yield measurement("l3_bytes_per_s", "bytes/s", rate("l3"), how)
    how = f"one core reads {size['dram'] >> 20} MiB"
    yield measurement("dram_bytes_per_s", "bytes/s", rate("dram"), how)
    how = f"triad of three times {size['stream'] >> 20} MiB with streaming stores, one core"
    yield measurement("dram_stream_bytes_per_s", "bytes/s", rate("stream"), how)
    threads = f"OpenMP, {cpu.cores} thread{'s' * (cpu.cores != 1)}"
    for key, name in (("barrier_seconds", "barriers"), ("fork_join_seconds", "regions")):
        per_round = [s / rounds[name] for s in samples[name]]
        yield measurement(key, "s", per_round, f"{threads}, best of {BURSTS} times {rounds[name]}")
