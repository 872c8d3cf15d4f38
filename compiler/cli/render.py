"""`rekern render`: the source of a kernel, as it is compiled.

In: a SPEC, a target, a pass, lengths. Out: C++ or Triton on stdout; plain when piped, in colour on a terminal.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.syntax import Syntax

from rekern.api import compile
from rekern.cli.console import console, write_json
from rekern.cli.options import (
    BatchOption,
    BindOption,
    HeadsOption,
    JsonOption,
    SizeOption,
    SpecArgument,
    TimeOption,
    spec_of,
)  # fmt: skip
from rekern.cli.workload import chosen
from rekern.runtime.kernel import Kernel
from rekern.schedules.gpu.call import DTYPES


def render(
    spec: SpecArgument,
    which: Annotated[
        str, typer.Option("--pass", help="forward, recording, backward; for a GPU also step.")
    ] = "forward",
    target: Annotated[
        str, typer.Option("--target", help='"cpu", or a GPU: a name of `rekern hw ls` or a machine file.')
    ] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of operands, for a GPU: float32, bfloat16, float16.")] = "float32",
    size: SizeOption = None,
    bind: BindOption = None,
    batch: BatchOption = None,
    time: TimeOption = None,
    heads: HeadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the source of one pass of a kernel: C++ for the CPU, Triton for a GPU."""
    found, lengths = spec_of(spec, size, bind)
    kernel = compile(found, target)
    if isinstance(kernel, Kernel):
        given = {"--dtype": dtype != "float32", "--batch": batch, "--time": time, "--heads": heads}
        for option in (n for n, value in given.items() if value):
            raise typer.BadParameter("C++ does not depend on it; name a GPU: --target", param_hint=option)
        sources, language = kernel.sources(**chosen(found, lengths).sizes), "cpp"
    else:
        if dtype not in DTYPES:
            raise typer.BadParameter(f"there is no dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
        sources = kernel.sources(dtype=dtype, batch=batch, heads=heads, time=time, **lengths)
        language = "python"
    if as_json:
        write_json({"name": found.name, "target": target, "sources": sources})
        return
    if which not in sources:
        known = ", ".join(sources)
        raise typer.BadParameter(f"{found.name} has no pass {which!r}; it has {known}", param_hint="--pass")
    if sys.stdout.isatty():
        console().print(Syntax(sources[which], language, background_color="default"))
    else:
        sys.stdout.write(sources[which])
