"""Kernels on a GPU: first held to the float64 reference there, then timed beside what others have.

In: minutes. Out: a table on stdout, and a JSON file that is written as it goes, so that an interrupted run leaves what
it has. Cases come in the order of their importance; those that the minutes do not reach are named.

    python benchmarks/gpu.py --minutes 9
    TRITON_INTERPRET=1 python benchmarks/gpu.py --dry-run --out /tmp/x.json     # does it run? on a CPU, without a GPU

Times are of CUDA events, with a cold L2, in rounds in which every candidate has its turn.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gpu_cases import CASES, Case, tiny
from gpu_peers import peers
from torch import Tensor

from rekern.api import compile
from rekern.cli.console import between, digits, plain, seconds, table, write
from rekern.cli.floor import floor
from rekern.cli.specs import find
from rekern.cli.timing import LEAST_ROUNDS, Samples
from rekern.cli.workload import Workload, draw
from rekern.hwmodels import Machine, detect, load
from rekern.reference import reference

HERE = Path(__file__).resolve().parent
SCHEMA = 1
CHECKED_STEPS, CHECKED_BATCH = 40, 2
MOST_ROUNDS = 60
GRACE_SECONDS = 60
LIMITS = {torch.float32: 5e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}  # relative RMS, gradients too
COPY_BYTES = 1 << 30
PACKAGES = ("torch", "triton", "rekern", "flashrnn", "flash-linear-attention", "mlstm_kernels")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything (default: %(default)s)")
    parser.add_argument("--case", action="append", help="only cases with this in their name; repeat it")
    parser.add_argument("--target", default="auto", help='a GPU of `rekern hw ls` (default: "auto", the one at hand)')
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes in Triton's interpreter; times mean nothing")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--no-peers", action="store_true", help="only rekern")
    parser.add_argument("--out", type=Path, help="the JSON file (default: results/<machine>/gpu.json beside this file)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    if options.dry_run and os.environ.get("TRITON_INTERPRET") != "1":
        write("a dry run needs TRITON_INTERPRET=1 in the environment", style="red")
        return 2
    if not options.dry_run and not torch.cuda.is_available():
        write("torch finds no GPU here; --dry-run proves that the command works", style="red")
        return 2
    bench = Bench(options.dry_run, options.target)
    if options.worker:
        return worker(bench, options)
    end = time.monotonic() + 60 * options.minutes
    out = options.out or HERE / "results" / bench.slug / "gpu.json"
    report: dict[str, Any] = {
        "schema": SCHEMA, "dry_run": options.dry_run, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": bench.describe(), "results": [], "failed": [], "not_reached": [],
    }  # fmt: skip
    chosen = [c for c in CASES if not options.case or any(word in c.name for word in options.case)]
    for number, case in enumerate(chosen):
        left = end - time.monotonic()
        if left <= 0:
            report["not_reached"].append(case.name)
            continue
        share = left / (len(chosen) - number)
        found = in_process(case, options, share)
        if found["error"] and found["peers"]:  # perhaps a peer took the GPU down with it
            found = {**in_process(case, options, share, with_peers=False), "with_peers": found["error"]}
        report["results"] += found["results"]
        if found["error"]:
            report["failed"].append({"case": case.name, "error": found["error"]})
        if "with_peers" in found:
            report["failed"].append({"case": f"peers of {case.name}", "error": found["with_peers"]})
        write(f"{'failed' if found['error'] else 'done'}: {case.name}", style="dim")
        save(report, out)
    save(report, out)
    print_all(report)
    write(f"\nwritten to {out}")
    return 1 if report["failed"] else 0


def in_process(case: Case, options: argparse.Namespace, share: float, with_peers: bool = True) -> dict[str, Any]:
    """Measure a case in a process of its own: an illegal access ends all work on a GPU in the process that made it.

    Args:
        share: Seconds for its rounds. Compiling, and building what peers build, may take as long again and GRACE.
    """
    with tempfile.TemporaryDirectory(prefix="rekern-bench-") as folder:
        part = Path(folder) / "case.json"
        words = ["--worker", case.name, "--seconds", str(share), "--target", options.target, "--out", str(part)]
        words += [*["--dry-run"] * options.dry_run, *["--no-peers"] * (options.no_peers or not with_peers)]
        command = [sys.executable, str(Path(__file__).resolve()), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=2 * share + GRACE_SECONDS)
            told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            error = told[-1] if done.returncode else ""
        except subprocess.TimeoutExpired as late:
            error = f"no end after {late.timeout:.0f} s"
        found = json.loads(part.read_text()) if part.exists() else {"results": [], "peers": True}
        return {**found, "error": error}


def worker(bench: Bench, options: argparse.Namespace) -> int:
    """One case; its results are written pass by pass."""
    case = next(c for c in CASES if c.name == options.worker)
    case = tiny(case) if options.dry_run else case
    found: dict[str, Any] = {"results": [], "peers": not options.no_peers}
    for result in bench.measure(case, options.seconds, with_peers=not options.no_peers):
        found["results"].append(result)
        save(found, options.out)
    return 0


def save(report: Mapping[str, Any], out: Path) -> None:
    """In one rename, so that there is a whole file at any time."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f"{out.name}-", dir=out.parent)
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
    os.replace(part, out)


