"""Kernels on a CPU against the figures that they are to reach, and against the limit of the machine.

In: nothing. Out: a table, and a JSON file: for every kernel and size the ratio to the best competitor of its kind,
what it is to be at least and what is aimed at, the time and its share of the floor. One thread, CPU time of the
thread, interleaved rounds, and the same allocator for both sides: glibc maps large results anew at every call unless it
is told otherwise, and that time belongs to neither side.

    python benchmarks/limits.py                     # everything, some minutes
    python benchmarks/limits.py --only lstm         # rows whose name has this in it
    python benchmarks/limits.py --allocator default # as a user has it
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rekern as rk
from rekern.cli.candidates import Role
from rekern.cli.console import digits, plain, seconds, table, write
from rekern.cli.machine import describe, slug
from rekern.cli.measure import PassName, measure
from rekern.cli.timing import clock, estimate, interleave
from rekern.cli.workload import Workload
from rekern.errors import RekernError
from rekern.hwmodels import detect
from rekern.math import sigmoid, tanh
from rekern.spec import Input, Param, State, recurrence
from rekern.zoo import load

HERE = Path(__file__).resolve().parent
SCHEMA = 1
# What keeps glibc from giving memory back and getting it again, page by page.
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "268435456"}

Sizes = tuple[int, int, int, dict[str, int]]  # batch, time, heads, axes


@dataclass(frozen=True)
class Goal:
    """A kernel, the sizes that it is measured at, and how many times as fast as the best of `role` it is to be.

    Attributes:
        rival: The one of `role` that the figure is about, if it is not the best.
    """

    spec: str
    passes: PassName
    role: Role
    least: float
    aim: float
    sizes: tuple[Sizes, ...] = field(repr=False)
    rival: str | None = None


def dense(*sizes: tuple[int, int, int]) -> tuple[Sizes, ...]:
    return tuple((batch, time, 1, {"D": dim}) for batch, time, dim in sizes)


ROWS = dense((16, 256, 128), (16, 256, 256), (16, 512, 512), (32, 128, 1024), (64, 256, 128))
ONE = dense((1, 512, 256))
HEADS: tuple[Sizes, ...] = ((16, 256, 4, {"D": 64}), (8, 256, 12, {"D": 64}))
ODD = dense((16, 256, 100), (7, 300, 60))
MATRIX: tuple[Sizes, ...] = (
    (1, 2048, 4, {"K": 64, "V": 64}),
    (1, 1024, 4, {"K": 128, "V": 128}),
    (2, 4096, 8, {"K": 128, "V": 128}),
    (1, 1024, 4, {"K": 60, "V": 100}),
)
SCAN: tuple[Sizes, ...] = ((8, 4096, 1, {"D": 1024}), (8, 1024, 1, {"D": 513}))
GOALS = (
    Goal("lstm", "forward", "nn", 1.05, 1.15, ROWS),
    Goal("lstm", "forward", "nn", 1.3, 1.5, ONE),
    Goal("lstm", "forward+backward", "nn", 1.05, 1.2, (*ROWS, *ONE)),
    Goal("gru", "forward", "nn", 1.8, 3, (*ROWS[1:3], *ONE, *ODD)),
    Goal("gru", "forward+backward", "nn", 1.8, 3, (*ROWS[1:3], *ONE, *ODD)),
    Goal("slstm", "forward", "loop", 2.5, 3, ROWS[1:2]),
    Goal("slstm", "forward", "loop", 3.5, 5, HEADS),
    Goal("slstm", "forward", "loop", 5, 13, (*ONE, (1, 512, 4, {"D": 64}))),
    Goal("slstm", "forward+backward", "loop", 2.5, 4, (*ROWS[1:2], *HEADS, *ONE)),
    Goal("linear_attention", "forward", "torch", 3, 5, MATRIX),
    Goal("linear_attention", "forward+backward", "torch", 2, 3.5, MATRIX),
    Goal("gla", "forward", "torch", 3, 5, MATRIX),
    Goal("gla", "forward+backward", "torch", 2, 3.5, MATRIX),
    Goal("gated_delta_rule", "forward", "torch", 2.5, 5.5, MATRIX),
    Goal("gated_delta_rule", "forward+backward", "torch", 1.5, 3, MATRIX),
    Goal("hgrn", "forward", "loop", 6, 10, SCAN),
    Goal("hgrn", "forward", "torch", 15, 40, SCAN, rival="associative_scan"),
    Goal("hgrn", "forward", "torch", 6, 10, SCAN[1:]),  # a blocked scan in torch, the faster one there
    Goal("hgrn", "forward+backward", "loop", 4, 8, SCAN),
    Goal("projected_lstm", "forward", "nn", 1.0, 1.25, (*ROWS[1:4], *ONE)),
)
MOST_BYTES = 18 << 30  # of address space for a row: the float64 gradient takes most of it


@recurrence
def projected_lstm(
    h=State("D"), c=State("D"), x=Input("I"), W=Param(4, "D", "I"), R=Param(4, "D", "D"), b=Param(4, "D")
):
    """An LSTM that multiplies its input with a weight by itself, as torch.nn.LSTM does."""
    i, f, z, o = W @ x + R @ h + b
    c = sigmoid(f) * c + sigmoid(i) * tanh(z)
    h = sigmoid(o) * tanh(c)
    return (h, c), h


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    if options.allocator == "kept" and any(os.environ.get(name) != value for name, value in KEPT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT})
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe(),
        "allocator": options.allocator,
        "threads": options.threads,
        "results": [],
        "failed": [],
    }
    suffix = "" if options.allocator == "kept" and options.threads == 1 else f"-{options.allocator}-{options.threads}"
    out = options.out or HERE / "results" / slug() / f"limits{suffix}.json"
    for job in jobs(options):
        # A process for each row: memory that a competitor has left, or wants too much of, is not the next one's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                row = pool.submit(measured, job).result()
            except (RekernError, RuntimeError, MemoryError, OSError) as error:
                report["failed"].append({"row": str(job), "error": f"{type(error).__name__}: {error}"[:500]})
                write(f"failed: {job}: {error}", style="red")
                continue
        report["results"].append({**row, "load_average": os.getloadavg()[0]})
        write(f"done: {row['kernel']}, {row['size']}, {row['pass']}: {digits(row['ratio'])}x", style="dim")
        sys.stdout.flush()
        if options.out or not (options.only or options.quick):
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
    print_all(report)
    return 1 if report["failed"] else 0


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="kernels whose name has this in it; writes no file unless --out says where")
    parser.add_argument("--seconds", type=float, default=2.0, help="for the rounds of one row (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="short sequences: does it run? the times mean nothing")
    parser.add_argument("--threads", type=int, default=1, help="with more than one the clock is the wall clock")
    parser.add_argument("--allocator", choices=("kept", "default"), default="kept")
    parser.add_argument("--out", type=Path, help="the JSON file (default: limits.json under results/<machine>)")
    return parser.parse_args(given)


@dataclass(frozen=True)
class Job:
    """One row."""

    goal: Goal
    size: Sizes
    seconds: float
    threads: int

    def __str__(self) -> str:
        batch, steps, heads, axes = self.size
        lengths = "".join(f" {axis}{length}" for axis, length in axes.items())
        return f"{self.goal.spec}, B{batch} T{steps} H{heads}{lengths}, {self.goal.passes}"


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """The rows that are asked for."""
    for goal in GOALS:
        for batch, steps, heads, axes in goal.sizes:
            size = batch, max(4, steps // 64) if options.quick else steps, heads, axes
            if not options.only or options.only in goal.spec:
                yield Job(goal, size, options.seconds, options.threads)


def measured(job: Job) -> dict[str, Any]:
    """A row, in a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    torch.set_num_threads(job.threads)
    goal, (batch, steps, heads, axes) = job.goal, job.size
    found = measured_projected(job) if goal.spec == projected_lstm.name else None
    if found is None:
        work = Workload(load(goal.spec), batch, steps, heads, axes)
        (m,) = measure(work, (goal.passes,), ("rekern", goal.role), job.threads, job.seconds, rival=goal.rival)
        ratio, best = m.ratio(goal.role), m.baseline(goal.role)
        if ratio is None or best is None:
            raise RekernError(f"{goal.spec}: nothing of the role {goal.role!r} to compare with")
        found = {
            "size": str(work),
            "against": best.name,
            "ratio": ratio,
            "rekern_seconds": m.rekern.samples.median,
            "against_seconds": best.samples.median,
            "floor_seconds": max(t or 0.0 for t in (m.floor.memory_seconds, m.floor.arithmetic_seconds)),
            "error": m.rekern.error,
            "quartile_seconds": list(m.rekern.samples.quartiles),
            "slower_ratios": {n: t / m.rekern.samples.median for n, t in m.slower.items()},
        }
    return {"kernel": goal.spec, "pass": goal.passes, "role": goal.role, "least": goal.least, "aim": goal.aim, **found}


