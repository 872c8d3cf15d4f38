"""The `rekern` command: its subcommands, and what the shell sees of their outcome.

In: the command line. Out: exit code 0 (done), 1 (failed; the message of the error is on stderr, without a traceback)
or 2 (the command line itself is wrong).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rekern.cli.bench import bench
from rekern.cli.calibrate import calibrate_command
from rekern.cli.doctor import doctor
from rekern.cli.explain import explain
from rekern.cli.hw import hw
from rekern.cli.render import render
from rekern.cli.show import show
from rekern.cli.zoo import zoo
from rekern.errors import RekernError
from rekern.hwmodels import MachineError
from rekern.solver import SolverError


class Commands(TyperGroup):
    """Turns what rekern raises on purpose into a message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (RekernError, SolverError, MachineError) as error:
            typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="rekern",
    cls=Commands,
    help="Compiles recurrences, written as in the paper, into fast kernels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (zoo, show, explain, render, bench, doctor):
    app.command()(command)
app.command("calibrate")(calibrate_command)
app.add_typer(hw, name="hw")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rekern {version('rekern')}")
        raise typer.Exit


@app.callback()
def rekern(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Compiles recurrences, written as in the paper, into fast kernels."""


def main() -> None:
    """The entry of the installed command."""
    app()


if __name__ == "__main__":
    main()
