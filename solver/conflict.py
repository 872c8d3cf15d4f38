"""Why nothing fits: a smallest set of limits that exclude each other, and the least that would help.

In: a problem without a solution. Out: `Infeasible`.

Every question asked here is itself a problem for the search: whether some of the limits can be met together,
which choice misses them least, how little one of them would have to give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import sympy

from rekern.solver.clock import Clock
from rekern.solver.domains import Domains, domains_of
from rekern.solver.engine import NoCost, Outcome, candidates, search
from rekern.solver.errors import SolverError
from rekern.solver.formulas import Most
from rekern.solver.infeasible import Conflict, Infeasible
from rekern.solver.problem import Limit, Problem
from rekern.solver.report import ranked, solutions
from rekern.solver.solution import Solution, slack
from rekern.solver.tighten import least_use, tighten

EXPLAINING_SECONDS = 2.0        # a reader waits for this; the rest stays unknown and is said to be


def explain(problem: Problem, clock: Clock) -> Infeasible:
    """The error for a problem that is known to have no solution. Takes at most two seconds."""
    clock = clock.within(EXPLAINING_SECONDS)
    certain = True

    def excluded_by_bounds(limits: Sequence[Limit]) -> bool:
        return not clock.over and tighten(problem, limits, clock) is None

    def excluded(limits: Sequence[Limit]) -> bool:
        nonlocal certain
        answer = _can_be_met(problem, limits, clock)
        certain = certain and answer is not None
        return answer is False

    # One limit that is too much alone explains best; then what bounds prove, which takes no search.
    alone = next((limit for limit in problem.limits if excluded_by_bounds([limit])), None)
    kept = problem.limits if alone is None else (alone,)
    if alone is None and excluded_by_bounds(kept):
        kept = _deletion_filter(kept, excluded_by_bounds)
    kept = _deletion_filter(kept, excluded)
    nearest = _nearest(problem, kept, clock)
    if nearest is None:
        uses = [slack(limit, least_use(problem, limit)) for limit in kept]
    else:
        uses = [nearest.slack[limit.name] for limit in kept]
    enough = [_enough(problem, limit, clock) for limit in kept]
    conflicts = tuple(map(Conflict, kept, uses, enough))
    return Infeasible(problem, conflicts, nearest.values if nearest else None, minimal=certain)


def _deletion_filter(
    limits: Sequence[Limit], excludes_all: Callable[[Sequence[Limit]], bool]
) -> tuple[Limit, ...]:
    """A set of limits that excludes everything, and no longer does without any one of them."""
    kept = tuple(limits)
    for limit in reversed(limits):
        fewer = tuple(k for k in kept if k is not limit)
        if excludes_all(fewer):
            kept = fewer
    return kept


def _can_be_met(problem: Problem, limits: Sequence[Limit], clock: Clock) -> bool | None:
    """Whether some choice meets these limits together; None if that is not known in time."""
    found = _search(Problem(problem.name, problem.variables, limits), clock, anything=True)
    if found is None:
        return None
    _, _, outcome = found
    return True if len(outcome.chosen) else False if outcome.complete else None


def _nearest(problem: Problem, limits: Sequence[Limit], clock: Clock) -> Solution | None:
    """The choice with the least sum of relative misses of `limits`, if that is proven."""
    misses = {limit.name: _relative_miss(limit) for limit in limits}
    found = _search(Problem(problem.name, problem.variables, (), misses), clock)
    if found is None or not found[2].complete:
        return None
    missing, domains, outcome = found
    reread = Problem(problem.name, problem.variables, limits)
    return solutions(reread, ranked(missing, domains, outcome.chosen)[:1], None)[0]


def _relative_miss(limit: Limit) -> sympy.Expr:
    over = limit.expression - limit.bound if limit.at_least is None else limit.bound - limit.expression
    return Most(0, over / (abs(limit.bound) or 1))


def _enough(problem: Problem, limit: Limit, clock: Clock) -> float | None:
    """The bound with which the problem has a choice when only it changes; None if there is none or none is known."""
    if limit.relation is not None:
        return None
    others = [other for other in problem.limits if other is not limit]
    sign = 1 if limit.at_least is None else -1
    found = _search(Problem(problem.name, problem.variables, others, {"use": sign * limit.expression}), clock)
    if found is None or not len(found[2].chosen):
        return None
    best = ranked(found[0], found[1], found[2].chosen)[:1]
    return solutions(Problem(problem.name, problem.variables, (limit,)), best, None)[0].slack[limit.name].used


def _search(problem: Problem, clock: Clock, anything: bool = False) -> tuple[Problem, Domains, Outcome] | None:
    """The search for one choice; None where the limits that are left do not keep a formula from having no value."""
    if clock.over:
        return None
    domains = candidates(problem, clock)
    if domains is None:
        none = np.zeros((0, len(problem.variables)), dtype=np.int64)
        return problem, domains_of(problem), Outcome(none, True, math.inf)
    try:
        return problem, domains, search(problem, domains, 1, clock, anything=anything)
    except (NoCost, SolverError):
        return None
