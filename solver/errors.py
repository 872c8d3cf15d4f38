"""The base of what the solver raises on purpose; `infeasible.Infeasible` is another.

In: what is wrong with a problem. Out: a message that quotes it and says what was expected.
"""


from __future__ import annotations

from collections.abc import Mapping

from rekern.solver.points import EXACT_BELOW
from rekern.solver.text import number, point


class SolverError(Exception):
    """A problem is stated wrongly, or cannot be evaluated."""


class OutOfTime(SolverError):
    """No choice was found before the deadline, and it is not known whether there is one."""


def inexact(label: str, formula: str, values: Mapping[str, int]) -> SolverError:
    """The error for a formula that rounding may have changed, at some values."""
    where = f" at {point(values)}" if values else ""
    return SolverError(
        f"{label} needs exact numbers beyond {number(EXACT_BELOW)}{where}:\n    {formula}\n"
        "try: larger units, or smaller bounds of its variables."
    )
