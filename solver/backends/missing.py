"""What back ends say when they cannot go on.

In: the back end and what it lacks. Out: the error to raise.
"""

from __future__ import annotations

from rekern.solver.errors import OutOfTime, SolverError
from rekern.solver.problem import Problem


def missing(backend: str, distribution: str, error: ModuleNotFoundError) -> SolverError:
    """The package of a back end is not installed; its name is not always that of its module."""
    return SolverError(
        f"back end {backend!r} needs the package {distribution}, which is not installed ({error})\n"
        f"try: pip install {distribution}, or the native search, which needs nothing more."
    )


def nothing_found(problem: Problem, backend: str, deadline: float | None) -> OutOfTime:
    """The deadline has passed without a feasible point."""
    return OutOfTime(
        f"no choice for {problem.name!r} was found by {backend!r} within {deadline:g} s\n"
        "try: a later deadline, or the native search."
    )
