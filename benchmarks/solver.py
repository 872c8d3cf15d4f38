"""The solver, timed: FlashRNN's constraint system beside CP-SAT and python-constraint, and all problems of the zoo.

In: `flashrnn_system`, and what the schedules pose for the zoo. Out: tables on stdout, and a JSON file with
everything that is needed to judge the numbers: machine, versions, every sample.

    python benchmarks/solver.py                     # everything, about half an hour
    python benchmarks/solver.py --only flashrnn     # or --only zoo; the other part of the file is kept
    python benchmarks/solver.py --quick             # does it run? the times mean little

Times are CPU time of the process, which other processes do not lengthen and which no thread can hide from; each
back end has one thread. The problem is stated once and given to all; how long that takes is a column of its own.
The back ends take turns, and no two of the samples that are compared are from different runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from flashrnn_system import Case, cases, corrected, published

from rekern.cli.console import digits, plain, seconds, table, write
from rekern.cli.machine import describe, slug
from rekern.cli.specs import find
from rekern.cli.workload import workloads
from rekern.hwmodels import Machine, load
from rekern.hwmodels.files import names as machines
from rekern.schedules.cpu.choose import problem as cpu_problem
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.gpu.call import DTYPES
from rekern.schedules.gpu.ranking import problems as gpu_problems
from rekern.schedules.gpu.usual import usual_calls
from rekern.schedules.programs import programs
from rekern.solver import Infeasible, OutOfTime, Problem, solve
from rekern.zoo import names

HERE = Path(__file__).resolve().parent
SCHEMA = 1
BACKENDS = ("native", "cpsat", "python_constraint")
PACKAGES = ("numpy", "sympy", "ortools", "python-constraint2")
FLASHRNN_GOAL_SECONDS, TIMES_THE_SLOWER = 0.1, 10.0
MEDIAN_GOAL_SECONDS, LAST_GOAL_SECONDS = 0.010, 0.100   # of the zoo: half, and 99 of 100, take no longer
ROUNDS = 3
LONG_SECONDS = 20.0     # what takes longer has one round
FIRST_USE = Case(1, 64, 8, True)    # imports and first calls are not what is compared


@dataclass
class Timed:
    """One back end on one problem."""

    backend: str
    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    outcome: str = ""           # "proven", "not proven", "nothing found"
    cost: float | None = None
    values: dict[str, int] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.cpu_seconds)

    def run(self, problem: Problem, limit_seconds: float) -> None:
        start, cpu_start = time.perf_counter(), time.process_time()
        try:
            found = solve(problem, deadline=limit_seconds, backend=self.backend)
        except OutOfTime:
            self.outcome = "nothing found"
        else:
            self.outcome = "proven" if found.proven_optimal else "not proven"
            self.cost, self.values = found.cost, dict(found.values)
        self.cpu_seconds.append(time.process_time() - cpu_start)
        self.wall_seconds.append(time.perf_counter() - start)

    def __str__(self) -> str:
        return seconds(self.median) if self.outcome == "proven" else f"> {seconds(self.median)}"


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("flashrnn", "zoo"), help="one part (default: both)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a solve (default: %(default)s)")
    parser.add_argument("--spec", action="append", help="of the zoo; repeat it (default: all)")
    parser.add_argument("--machine", action="append", help="of the zoo's problems; repeat it (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few problems, one round")
    parser.add_argument("--out", type=Path, help="the JSON file (default: results/<machine>/solver.json)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    out = options.out or HERE / "results" / slug() / "solver.json"
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "quick": options.quick,
        "machine": {**describe(), **{name: version(name) for name in PACKAGES}},
        "limit_seconds": options.limit,
        **(other_part(out) if options.only else {"started": {}, "flashrnn": [], "zoo": {}}),
    }
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    report["started"] |= dict.fromkeys([options.only] if options.only else ["flashrnn", "zoo"], now)
    if options.only != "zoo":
        report["flashrnn"] = []
        for row in flashrnn(options.quick, options.limit):
            report["flashrnn"].append(row)
            save(report, out)
        print_flashrnn(report["flashrnn"])
    if options.only != "flashrnn":
        report["zoo"] = zoo(options)
        print_zoo(report["zoo"])
    save(report, out)
    write(f"\nwritten to {out}")
    missed = list(below_goal(report))
    if missed:
        write("\nbelow the goal", style="bold")
        write("\n".join(missed))
    return 0


# -- FlashRNN's system -----------------------------------------------------------------------------------------


def flashrnn(quick: bool, limit_seconds: float) -> Iterator[dict[str, Any]]:
    """Each case under every back end, in turns."""
    gpu = load("h100_sxm").gpu
    assert gpu is not None
    for backend in BACKENDS:
        Timed(backend).run(published(FIRST_USE, gpu), limit_seconds)
    for case in [Case(12, 64, 2, True)] if quick else cases():
        for variant, state in (("published", published), ("corrected", corrected)):
            built: list[float] = []
            timed = [Timed(backend) for backend in BACKENDS]
            for number in range(1 if quick else ROUNDS):
                start = time.process_time()
                problem = state(case, gpu)
                built.append(time.process_time() - start)
                for one in timed:
                    if number == 0 or one.cpu_seconds[0] < LONG_SECONDS:
                        one.run(problem, limit_seconds)
            proven = {(one.cost, *one.values.items()) for one in timed if one.outcome == "proven"}
            row = {
                "case": str(case),
                "variant": variant,
                "points": problem.points,
                "build_seconds": built,
                "agree": len(proven) == 1,
                "load_average": os.getloadavg()[0],
                "backends": {one.backend: {**asdict(one), "shown": str(one)} for one in timed},
            }
            write(f"done: {case}, {variant}", style="dim")
            yield row


def print_flashrnn(rows: list[dict[str, Any]]) -> None:
    write("\nFlashRNN's system, best solution proven; CPU time, median", style="bold")
    columns = ("case", "variant", "stated in", *BACKENDS, "slower / native", "faster / native", "same answer")
    table(columns, map(flashrnn_row, rows), right=columns[2:], keep=columns)


def flashrnn_row(row: dict[str, Any]) -> tuple[str, ...]:
    slower, faster = ratios(row)
    shown = [row["backends"][backend]["shown"] for backend in BACKENDS]
    agree = "yes" if row["agree"] else "NO"
    built = seconds(statistics.median(row["build_seconds"]))
    return row["case"], row["variant"], built, *shown, f"{digits(slower)}x", f"{digits(faster)}x", agree


def ratios(row: dict[str, Any]) -> tuple[float, float]:
    """How many times as long as the native search the slower and the faster of the others take, at least."""
    native, *others = (statistics.median(row["backends"][backend]["cpu_seconds"]) for backend in BACKENDS)
    return max(others) / native, min(others) / native


# -- the zoo ---------------------------------------------------------------------------------------------------

Posed = Iterator[dict[str, Problem]]    # those that are stated together, by what tells them apart


def on_cpu(spec: str, machine: Machine) -> Posed:
    """What one thread and all threads of a CPU ask for, in both precisions."""
    if machine.cpu is None:
        return
    for work in workloads(find(spec)):
        for threads in sorted({1, machine.cpu.cores}):
            for dtype in ("float32", "float64"):
                tokens = work.batch * work.time
                shape = Shape.of(work.sizes, work.batch, work.heads, threads, dtype == "float64", tokens)
                yield {f"{dtype}, {threads} threads": cpu_problem(programs(work.spec), shape, machine)}


def on_gpu(spec: str, machine: Machine) -> Posed:
    """Every schedule of the usual calls, in every dtype."""
    if machine.gpu is None:
        return
    for dtype in DTYPES:
        for call in usual_calls(find(spec), machine, dtype):
            size = f"batch {call.batch}, heads {call.heads}, time {call.time}"
            yield {f"{dtype}, {size}, {schedule}": problem for schedule, problem in gpu_problems(call)[0].items()}


# A new kind of machine is one more provider.
PROVIDERS: tuple[Callable[[str, Machine], Posed], ...] = (on_cpu, on_gpu)


def zoo(options: argparse.Namespace) -> dict[str, Any]:
    """Every problem that the zoo poses on every machine and dtype, solved once."""
    specs = options.spec or (["lstm", "gla"] if options.quick else names())
    places = options.machine or (["x86_avx2", "h100_sxm"] if options.quick else machines())
    taken: list[float] = []
    unfit: list[float] = []
    built: list[float] = []
    unproven: list[str] = []
    slowest: list[dict[str, Any]] = []
    for spec in specs:
        for place in places:
            for what, problem, build in stated(spec, load(place), 3 if options.quick else None):
                built.append(build)
                gc.disable()    # as timeit does: thousands of problems leave garbage that one does not
                start = time.process_time()
                try:
                    found = solve(problem, deadline=options.limit)
                    proven, kind = found.proven_optimal, taken
                except Infeasible as error:
                    proven, kind = error.minimal, unfit
                except OutOfTime:
                    proven, kind = False, taken
                spent = time.process_time() - start
                gc.enable()
                kind.append(spent)
                label = f"{spec}, {place}, {what}"
                if not proven:
                    unproven.append(label)
                slowest = sorted([*slowest, {"problem": label, "cpu_seconds": spent}], key=by_time)[-20:]
        write(f"done: {spec}, {len(taken) + len(unfit):,} problems", style="dim")
    return {
        "specs": len(specs),
        "machines": len(places),
        "problems": len(taken) + len(unfit),
        "unproven": unproven,
        "solved": spread(taken),
        "infeasible": spread(unfit),
        "stated": spread(built),
        "slowest": slowest[::-1],
    }


def stated(spec: str, machine: Machine, most: int | None) -> Iterator[tuple[str, Problem, float]]:
    """Problems, and how long it took to state each; those that are stated together share the time."""
    for provider in PROVIDERS:
        start = time.process_time()
        for group in islice(provider(spec, machine), most):
            spent = time.process_time() - start
            for what, problem in group.items():
                yield what, problem, spent / len(group)
            start = time.process_time()


def by_time(entry: dict[str, Any]) -> float:
    return float(entry["cpu_seconds"])


def spread(values: Iterable[float]) -> dict[str, float]:
    """Count, median, 99th percentile and maximum, in seconds."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    last = ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
    return {"count": len(ordered), "median": statistics.median(ordered), "p99": last, "max": ordered[-1]}


