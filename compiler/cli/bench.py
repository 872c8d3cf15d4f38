"""`rekern bench`: kernels against the Python loop, the best form in torch, and torch.nn.

In: SPECs and lengths. Out: a table for each, or one JSON object. The errors against float64 and the floor of the
machine stand beside the times.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import torch
import typer

from rekern.backends.cpp import toolchain
from rekern.cli.console import between, digits, seconds, table, write, write_json
from rekern.cli.console import size as in_bytes
from rekern.cli.machine import describe
from rekern.cli.measure import Measurement, PassName, measure
from rekern.cli.options import BatchOption, BindOption, HeadsOption, JsonOption, SizeOption, TimeOption, spec_of
from rekern.cli.timing import clock_name
from rekern.cli.workload import chosen

COLUMNS = ("", "", "median", "quartiles", "ratio", "error", "kept")
RIGHT = COLUMNS[2:]
SHORT: dict[PassName, str] = {"forward": "forward", "forward+backward": "+ backward"}


class Passes(StrEnum):
    """What is timed."""

    forward = "forward"
    both = "forward+backward"
    all = "all"


NAMES: dict[Passes, tuple[PassName, ...]] = {
    Passes.forward: ("forward",),
    Passes.both: ("forward+backward",),
    Passes.all: ("forward", "forward+backward"),
}


def bench(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Names of the zoo, or path/to/file.py:name.")],
    batch: BatchOption = None,
    time: TimeOption = None,
    heads: HeadsOption = None,
    size: SizeOption = None,
    bind: BindOption = None,
    passes: Annotated[Passes, typer.Option("--pass", help="What to time.")] = Passes.all,
    budget: Annotated[
        float, typer.Option("--seconds", min=0.0, help="For the rounds of one pass; three rounds at least.")
    ] = 2.0,
    threads: Annotated[int, typer.Option(min=1, help="1: CPU time of the thread. More: wall time.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Time kernels against Python loops, other forms in torch and torch.nn.

    Lengths that are not given are the usual ones for the kind of recurrence. The baseline takes turns with the
    kernel in one process; with one thread the clock counts only the time that this thread ran.
    """
    toolchain()
    works = []
    for name in specs:
        spec, lengths = spec_of(name, size, bind)
        works.append(chosen(spec, lengths, batch, time, heads))
    measured = []
    for work in works:
        if sys.stderr.isatty():  # no moving bar: it would take turns with what is timed
            typer.echo(f"timing {work.spec.name}, {work}", err=True)
        measured.append(measure(work, NAMES[passes], threads=threads, seconds=budget))
        if not as_json:
            _print(measured[-1])
    if as_json:
        results = [m.as_json() for group in measured for m in group]
        write_json({"machine": describe(), "threads": threads, "results": results})


def _print(group: list[Measurement]) -> None:
    first = group[0]
    work, count = first.workload, first.threads
    bound = "".join(f" {axis}={length}" for axis, length in work.spec.bindings)
    write(f"{work.spec.name}{bound}, {work}, float32, {count} thread{'s' * (count > 1)}", style="bold")
    table(COLUMNS, [row for m in group for row in _rows(m)], RIGHT)
    for m in group:
        times = [t for t in (m.floor.memory_seconds, m.floor.arithmetic_seconds) if t is not None]
        at_least = f", so {seconds(max(times))} at least" if times else ""
        write(f"floor, {m.passes}: {m.floor}{at_least}")
    if any(m.slower for m in group):
        slower = "; ".join(f"{n} {seconds(s)} ({m.passes})" for m in group for n, s in m.slower.items())
        write(f"slower, tried once: {slower}")
    write(f"{clock_name(count)}, torch {torch.__version__}; ratio: how many times as long as rekern")
    write("error: largest difference from float64 / largest number; kept: memory held for the gradient")
    if first.checked_steps < work.time:
        write(f"errors are those of the first {first.checked_steps} steps: more do not fit into memory in float64")
    write("")


def _rows(m: Measurement) -> Iterator[tuple[str, ...]]:
    for number, timed in enumerate((m.rekern, *m.baselines)):
        ratio = m.ratio(timed.role)
        yield (
            SHORT[m.passes] if number == 0 else "",
            timed.name,
            seconds(timed.samples.median),
            between(*timed.samples.quartiles),
            f"{digits(ratio)}x" if ratio is not None else "",
            f"{timed.error:.0e}",
            in_bytes(timed.kept_bytes) if m.passes != "forward" else "",
        )
