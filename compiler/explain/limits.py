"""What limits do to a choice: how much of each is used, which sizes it holds back, how many choices it rules out.

In: a problem and a choice. Out: `LimitUse`s, binding ones first.
"""

from __future__ import annotations

from collections.abc import Iterator

from rekern.explain.values import Held, LimitUse
from rekern.solver import Limit, Problem, Solution, SolverError, Variable, evaluate, rejections


def limit_uses(problem: Problem, solution: Solution) -> tuple[LimitUse, ...]:
    """Every limit: those that hold back a faster choice first, then by what is left."""
    holds = _holds(problem, solution)
    uses = [_use(problem, limit, solution, tuple(holds.get(limit.name, ()))) for limit in problem.limits]
    return tuple(sorted(uses, key=lambda use: (min((h.seconds for h in use.holds), default=0.0) >= 0, use.slack)))


def _use(problem: Problem, limit: Limit, solution: Solution, holds: tuple[Held, ...]) -> LimitUse:
    found = solution.slack[limit.name]
    alone = Problem(limit.name, [v for v in problem.variables if v.name in limit.reads], [limit])
    counted = rejections(alone)
    rejected = None if counted is None else counted.by[limit.name]
    return LimitUse(
        name=limit.name,
        used=found.used,
        bound=found.bound,
        unit=found.unit,
        reason=limit.reason,
        slack=found.left / max(abs(found.bound), abs(found.used), 1.0),
        holds=tuple(sorted(holds, key=lambda h: h.seconds)),
        choices=alone.points,
        rejected=rejected,
        rejected_share=None if rejected is None else rejected / alone.points,
    )


def _holds(problem: Problem, solution: Solution) -> dict[str, list[Held]]:
    """For each limit the sizes that cannot have a neighbouring value because of it, all others as they are."""
    found: dict[str, list[Held]] = {}
    for variable in problem.variables:
        value = solution.values[variable.name]
        for neighbour in neighbours(variable, value):
            try:
                there = evaluate(problem, {**solution.values, variable.name: neighbour})
            except SolverError:
                continue  # the cost has no value where the limits do not hold
            for name, slack in there.slack.items():
                if not slack.met and solution.slack[name].met:
                    held = Held(variable.name, value, neighbour, slack.used, there.cost - solution.cost)
                    found.setdefault(name, []).append(held)
    return found


def neighbours(variable: Variable, value: int) -> Iterator[int]:
    """The values next to `value`, the larger one first.

    >>> list(neighbours(Variable("rows", 1, 64, powers_of_two=True), 16))
    [32, 8]
    """
    values = sorted(variable.values())
    place = values.index(value)
    if place + 1 < len(values):
        yield values[place + 1]
    if place > 0:
        yield values[place - 1]
