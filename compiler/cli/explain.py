"""`rekern explain`: which schedule and sizes a call gets on a machine, what bounds it, and why the others lost.

In: a SPEC, lengths, a machine. Out: text, or one JSON object; with `--html` a page in a file, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from rekern.cli.console import write, write_json
from rekern.cli.options import (
    BatchOption,
    BindOption,
    HeadsOption,
    JsonOption,
    SizeOption,
    SpecArgument,
    TimeOption,
    spec_of,
)
from rekern.cli.show import Dtype
from rekern.cli.workload import Workload, chosen
from rekern.explain.cpu import CpuCall
from rekern.explain.explain import TOP
from rekern.explain.explain import explain as explained
from rekern.hwmodels import Machine, detect, detect_gpus, load
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.call import Dtype as GpuDtype
from rekern.schedules.gpu.rates import has_matrix

AUTO = "auto"


def explain(
    spec: SpecArgument,
    target: Annotated[
        str,
        typer.Option(help="A name of `rekern hw ls`, the path of a .toml file, or auto: the GPU here, else the CPU."),
    ] = AUTO,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Of the operands. Default: of a GPU the 16 bits that it multiplies, of a CPU float32."),
    ] = None,
    batch: BatchOption = None,
    time: TimeOption = None,
    heads: HeadsOption = None,
    size: SizeOption = None,
    bind: BindOption = None,
    forward_only: Annotated[bool, typer.Option("--forward-only", help="GPU: no gradient follows.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU: default, one a core.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many choices that lost to tell of.")] = TOP,
    as_json: JsonOption = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with charts to a file.")] = None,
) -> None:
    """Explain which schedule and sizes a call gets on a machine, and why the others lost.

    Lengths that are not given are the usual ones for the kind of recurrence. Times are predicted, not measured.
    """
    found, lengths = spec_of(spec, size, bind)
    work = chosen(found, lengths, batch, time, heads)
    machine = _machine(target)
    if machine.kind == "gpu":
        if threads is not None:
            raise typer.BadParameter(f"{machine.name} is a GPU; threads are those of a CPU", param_hint="--threads")
        call: Call | CpuCall = _gpu_call(work, machine, dtype, not forward_only)
    else:
        if forward_only:
            raise typer.BadParameter(
                f"{machine.name} is a CPU, whose sizes serve both passes", param_hint="--forward-only"
            )
        call = _cpu_call(work, machine, dtype or Dtype.float32, threads)
    result = explained(call, top)
    if html is not None:
        try:
            html.write_text(result.to_html(), encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"cannot write {str(html)!r}: {error.strerror}", param_hint="--html") from None
    if as_json:
        write_json(result.to_json())
    else:
        write(str(result))


def _machine(target: str) -> Machine:
    """The machine of that name; the first GPU here, else the CPU, for `auto`."""
    if target != AUTO:
        return load(target)
    return detect("gpu" if detect_gpus() else "cpu")


def _gpu_call(work: Workload, machine: Machine, dtype: Dtype | None, gradient: bool) -> Call:
    assert machine.gpu is not None
    usual = "bfloat16" if has_matrix(machine.gpu, "bfloat16") else "float16"
    return Call.of(
        work.spec, work.sizes, machine, batch=work.batch, heads=work.heads, time=work.time,
        dtype=cast(GpuDtype, str(dtype or usual)), gradient=gradient,
    )  # fmt: skip  # `Call` refuses what no GPU computes in


def _cpu_call(work: Workload, machine: Machine, dtype: Dtype, threads: int | None) -> CpuCall:
    assert machine.cpu is not None
    return CpuCall(
        work.spec, work.sizes, work.batch, work.heads, str(dtype), threads or machine.cpu.cores, machine, work.time
    )  # fmt: skip