class Bench:
    """A GPU, and how things are checked and timed on it."""

    def __init__(self, dry_run: bool, target: str) -> None:
        self.dry_run = dry_run
        self.device = torch.device("cpu" if dry_run else "cuda")
        self.target = "h100_sxm" if dry_run and target == "auto" else target
        self.machine: Machine = load(self.target) if self.target != "auto" else detect("gpu")
        gpu = self.machine.gpu
        assert gpu is not None
        self.gpu = gpu
        self._flushed = torch.empty(1 if dry_run else 4 * gpu.l2_bytes, dtype=torch.int8, device=self.device)
        self.copy_bytes_per_s = self._copy()

    @property
    def slug(self) -> str:
        name = "dry run" if self.dry_run else torch.cuda.get_device_name()
        return f"{self.machine.name}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"

    def describe(self) -> dict[str, object]:
        """The machine, and the versions of all that takes part."""
        found: dict[str, object] = {"name": self.machine.name, "architecture": self.gpu.architecture}
        for package in PACKAGES:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = None
        found |= {"cuda": torch.version.cuda, "hip": torch.version.hip, "copy_bytes_per_s": self.copy_bytes_per_s}
        if not self.dry_run:
            found |= {"gpu": torch.cuda.get_device_name(), "cudnn": torch.backends.cudnn.version()}
        return found

    # -- clocks

    def once(self, call: Callable[[], object]) -> float:
        """Seconds of a call that finds nothing in L2."""
        self._flushed.zero_()
        if self.dry_run:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
        torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3

    def interleaved(self, calls: Mapping[str, Callable[[], object]], budget: float) -> dict[str, Samples]:
        """Rounds in which every call has its turn, as many as there is time for."""
        taken: dict[str, list[float]] = {name: [] for name in calls}
        end = time.monotonic() + budget
        for number in range(MOST_ROUNDS):
            if number >= LEAST_ROUNDS and time.monotonic() > end:
                break
            for name, call in calls.items():
                taken[name].append(self.once(call))
        return {name: Samples(tuple(found)) for name, found in taken.items()}

    def _copy(self) -> float:
        """Bytes per second of a copy, read and written."""
        source = torch.empty(1 << 16 if self.dry_run else COPY_BYTES, dtype=torch.int8, device=self.device)
        target = torch.empty_like(source)
        found = [self.once(lambda: target.copy_(source)) for _ in range(9)]
        return 2 * source.numel() / statistics.median(found)

    # -- cases

    def measure(self, case: Case, budget: float, with_peers: bool) -> Iterator[dict[str, Any]]:
        """Check one case, then time its passes.

        Raises:
            AssertionError: its numbers are wrong.
        """
        work = Workload(find(case.spec), case.batch, case.time, case.heads, case.lengths)
        small = replace(work, batch=min(work.batch, CHECKED_BATCH), time=min(work.time, CHECKED_STEPS))
        error = self.step_error(small, case) if case.passes == ("step",) else self.error(small, case)
        limit = LIMITS[case.dtype]
        assert error <= limit, f"differs from float64 by {error:.1e}, at most {limit:g} expected: it is not timed"
        for passes in case.passes:
            yield self.timed(case, work, passes, error, budget / len(case.passes), with_peers)

    def step_error(self, work: Workload, case: Case) -> float:
        """The largest error of the output and the states of a second step in place."""
        operands = {n: t.detach() for n, t in self.operands(work, case.dtype).items()}
        inputs = {o.name for o in work.spec.of_kind("input")}
        given = {n: t[:, 0] if n in inputs else t for n, t in operands.items()}
        kernel = compile(work.spec, self.target)
        with torch.no_grad():
            _, state = kernel.step(**given)
            out, _ = kernel.step(state=state, in_place=True, **given)
        twice = {n: t.double().repeat_interleave(2, 1) if n in inputs else t.double() for n, t in operands.items()}
        wanted, last = reference(work.spec, twice)
        assert isinstance(out, Tensor) and isinstance(wanted, Tensor)
        return max(relative(out, wanted[:, 1]), *(relative(state[n], t) for n, t in last.items()))

    def error(self, work: Workload, case: Case) -> float:
        """The largest error of outputs and gradients, each relative to the RMS of its tensor."""
        operands = self.operands(work, case.dtype)
        out, _ = compile(work.spec, self.target)(**operands)
        exact = {n: t.detach().double().requires_grad_() for n, t in operands.items()}
        wanted, _ = reference(work.spec, exact)
        assert isinstance(out, Tensor) and isinstance(wanted, Tensor)
        weight = torch.randn_like(wanted).to(out.dtype)
        got = torch.autograd.grad(out, list(operands.values()), weight)
        true = torch.autograd.grad(wanted, list(exact.values()), weight.double())
        return max(relative(a, b) for a, b in zip((out, *got), (wanted, *true), strict=True))

    def operands(self, work: Workload, dtype: torch.dtype) -> dict[str, Tensor]:
        drawn = draw(work).operands
        return {n: t.to(self.device, dtype).requires_grad_() for n, t in drawn.items()}

    def timed(
        self, case: Case, work: Workload, passes: str, error: float, budget: float, with_peers: bool
    ) -> dict[str, Any]:
        """Times of one pass, with floors."""
        operands = self.operands(work, case.dtype)
        kernel = compile(work.spec, self.target)
        runs: dict[str, Any] = {}
        missing: dict[str, str] = {}
        if passes == "step":
            runs |= dict(self.steps(kernel, work, operands))
        else:
            runs["rekern"] = lambda o: kernel(**o)[0]
            others, missing = ({}, {}) if not with_peers else peers(case.spec, operands, case.heads)
            runs |= others
        calls: dict[str, Callable[[], object]] = {}
        errors: dict[str, float | None] = {"rekern": error}
        for name, run in runs.items():
            try:
                calls[name], errors[name] = self.prepared(run, passes, operands, runs["rekern"], errors.get(name))
            except Exception as fault:
                if name == "rekern":
                    raise
                missing[name] = f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"
        samples = self.interleaved(calls, budget)
        bytes_, flops = self.work_of(work, passes, case.dtype)
        peak = getattr(self.gpu, f"{str(case.dtype).removeprefix('torch.')}_flops_per_s", None)
        return {
            "case": case.name, "spec": case.spec, "passes": passes, "sizes": str(work), "error": error,
            "dtype": str(case.dtype).removeprefix("torch."), "bytes": bytes_, "flops": flops,
            "floor_seconds": max(bytes_ / self.gpu.dram_bytes_per_s, flops / peak if peak else 0.0),
            "copy_seconds": bytes_ / self.copy_bytes_per_s,
            "timed": {n: timing(s, samples["rekern"], errors[n]) for n, s in samples.items()}, "missing": missing,
        }  # fmt: skip

    def prepared(
        self, run: Any, passes: str, operands: Mapping[str, Tensor], ours: Any, error: float | None
    ) -> tuple[Callable[[], object], float | None]:
        """A call that is ready, and the distance of its output from ours where that was not known."""
        if passes == "step":
            run(operands)
            return (lambda: run(operands)), error
        if passes == "forward":
            with torch.no_grad():
                out = run(operands)
                if error is None and not hasattr(run, "leaves"):  # those have weights of their own
                    error = relative(out, ours(operands))

            def forward() -> None:
                with torch.no_grad():
                    run(operands)

            return forward, error
        leaves = getattr(run, "leaves", None) or list(operands.values())
        weight = torch.randn_like(run(operands))

        def both() -> None:
            torch.autograd.grad(run(operands), leaves, weight, allow_unused=True)

        both()
        return both, error

    def steps(self, kernel: Any, work: Workload, operands: Mapping[str, Tensor]) -> Iterator[tuple[str, Any]]:
        """A step in place, called and replayed from a graph: the second is without the host."""
        inputs = {o.name for o in work.spec.of_kind("input")}
        given = {n: (t[:, 0] if n in inputs else t).detach() for n, t in operands.items()}
        with torch.no_grad():
            state = {n: t.clone() for n, t in kernel.step(**given)[1].items()}

        def step(_: object) -> None:
            with torch.no_grad():
                kernel.step(state=state, in_place=True, **given)

        yield "rekern", step
        if not self.dry_run:
            step(None)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step(None)
            yield "rekern, in a graph", lambda _: graph.replay()

    @staticmethod
    def work_of(work: Workload, passes: str, dtype: torch.dtype) -> tuple[int, int]:
        """Bytes that must move and operations that must be done; of a step, the states in and out too."""
        found = floor(work, passes == "forward+backward", detect("cpu"), 1)
        moved = found.bytes * torch.finfo(dtype).bits // 32
        if passes == "step":
            moved += 2 * 4 * sum(torch.Size(work.shape(o)).numel() for o in work.spec.states)
        return moved, found.flops


