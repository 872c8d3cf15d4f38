"""Kernels on a CPU, each against its Python loop, the best form in torch and torch.nn: the numbers that we publish.

In: the zoo (or `--spec`). Out: tables on stdout, and a JSON file with everything that is needed to judge the numbers:
machine, versions, allocator settings, spread, errors, floors. One thread; the clock is the CPU time of the thread.

    python benchmarks/cpu.py                          # everything, about an hour
    python benchmarks/cpu.py --spec gla --spec lstm   # these
    python benchmarks/cpu.py --quick --out /tmp/x     # does it run? the times mean nothing

The Python loops allocate much, so the allocator matters. To give both sides the same settings, run it with
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=268435456.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rekern.cli.console import digits, plain, seconds, size, table, write
from rekern.cli.machine import describe, slug
from rekern.cli.measure import Measurement, measure
from rekern.cli.overhead import ROUNDS, overheads
from rekern.cli.specs import find
from rekern.cli.workload import Workload, draw, family, workloads
from rekern.errors import RekernError
from rekern.zoo import names

HERE = Path(__file__).resolve().parent
SCHEMA = 1
GOAL, MATRIX_GOAL = 2.0, 5.0  # times the speed of the Python loop, forward and with the gradient


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spec", action="append", help="a SPEC of the command line; repeat it (default: the zoo)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for the rounds of one pass (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="short sequences and few rounds")
    parser.add_argument("--only-overhead", action="store_true", help="only what a call costs beside the kernel")
    parser.add_argument("--no-first-call", action="store_true", help="leave out the first calls in fresh processes")
    parser.add_argument("--no-times", action="store_true", help="leave out the times, keep the first calls")
    parser.add_argument("--out", type=Path, help="the JSON file (default: results/<machine>/cpu.json beside this file)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    out = options.out or HERE / "results" / slug() / "cpu.json"
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": options.quick,
        "machine": describe(),
        "results": [],
        "memory": [],
        "first_call": [],
        "call_overhead": [],
        "failed": [],
    }
    measured: list[Measurement] = []
    for name in options.spec or names():
        try:
            if not options.no_times and not options.only_overhead:
                for work in sizes(name, options.quick):
                    load = os.getloadavg()[0]
                    found = measure(work, seconds=0.05 if options.quick else options.seconds)
                    measured += found
                    report["results"] += [{**m.as_json(), "load_average": load} for m in found]
                    report["memory"] += [memory(m) for m in found if m.passes == "forward+backward"]
            if not options.no_times:
                found_overheads = overheads(find(name), rounds=3 if options.quick else ROUNDS)
                report["call_overhead"] += [{"spec": name, **asdict(o)} for o in found_overheads]
            if not options.no_first_call and not options.only_overhead:
                report["first_call"].append(first_call(name, sizes(name, options.quick)[0]))
        except RekernError as error:  # one that fails is reported, and costs the others nothing
            report["failed"].append({"spec": name, "error": str(error)})
            write(f"{name}: {error}", style="red")
            continue
        save(report, out)
        write(f"done: {name}", style="dim")
    print_all(report, measured)
    write(f"\nwritten to {out}")
    return 1 if report["failed"] else 0


def sizes(name: str, quick: bool) -> list[Workload]:
    """What `name` is measured on."""
    found = workloads(find(name))
    return [replace(found[0], batch=min(2, found[0].batch), time=found[0].time // 16)] if quick else found


def memory(m: Measurement) -> dict[str, object]:
    """What is kept for the gradient, beside the states of all steps."""
    work = m.workload
    states = sum(math.prod(work.shape(o)) for o in work.spec.states)
    loop = m.baseline("loop")
    return {
        "spec": work.spec.name,
        "sizes": dict(work.sizes),
        "kept_bytes": m.rekern.kept_bytes,
        "all_states_bytes": 4 * states * work.time,
        "loop_kept_bytes": loop.kept_bytes if loop else None,
    }


def first_call(name: str, work: Workload) -> dict[str, object]:
    """Seconds of the first call with nothing cached, and of the first call of the next process.

    Raises:
        RekernError: a process failed; the message is the end of what it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="rekern-first-call-") as folder:
        operands = Path(folder) / "operands.pt"
        torch.save(dict(draw(work).operands), operands)
        environment = {**os.environ, "REKERN_CACHE_DIR": str(Path(folder) / "cache")}
        runs = []
        for _ in range(2):
            command = [sys.executable, str(HERE / "first_call.py"), name, str(operands)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise RekernError(f"the first call of {name} failed: {done.stderr.strip()[-500:]}")
            runs.append(json.loads(done.stdout))
    return {"spec": name, "nothing_cached": runs[0], "cached": runs[1]}


def save(report: dict[str, Any], out: Path) -> None:
    """After every spec, so that an interrupted run leaves what it has."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    part.write_text(json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
    os.replace(part, out)


# -- tables --------------------------------------------------------------------------------------------------


def print_all(report: dict[str, Any], measured: list[Measurement]) -> None:
    for passes in ("forward", "forward+backward"):
        rows = [row(m) for m in measured if m.passes == passes]
        if rows:
            write(f"\n{passes}, one thread", style="bold")
            columns = ("spec", "lengths", "rekern", "floor", "loop", "", "torch", "", "nn", "", "error")
            table(columns, rows, right=columns[2:], keep=columns)
    if report["memory"]:
        write("\nkept for the gradient, beside the operands", style="bold")
        columns = ("spec", "lengths", "rekern", "all states", "Python loop")
        table(columns, (memory_row(m) for m in report["memory"]), right=columns[2:], keep=columns)
    if report["first_call"]:
        write("\nfirst call, forward and backward, beyond imports (wall time; CPU time of all processes)", style="bold")
        columns = ("spec", "nothing cached", "CPU", "cached", "CPU (cached)", "import rekern")
        table(columns, (first_row(f) for f in report["first_call"]), right=columns[1:], keep=columns)
    if report["call_overhead"]:
        write("\ncall overhead: microseconds above the library, B = T = H = 1, axes of 8", style="bold")
        columns = ("spec", *dict.fromkeys(o["call"] for o in report["call_overhead"]))
        table(columns, overhead_rows(report["call_overhead"]), right=columns[1:], keep=columns)
    below = list(below_goal(measured))
    if below:
        write(f"\nbelow the goal ({MATRIX_GOAL:g}x the loop with a matrix state, else {GOAL:g}x)", style="bold")
        write("\n".join(below))


def row(m: Measurement) -> tuple[str, ...]:
    times = [t for t in (m.floor.memory_seconds, m.floor.arithmetic_seconds) if t is not None]
    cells = [m.workload.spec.name, str(m.workload), seconds(m.rekern.samples.median)]
    cells.append(seconds(max(times)) if times else "")
    for role in ("loop", "torch", "nn"):
        baseline, ratio = m.baseline(role), m.ratio(role)
        cells += [seconds(baseline.samples.median), f"{digits(ratio)}x"] if baseline and ratio else ["", ""]
    return (*cells, f"{m.rekern.error:.1e}")


def memory_row(found: dict[str, Any]) -> tuple[str, ...]:
    lengths = " ".join(f"{axis}{length}" for axis, length in found["sizes"].items())
    loop = found["loop_kept_bytes"]
    kept = (found["kept_bytes"], found["all_states_bytes"])
    return found["spec"], lengths, *map(size, kept), size(loop) if loop is not None else ""


def first_row(found: dict[str, Any]) -> tuple[str, ...]:
    times = [run[key] for run in (found["nothing_cached"], found["cached"]) for key in ("seconds", "cpu_seconds")]
    return found["spec"], *map(seconds, times), seconds(found["cached"]["rekern_import_seconds"])


def overhead_rows(found: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys(o["spec"] for o in found):
        yield name, *(f"{o['above']:.1f}" for o in found if o["spec"] == name)


def below_goal(measured: list[Measurement]) -> Iterator[str]:
    for m in measured:
        ratio = m.ratio("loop")
        goal = MATRIX_GOAL if family(m.workload.spec) == "matrix" else GOAL
        if ratio is not None and ratio < goal:
            yield f"{m.workload.spec.name}, {m.workload}, {m.passes}: {digits(ratio)}x"


if __name__ == "__main__":
    sys.exit(main())
