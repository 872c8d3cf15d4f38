"""Finds the cheapest choices within the limits, and proves that there is no cheaper one.

In: a `Problem`. Out: `Solution`s, best first; or the error that says why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import overload

from rekern.solver.clock import PATIENCE, Clock
from rekern.solver.conflict import explain
from rekern.solver.dispatch import NATIVE, backend_named
from rekern.solver.domains import Domains
from rekern.solver.engine import NoCost, candidates, search
from rekern.solver.errors import OutOfTime, SolverError
from rekern.solver.problem import Problem
from rekern.solver.report import ranked, solutions
from rekern.solver.solution import Solution
from rekern.solver.text import nearest


@overload
def solve(
    problem: Problem, top: None = None, *, deadline: float | None = PATIENCE, backend: str = NATIVE
) -> Solution: ...
@overload
def solve(
    problem: Problem, top: int, *, deadline: float | None = PATIENCE, backend: str = NATIVE
) -> tuple[Solution, ...]: ...
def solve(
    problem: Problem, top: int | None = None, *, deadline: float | None = PATIENCE, backend: str = NATIVE
) -> Solution | tuple[Solution, ...]:
    """The cheapest choice of values that meets all limits, or the cheapest few.

    Exact: what is not looked at cannot be cheaper, or cannot meet the limits. Choices of equal cost (to 40
    bits, 12 digits) are ordered by their values, the first variable first, each in the order of
    `Variable.values`; so the result never depends on the machine, nor on the order of the search.

    Args:
        top: How many solutions to return, best first; fewer where fewer exist. None: the best, by itself.
        deadline: Seconds. When they have passed, the best so far is returned, with `proven_optimal` False and
            its `gap`. None: search to the end, however long that takes.
        backend: "native", or the name of a module in `rekern.solver.backends`, which gives the same result.

    Raises:
        Infeasible: no choice meets all limits.
        OutOfTime: nothing was found before the deadline.
        SolverError: a limit or the cost has no value, or none that is exact, at some choice.

    >>> from rekern.solver import Limit, Problem, Variable, solve
    >>> rows, columns = Variable("rows", 1, 16), Variable("columns", 1, 8)
    >>> r, c = rows.symbol, columns.symbol
    >>> tile = Limit("registers", r * c + c + 1, at_most=32, unit="registers")
    >>> print(solve(Problem("a register tile", [rows, columns], [tile], {"loads": 1e-9 / r + 1e-9 / c})))
    rows=5, columns=5: 0.4 ns, proven best
        loads      0.4 ns (100%)
        registers  31 of at most 32 registers
    """
    count = 1 if top is None else top
    if count < 1:
        raise SolverError(f"top = {top}, expected at least 1")
    clock = Clock(deadline)
    other = None if backend == NATIVE else backend_named(backend)
    found = native(problem, count, clock) if other is None else other(problem, count, deadline)
    return found[0] if top is None else found


def native(problem: Problem, top: int, clock: Clock) -> tuple[Solution, ...]:
    """The cheapest choices, best first, by this package's own search."""
    domains = candidates(problem, clock)
    if domains is None:
        raise explain(problem, clock)
    try:
        outcome = search(problem, domains, top, clock)
    except NoCost as fault:
        raise _no_cost(problem, domains, fault) from None
    if not len(outcome.chosen):
        if not outcome.complete:
            open_choices = math.prod(map(len, domains.values()))
            shown = f"{open_choices:,}" if open_choices < 10**9 else f"{open_choices:.1e}"
            raise OutOfTime(
                f"no choice for {problem.name!r} was found within {clock.seconds:g} s; "
                f"{shown} choices are within its bounds\n"
                "try: a later deadline, or smaller intervals of its variables."
            )
        raise explain(problem, clock)
    best = ranked(problem, domains, outcome.chosen)[:top]
    return solutions(problem, best, None if outcome.complete else outcome.bound)


def evaluate(problem: Problem, values: Mapping[str, int]) -> Solution:
    """What a given choice costs and uses, whether or not it meets the limits.

    Raises:
        SolverError: a variable has no value here, or one outside its domain.
    """
    names = [v.name for v in problem.variables]
    for name in values:
        if name not in names:
            raise SolverError(f"{problem.name!r} has no variable {name!r}. {nearest(name, names)}".rstrip())
    for variable in problem.variables:
        if variable.name not in values:
            raise SolverError(f"no value is given for {variable.name!r} of {problem.name!r}")
        if values[variable.name] not in variable.values():
            raise SolverError(f"{variable.name} = {values[variable.name]} is outside {variable}")
    [solution] = solutions(problem, [[values[name] for name in names]], -math.inf)
    return solution


def _no_cost(problem: Problem, domains: Domains, fault: NoCost) -> SolverError:
    """The error that names the term; what is not known of the choice does not change the term's value."""
    values = {name: fault.values.get(name, domain.values[0]) for name, domain in domains.items()}
    choice = [list(values.values())]
    try:
        solutions(problem, choice, None)
    except SolverError as error:
        return error
    raise AssertionError(f"{problem.name!r}: the cost was refused at {values}, where it has a value")
