"""`rekern calibrate`: measures this machine and keeps the numbers for every later plan.

In: how long. Out: a table of numbers, each with its spread and what the machine file says; and an overlay.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from rekern.calibrate.measurement import Measurement
from rekern.calibrate.overlay import Calibration, calibrate, save
from rekern.cli.console import table, write, write_json
from rekern.cli.options import JsonOption

LEAST_SECONDS = 0.1


def calibrate_command(
    seconds: Annotated[float, typer.Option("--seconds", min=LEAST_SECONDS, help="At most, for the rounds.")] = 30.0,
    gpu: Annotated[bool, typer.Option("--gpu", help="Measure the first GPU instead of the CPU.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and print, but keep nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure about ten numbers of this machine, and plan with them from now on."""
    kind: Literal["cpu", "gpu"] = "gpu" if gpu else "cpu"
    done = calibrate(kind, seconds)
    path = None if dry_run else save(done)
    if as_json:
        write_json(
            {
                "machine": done.machine.name,
                "processor": done.processor,
                "rounds": done.rounds,
                "tools": done.tools,
                "when": done.when.isoformat(),
                "measurements": [
                    {**asdict(m), "stored": m.stored, "file": _of_file(done, m)} for m in done.measurements
                ],
                "overlay": None if path is None else str(path),
            }
        )
        return
    write(f"{done.machine.name}: {done.processor}, {done.rounds} rounds", style="bold")
    columns = ("", "measured", "unit", "spread", "file", "how")
    table(columns, [_row(done, m) for m in done.measurements], right=("measured", "spread", "file"), keep=("", "unit"))
    unsteady = [m.key for m in done.measurements if m.kept and not m.stored]
    if unsteady:
        write(f"\nnot kept, because the rounds differ too much: {', '.join(unsteady)}; is the machine busy?", "yellow")
    write("\nnothing was kept" if path is None else f"\nkept in {path}")


def _row(done: Calibration, m: Measurement) -> tuple[str, ...]:
    before = _of_file(done, m)
    return (m.key, f"{m.median:.4g}", m.unit, f"{m.spread:.0%}", "" if before is None else f"{before:.4g}", m.how)


def _of_file(done: Calibration, m: Measurement) -> float | None:
    """What the machine file says of it."""
    known = dict(done.machine.resource_vector()).get(f"{done.machine.kind}.{m.key}")
    return float(known) if isinstance(known, int | float) else None
