"""The search by python-constraint (N. Celemin, maintained by F.-J. Willemsen as python-constraint2).

In: a `Problem`. Out: the same as the native search.

It knows no cost: all feasible points are enumerated and ranked, which is exact and takes as long as there are
points. A limit on few variables becomes the set of rows that it allows; any other is evaluated in float64 as soon
as all its variables have values, by the same operations in the same order as the native search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from rekern.solver.backends.missing import missing, nothing_found
from rekern.solver.backends.ranking import Ranking
from rekern.solver.backends.table import hopeless, rows
from rekern.solver.clock import Clock
from rekern.solver.conflict import explain
from rekern.solver.errors import SolverError
from rekern.solver.points import ROUNDING
from rekern.solver.problem import Problem, programs
from rekern.solver.program import Program
from rekern.solver.scalars import SCALAR_OPERATIONS
from rekern.solver.solution import Solution

try:
    import constraint
except ModuleNotFoundError as error:
    raise missing("python_constraint", "python-constraint2", error) from None

LARGEST_DOMAIN = 1 << 20    # values of one variable; the package lists them
SET_ROWS = 20_000           # a set with more rows is built more slowly than its limit is evaluated
CALLS_PER_LOOK = 64     # at the clock, which costs as much as a limit does


class _TooLate(Exception):
    """The deadline has passed while the package searches; only a constraint can stop it."""


def solve(problem: Problem, top: int, deadline: float | None) -> tuple[Solution, ...]:
    """The `top` best solutions, best first.

    Args:
        deadline: Seconds from now. Where they end the search, what was found is returned, and nothing is known of
            the other choices.

    Raises:
        Infeasible: no choice meets all limits.
        OutOfTime: nothing was found before the deadline.
        SolverError: a domain is too large to list, or a term of the cost has no value.
    """
    clock = Clock(deadline)
    if hopeless(problem):
        raise explain(problem, clock)
    ranking = Ranking(problem, top)
    if not problem.variables:       # the package wants one at least
        ranking.offer(())
    try:
        for found in _search(problem, clock).getSolutionIter() if problem.variables else ():
            ranking.offer(tuple(found[v.name] for v in problem.variables))
            if clock.over:
                raise _TooLate
    except _TooLate:
        ranking.judge()
        if not ranking.best:
            raise nothing_found(problem, "python_constraint", deadline) from None
        return ranking.solutions(-math.inf)
    ranking.judge()
    if not ranking.best:
        raise explain(problem, clock)
    return ranking.solutions(None)


def _search(problem: Problem, clock: Clock) -> constraint.Problem:
    """The problem as the package wants it."""
    search = constraint.Problem()
    for variable in problem.variables:
        if len(variable.values()) > LARGEST_DOMAIN:
            raise SolverError(
                f"the back end 'python_constraint' lists every value of {variable}, more than {LARGEST_DOMAIN:,}\n"
                "try: the native search, or a smaller interval."
            )
        search.addVariable(variable.name, list(variable.values()))
    for at, limit in enumerate(problem.limits):
        names = [v.name for v in problem.variables if v.name in limit.reads]
        if names:
            search.addConstraint(constraint.FunctionConstraint(_check(problem, at, names, clock)), names)
    return search


def _check(problem: Problem, at: int, names: list[str], clock: Clock) -> Callable[..., bool]:
    """Whether values of `names`, which are all that the limit reads, meet it; now and then, whether time is up."""
    meets = _meets(problem, at, names)
    if clock.seconds is None:
        return meets
    calls = itertools.count()

    def meets_in_time(*values: int) -> bool:
        if next(calls) % CALLS_PER_LOOK == 0 and clock.over:
            raise _TooLate
        return meets(*values)

    return meets_in_time


def _meets(problem: Problem, at: int, names: list[str]) -> Callable[..., bool]:
    limit = problem.limits[at]
    allowed = rows(problem, names, {other for other in problem.limits if other is not limit})
    if allowed is not None and len(allowed[names[0]]) <= SET_ROWS:
        points = frozenset(zip(*(allowed[name].astype(int).tolist() for name in names), strict=True))
        return lambda *values: values in points
    run = scalar(programs(problem)[0].part([at]), names)

    def meets(*values: int) -> bool:
        over = run(*values) - limit.bound if limit.at_least is None else limit.bound - run(*values)
        return not over > ROUNDING * abs(limit.bound)

    return meets


def scalar(program: Program, names: list[str]) -> Callable[..., float]:
    """The only formula of a program as a function of the variables `names`, the same to the last bit.

    >>> import sympy
    >>> from rekern.solver.program import compile_program
    >>> x = sympy.Symbol("x", integer=True, positive=True)
    >>> scalar(compile_program({x: "x"}, {"tiles": 4 * sympy.ceiling(x / 3)}), ["x"])(7)
    12.0
    """
    steps = program.steps
    if any(s.operation not in SCALAR_OPERATIONS and s.operation not in ("constant", "variable") for s in steps):
        return lambda *values: float(program.at(dict(zip(names, map(np.float64, values), strict=True)))[0])
    start = [step.value for step in steps]
    reads = [(at, names.index(step.name)) for at, step in enumerate(steps) if step.operation == "variable"]
    work = [
        (at, SCALAR_OPERATIONS[step.operation], step.reads)
        for at, step in enumerate(steps)
        if step.operation in SCALAR_OPERATIONS
    ]
    (output,) = program.outputs

    def run(*values: int) -> float:
        results = start.copy()
        for at, place in reads:
            results[at] = float(values[place])
        try:
            for at, apply, operands in work:
                results[at] = apply(*[results[i] for i in operands])
        except (ZeroDivisionError, OverflowError, ValueError):      # numpy has inf and NaN for these
            return float(program.at(dict(zip(names, map(np.float64, values), strict=True)))[0])
        return results[output]

    return run
