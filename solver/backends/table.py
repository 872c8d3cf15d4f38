"""All rows of a few variables that limits on just these variables allow.

In: variables of a problem. Out: their values, one array a variable; or None where there are too many.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import sympy
from numpy.typing import NDArray

from rekern.solver.backends.ranking import met
from rekern.solver.points import Values
from rekern.solver.problem import Limit, Problem
from rekern.solver.program import compile_program

MOST_ROWS = 200_000     # a longer table takes longer to hand over than it saves
Rows = dict[str, NDArray[np.float64]]


def rows(problem: Problem, names: Collection[str], without: Collection[Limit] = ()) -> Rows | None:
    """Variables are joined one by one, and each limit cuts as soon as all that it reads is there.

    Args:
        without: Limits that do not cut.
    """
    found: Rows = {}
    count = 1
    waiting = [limit for limit in problem.limits if limit not in without]
    for variable in problem.variables:
        if variable.name not in names:
            continue
        values = variable.values()
        if count * len(values) > 10 * MOST_ROWS:
            return None
        column = np.array(values, dtype=np.float64)
        found = {name: np.repeat(old, len(column)) for name, old in found.items()}
        found[variable.name] = np.tile(column, count)
        count *= len(column)
        ready = [limit for limit in waiting if limit.reads and limit.reads <= found.keys()]
        waiting = [limit for limit in waiting if limit not in ready]
        if ready:
            uses = [value_at(problem, limit.expression, found) for limit in ready]
            kept = np.flatnonzero(met(ready, uses, count))
            found = {name: old[kept] for name, old in found.items()}
            count = len(kept)
    return found if count <= MOST_ROWS else None


def hopeless(problem: Problem) -> bool:
    """Whether a limit that reads no variable is missed: there is nothing to search then."""
    fixed = [limit for limit in problem.limits if not limit.reads]
    return not met(fixed, [value_at(problem, limit.expression, {}) for limit in fixed], 1).all()


def value_at(problem: Problem, formula: sympy.Expr, at: Rows) -> Values:
    """A formula at each row, as the native search evaluates it."""
    symbols = {v.symbol: v.name for v in problem.variables}
    (value,) = compile_program(symbols, {f"a part of {problem.name!r}": formula}).at(at)
    return value


def reads(formula: sympy.Basic) -> frozenset[str]:
    """Names of the variables in a formula."""
    return frozenset(symbol.name for symbol in formula.free_symbols)
