"""Solvers by name: the one of this package, and those that stand behind the same interface.

In: a name. Out: a function from a problem to its solutions.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from rekern.solver.errors import SolverError
from rekern.solver.problem import Problem
from rekern.solver.solution import Solution
from rekern.solver.text import nearest

NATIVE = "native"
OTHERS = ("cpsat", "python_constraint")

Backend = Callable[[Problem, int, float | None], tuple[Solution, ...]]


def backend_named(name: str) -> Backend:
    """The `solve` of a module in `rekern.solver.backends`, which is imported only now.

    Raises:
        SolverError: there is no such back end, or what it needs is not installed.
    """
    known = (NATIVE, *OTHERS)
    if name not in OTHERS:
        text = f"no back end is named {name!r}. Back ends: {', '.join(known)}."
        raise SolverError(f"{text} {nearest(str(name), known)}".rstrip())
    try:
        module = import_module(f"rekern.solver.backends.{name}")
    except ModuleNotFoundError as error:
        raise SolverError(
            f"back end {name!r} needs the module {error.name!r}, which is not installed\n"
            f"try: pip install it, or backend={NATIVE!r}, which needs nothing more."
        ) from error
    found: Backend = module.solve
    return found
