"""Every spec of the zoo x pass x architecture x dtype, compiled: registers, shared memory, spills, seconds.

In: the zoo and the machine files. Out: a table on stdout, and a JSON file an architecture with the toolchain. Needs
no GPU. A kernel is counted with the sizes that a call would get: the first of the solver's that the compiler accepts.

    nice -n 19 python benchmarks/offline.py                          # everything, about an hour on two processors
    python benchmarks/offline.py --sample 40                         # 40 of the cases, always the same ones
    python benchmarks/offline.py --architecture sm_90 --dtype float32 --spec gla lstm

A case is one spec at its usual sizes, and at odd ones, in one dtype on one architecture. Of several machines of an
architecture it is the one with the least shared memory.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from rekern import zoo
from rekern.backends.triton import toolchain
from rekern.cli.console import table
from rekern.errors import BuildError, PlanError
from rekern.gate.verdicts import Accepted
from rekern.hwmodels import load
from rekern.runtime.gpu.fits import ask
from rekern.runtime.gpu.launches import source_of
from rekern.runtime.gpu.views import PASSES, Views
from rekern.schedules.gpu.call import DTYPES, Call, Dtype
from rekern.schedules.gpu.usual import usual_calls
from rekern.schedules.triton.passes import TritonPass

HERE = Path(__file__).resolve().parent
MACHINES = {
    "sm_80": "a100_sxm_80gb", "sm_86": "a10g", "sm_89": "l40s", "sm_90": "h100_sxm", "sm_100": "b200",
    "sm_120": "rtx5090", "gfx942": "mi300x",
}  # fmt: skip
SIZES = {"usual": 0, "odd": -1}  # places in `usual_calls`
LITERAL = {"n": 2}


@dataclass(frozen=True)
class Case:
    """One spec in one dtype on one architecture."""

    spec: str
    architecture: str
    dtype: Dtype
    sizes: str


@dataclass(frozen=True)
class Row:
    """One kernel. `error`: why there is none.

    seconds: To find sizes that fit, for all kernels of the pass; of `recording` also for those of the gradient, which
        are found together. What an earlier run has compiled is remembered, so only those of a first one say how long it
        takes.
    """

    spec: str
    architecture: str
    dtype: str
    lengths: str
    pass_name: str
    kernel: str = ""
    tile: str = ""
    warps: int = 0
    stages: int = 0
    registers: int = 0
    shared_bytes: int = 0
    spill_bytes: int = 0
    seconds: float = 0.0
    error: str = ""


def cases(args: argparse.Namespace) -> list[Case]:
    """Those that were asked for, in an order that mixes everything where a sample is."""
    every = [
        Case(spec, architecture, dtype, sizes)
        for sizes in args.sizes
        for dtype in args.dtype
        for architecture in args.architecture
        for spec in args.spec
    ]
    return random.Random(0).sample(every, min(args.sample, len(every))) if args.sample else every


def compiled(case: Case) -> list[Row]:
    """The kernels of a case."""
    spec = zoo.load(case.spec)
    spec = spec.bind(**{axis: length for axis, length in LITERAL.items() if axis in spec.axes})
    call = usual_calls(spec, load(MACHINES[case.architecture]), case.dtype)[SIZES[case.sizes]]
    lengths = " ".join(f"{axis}={length}" for axis, length in call.lengths)
    rows, views = [], Views(call)
    for name in PASSES:
        start = time.perf_counter()
        about = case.spec, case.architecture, case.dtype, lengths, name
        try:
            found = views.of(name)
        except (PlanError, BuildError) as error:
            rows.append(Row(*about, seconds=round(time.perf_counter() - start, 2), error=str(error)))
            continue
        seconds = round(time.perf_counter() - start, 2)
        rows += [_row(about, call, view, seconds) for view in found]
    return rows


def _row(about: tuple[str, str, str, str, str], call: Call, view: TritonPass, seconds: float) -> Row:
    verdict = ask(source_of(view), call.machine)
    assert isinstance(verdict, Accepted)
    r, s = verdict.resources, view.sizes
    tile = [f"{s.rows} rows"] * (s.rows > 0) + [f"{s.columns} columns"] * (s.columns > 0)
    return Row(
        *about, view.entry, " x ".join(tile) or "whole", s.warps, s.stages, r.registers, r.shared_bytes, r.spill_bytes,
        seconds,
    )  # fmt: skip


def results(todo: Sequence[Case], workers: int) -> Iterator[list[Row]]:
    """The rows of each case, as they come."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(compiled, case) for case in todo]):
                yield done.result()
        finally:  # after a fault nobody waits for the rest
            pool.shutdown(cancel_futures=True)


def save(rows: Sequence[Row], folder: Path) -> None:
    """One file an architecture; what was compiled earlier and not now stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for architecture in sorted({row.architecture for row in rows}):
        path = folder / f"zoo_{architecture}.json"
        kept = json.loads(path.read_text())["kernels"] if path.exists() else []
        new = [asdict(row) for row in rows if row.architecture == architecture]
        again = {_pass(row) for row in new}
        merged = [*(row for row in kept if _pass(row) not in again), *new]
        merged.sort(key=lambda row: (_pass(row), row["kernel"]))
        head = {"machine": MACHINES[architecture], "toolchain": toolchain(architecture)}
        kernels = ",\n".join(f"  {json.dumps(row)}" for row in merged)
        path.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "kernels": [\n{kernels}\n ]\n}}\n')


def _pass(row: dict[str, object]) -> tuple[str, ...]:
    """What is compiled at once: its kernels may be others than before."""
    return tuple(str(row[name]) for name in ("spec", "dtype", "lengths", "pass_name"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", nargs="+", default=zoo.names())
    parser.add_argument("--architecture", nargs="+", default=list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--sample", type=int, default=0, help="cases, drawn always alike; 0: all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "offline")
    args = parser.parse_args()
    start, rows = time.perf_counter(), list[Row]()
    for found in results(cases(args), args.workers):
        rows += found
        for row in found:
            said = row.error.splitlines()
            print(*(f"{v}" for v in list(asdict(row).values())[:-1]), *said, sep=" | ", flush=True)
        save(found, args.out)
    failed = [row for row in rows if row.error]
    heads = ("spec", "architecture", "dtype", "lengths", "pass")
    if failed:
        table(heads, [tuple(asdict(row).values())[:5] for row in failed])
    print(
        f"{len(rows)} kernels, {len(failed)} without sizes that fit, {sum(r.spill_bytes > 0 for r in rows)} spill, "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