def measured_projected(job: Job) -> dict[str, Any]:
    """An LSTM with its input projection, forward, against torch.nn.LSTM with the same weights."""
    batch, steps, _, axes = job.size
    dim = axes["D"]
    cpu = detect().cpu
    assert cpu is not None
    kernel, module = rk.compile(projected_lstm), torch.nn.LSTM(dim, dim, batch_first=True)
    line = torch.randn(batch, steps, dim)
    weights = {
        "W": module.weight_ih_l0.detach().reshape(1, 4, dim, dim),
        "R": module.weight_hh_l0.detach().reshape(1, 4, dim, dim),
        "b": (module.bias_ih_l0 + module.bias_hh_l0).detach().reshape(1, 4, dim),
    }
    x = line[:, :, None]
    with torch.no_grad():
        ours, theirs = kernel(x=x, **weights)[0], module(line)[0]
        assert isinstance(ours, Tensor)
        calls: dict[str, Callable[[], object]] = {
            "rekern": lambda: kernel(x=x, **weights),
            "nn": lambda: module(line),
        }
        now = clock(job.threads)
        expected = {name: estimate(call, now) for name, call in calls.items()}
        samples = interleave(calls, now, job.seconds, expected)
    flops = 16 * batch * steps * dim * dim
    return {
        "size": f"B{batch} T{steps} H1 D{dim} I{dim}",
        "against": "nn.LSTM",
        "ratio": samples["nn"].ratio_to(samples["rekern"]),
        "rekern_seconds": samples["rekern"].median,
        "against_seconds": samples["nn"].median,
        "floor_seconds": flops / (cpu.float32_flops_per_s * min(job.threads, cpu.cores)),
        "error": float((ours[:, :, 0] - theirs).norm() / theirs.norm()),
        "quartile_seconds": list(samples["rekern"].quartiles),
    }


def print_all(report: dict[str, Any]) -> None:
    columns = ("kernel", "size", "pass", "against", "ratio", "least", "aim", "", "time", "floor", "reached", "error")
    rows = []
    for r in report["results"]:
        verdict = "aim" if r["ratio"] >= r["aim"] else "yes" if r["ratio"] >= r["least"] else "BELOW"
        share = f"{100 * r['floor_seconds'] / r['rekern_seconds']:.0f} %"
        goals = f"{digits(r['ratio'])}x", f"{digits(r['least'])}x", f"{digits(r['aim'])}x", verdict
        times = seconds(r["rekern_seconds"]), seconds(r["floor_seconds"]), share, f"{r['error']:.0e}"
        rows.append((r["kernel"], r["size"], r["pass"], r["against"], *goals, *times))
    title = f"\n{report['threads']} thread(s), allocator: {report['allocator']}"
    write(title, style="bold")
    table(columns, rows, right=columns[4:7] + columns[8:], keep=columns)


if __name__ == "__main__":
    sys.exit(main())