def print_zoo(found: dict[str, Any]) -> None:
    write(f"\nproblems of {found['specs']} specs on {found['machines']} machines; CPU time", style="bold")
    columns = ("", "problems", "median", "p99", "max")
    rows = []
    for kind in ("solved", "infeasible", "stated"):
        one = found[kind]
        times = [seconds(one[key]) if key in one else "" for key in ("median", "p99", "max")]
        rows.append((kind, f"{one['count']:,}", *times))
    table(columns, rows, right=columns[1:], keep=columns)
    share = 1 - len(found["unproven"]) / max(1, found["problems"])
    write(f"proven: {share:.2%}")


# -- the goals -------------------------------------------------------------------------------------------------


def below_goal(report: dict[str, Any]) -> Iterator[str]:
    for row in report["flashrnn"]:
        native = row["backends"]["native"]
        slower, faster = ratios(row)
        label = f"{row['case']}, {row['variant']}"
        if native["outcome"] != "proven" or not row["agree"]:
            yield f"{label}: {native['outcome']}, same answer: {row['agree']}"
        if statistics.median(native["cpu_seconds"]) > FLASHRNN_GOAL_SECONDS:
            yield f"{label}: {native['shown']}, goal {seconds(FLASHRNN_GOAL_SECONDS)}"
        if slower < TIMES_THE_SLOWER or faster < 1:
            yield f"{label}: {digits(slower)}x the slower, {digits(faster)}x the faster"
    found = report["zoo"]
    if found:
        if found["unproven"]:
            yield f"zoo: {len(found['unproven'])} not proven, such as {found['unproven'][0]}"
        for key, goal in (("median", MEDIAN_GOAL_SECONDS), ("p99", LAST_GOAL_SECONDS)):
            if found["solved"].get(key, 0.0) > goal:
                yield f"zoo: {key} {seconds(found['solved'][key])}, goal {seconds(goal)}"


def other_part(out: Path) -> dict[str, Any]:
    """What an earlier run has written, so that each part can be measured by itself."""
    before = json.loads(out.read_text()) if out.exists() else {}
    return {key: before.get(key, empty) for key, empty in (("started", {}), ("flashrnn", []), ("zoo", {}))}


def save(report: dict[str, Any], out: Path) -> None:
    """After every case, so that an interrupted run leaves what it has."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    part.write_text(json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
    os.replace(part, out)


if __name__ == "__main__":
    sys.exit(main())
