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
from rekern.analysis.logs import Reason
from rekern.cli.console import write, write_json
from rekern.cli.options import BatchOption, BindOption, HeadsOption, JsonOption, SizeOption, SpecArgument, spec_of
from rekern.cli.workload import Workload, chosen
from rekern.hwmodels import detect
from rekern.schedules.cpu.choose import plan, solution
from rekern.schedules.cpu.shape import CpuPlan, Shape
from rekern.schedules.programs import programs
from rekern.schedules.scan import summaries
from rekern.solver import Solution
from rekern.spec import Recurrence


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
    sizes = _chosen(work, threads or torch.get_num_threads(), dtype)
    if as_json:
        write_json(_as_json(found, known, sizes))
        return
    write(f"{found}\n")
    write("facts", style="bold")
    write("\n".join(str(known).splitlines()[1:]))
    write(f"\nsizes for {detect().name}, {work}, {dtype}, {_plural(sizes.threads, 'thread')}", style="bold")
    write(str(sizes.solution))
    write(f"a task: {_in_words(sizes)}")
    scan = f"no, {sizes.no_scan}" if sizes.no_scan else "where there are more threads than tasks"
    write(f"schedule: time_loop; scan over segments of time: {scan}")


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """The sizes of a call, and why time cannot be cut into segments ("" if it can)."""

    work: Workload
    threads: int
    dtype: Dtype
    plan: CpuPlan
    solution: Solution
    no_scan: str


def _chosen(work: Workload, threads: int, dtype: Dtype) -> _Sizes:
    shape = Shape.of(work.sizes, work.batch, work.heads, threads, dtype is Dtype.float64, work.batch * work.time)
    made, machine = programs(work.spec), detect()
    segments = summaries(work.spec)
    reason = str(segments) if isinstance(segments, Reason) else ""
    return _Sizes(work, threads, dtype, plan(made, shape, machine), solution(made, shape, machine), reason)


def _in_words(sizes: _Sizes) -> str:
    made, run, tile = programs(sizes.work.spec), sizes.plan.run, sizes.plan.compiled.tile
    parts = [f"{_plural(run.rows, 'sequence')} of a head"]
    if made.lane is not None:
        parts.append(f"{_plural(run.columns, 'column')} along {made.lane}{' (compiled in)' if tile else ''}")
    every = "step" if made.keep == "steps" else f"{run.block} steps"
    return f"{', '.join(parts)}; states are kept every {every} for the gradient"


def _as_json(spec: Recurrence, known: Facts, sizes: _Sizes) -> dict[str, object]:
    work, best = sizes.work, sizes.solution
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
            "machine": detect().name,
            "batch": work.batch,
            "heads": work.heads,
            "sizes": dict(work.sizes),
            "threads": sizes.threads,
            "dtype": str(sizes.dtype),
            "compiled": dataclasses.asdict(sizes.plan.compiled),
            "run": dataclasses.asdict(sizes.plan.run),
            "values": dict(best.values),
            "predicted_seconds": dict(best.terms),
            "limits": {n: {"used": s.used, "bound": s.bound, "unit": s.unit} for n, s in best.slack.items()},
            "proven_optimal": best.proven_optimal,
            "scan_refused": sizes.no_scan or None,
        },
    }


def _operand(o: object) -> dict[str, object]:
    assert dataclasses.is_dataclass(o) and not isinstance(o, type)
    return {name: value for name, value in dataclasses.asdict(o).items() if value is not None}


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