def relative(actual: Tensor, expected: Tensor) -> float:
    a, b = actual.detach().double(), expected.detach().double()
    return float((a - b).norm()) / (float(b.norm()) or 1.0)


def timing(samples: Samples, ours: Samples, error: float | None) -> dict[str, Any]:
    return {
        "median_seconds": samples.median, "quartile_seconds": samples.quartiles, "rounds": len(samples.seconds),
        "ratio_to_rekern": samples.ratio_to(ours), "error": error,
    }  # fmt: skip


def print_all(report: Mapping[str, Any]) -> None:
    rows = []
    for r in report["results"]:
        for number, (name, t) in enumerate(r["timed"].items()):
            head = (r["case"], r["passes"]) if number == 0 else ("", "")
            ratio = "" if name == "rekern" else f"{digits(t['ratio_to_rekern'])}x"
            error = "" if t["error"] is None else f"{t['error']:.0e}"
            limits = (seconds(r["floor_seconds"]), seconds(r["copy_seconds"])) if number == 0 else ("", "")
            times = (seconds(t["median_seconds"]), between(*t["quartile_seconds"]))
            rows.append((*head, name, *times, ratio, error, *limits))
    columns = ("case", "passes", "candidate", "median", "quartiles", "ratio", "error", "floor", "at copy rate")
    table(columns, rows, right=columns[3:], keep=columns)
    write("error: of rekern against float64; of others their distance from rekern. ratio: times as long as rekern")
    missing = {f"{n}: {why}" for r in report["results"] for n, why in r["missing"].items()}
    failed = [f"{f['case']} failed: {f['error']}" for f in report["failed"]]
    late = [f"{name}: no time was left for it" for name in report["not_reached"]]
    for line in (*sorted(missing), *failed, *late):
        write(line, style="dim")


if __name__ == "__main__":
    sys.exit(main())
