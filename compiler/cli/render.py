"""`rekern render`: the source of a kernel, as it is compiled.

In: a SPEC, a pass, lengths. Out: C++ on stdout; plain when piped, in colour on a terminal.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.syntax import Syntax

from rekern.api import compile
from rekern.cli.console import console, write_json
from rekern.cli.options import BindOption, JsonOption, SizeOption, SpecArgument, spec_of
from rekern.cli.workload import chosen


def render(
    spec: SpecArgument,
    which: Annotated[str, typer.Option("--pass", help="forward, recording or backward.")] = "forward",
    size: SizeOption = None,
    bind: BindOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the C++ of one pass of a kernel."""
    found, lengths = spec_of(spec, size, bind)
    sources = compile(found).sources(**chosen(found, lengths).sizes)
    if as_json:
        write_json({"name": found.name, "sources": sources})
        return
    if which not in sources:
        known = ", ".join(sources)
        raise typer.BadParameter(f"{found.name} has no pass {which!r}; it has {known}", param_hint="--pass")
    if sys.stdout.isatty():
        console().print(Syntax(sources[which], "cpp", background_color="default"))
    else:
        sys.stdout.write(sources[which])
