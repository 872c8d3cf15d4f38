"""`rekern show`: a recurrence as equations, what the analysis knows of it, and the sizes chosen for this machine.

In: a SPEC and lengths. Out: text, or one JSON object.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Annotated

import torch
import typer

from rekern.analysis.facts import Facts, facts
from rekern.cli.console import write, write_json
from rekern.cli.options import BatchOption, BindOption, HeadsOption, JsonOption, SizeOption, SpecArgument, spec_of
from rekern.cli.workload import Workload, chosen
from rekern.hwmodels import detect
from rekern.schedules.choose import CpuPlan, Shape, plan
from rekern.schedules.programs import programs
from rekern.spec import Recurrence

SCHEDULE = "time_loop"


class Dtype(StrEnum):
    """What the operands hold."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"
    float16 = "float16"


def show(
    spec: SpecArgument,
    size: SizeOption = None,
    bind: BindOption = None,
    batch: BatchOption = None,
    heads: HeadsOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: as many as torch uses.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Of the operands; float64 is computed in float64.")] = Dtype.float32,
    as_json: JsonOption = False,
) -> None:
    """Show equations, facts, and the sizes that are chosen for this machine."""
    found, lengths = spec_of(spec, size, bind)
    known = facts(found)
    work = chosen(found, lengths, batch=batch, heads=heads)
    count = threads or torch.get_num_threads()
    sizes = _plan(work, count, dtype is Dtype.float64)
    if as_json:
        write_json(_as_json(found, known, work, count, dtype, sizes))
        return
    write(found.name, style="bold")
    if found.doc:
        write("\n".join(f"    {line}".rstrip() for line in found.doc.splitlines()))
    write(f"\n{found}\n")
    write("facts", style="bold")
    write("\n".join(str(known).splitlines()[1:]))
    write(f"\nschedule {SCHEDULE} for {detect().name}, {work}, {dtype}, {_plural(count, 'thread')}", style="bold")
    write(str(sizes))


def _plan(work: Workload, threads: int, double: bool) -> CpuPlan:
    shape = Shape.of(work.sizes, work.batch, work.heads, threads, double)
    return plan(programs(work.spec), shape, detect())


def _as_json(
    spec: Recurrence, known: Facts, work: Workload, threads: int, dtype: Dtype, sizes: CpuPlan
) -> dict[str, object]:
    solution = sizes.solution
    return {
        "name": spec.name,
        "doc": spec.doc,
        "bound": dict(spec.bindings),
        "operands": [_operand(o) for o in spec.operands],
        "equations": str(spec),
        "facts": {
            "stages": [
                {"states": list(s.stage.states), "kind": str(s.kind), "independent_axes": list(s.independent)}
                for s in known.stages
            ],
            "readouts": [str(r) for r in known.readouts],
            "flops": str(known.counts.flops),
            "state_bytes": str(known.counts.state_bytes),
            "warnings": list(known.warnings),
        },
        "plan": {
            "schedule": SCHEDULE,
            "machine": detect().name,
            "batch": work.batch,
            "heads": work.heads,
            "sizes": dict(work.sizes),
            "threads": threads,
            "dtype": str(dtype),
            "compiled": dataclasses.asdict(sizes.compiled),
            "run": dataclasses.asdict(sizes.run),
            "values": dict(solution.values),
            "predicted_seconds": dict(solution.terms),
            "limits": {n: {"used": s.used, "bound": s.bound, "unit": s.unit} for n, s in solution.slack.items()},
            "proven_optimal": solution.proven_optimal,
        },
    }


def _operand(o: object) -> dict[str, object]:
    assert dataclasses.is_dataclass(o) and not isinstance(o, type)
    return {name: value for name, value in dataclasses.asdict(o).items() if value is not None}


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
