"""The choices that lost, and by what.

In: a `Case`. Out: `Other`s, the nearest first.

The best few choices of a problem are mostly the same choice with one size changed that costs nothing. So each
group of sizes is changed by itself, for the best that this costs: the sizes that only one launch reads, with the
other launches as they are; each size that several launches read, with all others chosen anew; and the schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rekern.explain.case import Case, held_at, readers
from rekern.explain.values import Change, Other, Part
from rekern.solver import Infeasible, Problem, Solution, evaluate, solve

NEAR = 1e-3  # of the best time; the rates of machine files have three digits
REST = "what is not hidden"  # behind the longest term of a launch: fewer stages or blocks hide less
MOST_OF_IT = 0.5
LISTED = 512  # choices of one launch that are looked at: of those that fit, the cheapest


def others(case: Case, top: int) -> tuple[Other, ...]:
    """The nearest `top` choices that lost, and the best of each schedule that is not among them."""
    best_parts = case.parts(case.best[0][0], case.solution)
    same = [_same(case, values, best_parts) for values in choices_beside(case.problem, case.solution)]
    schedules = [_other(case, schedule, solution, best_parts) for schedule, solution in case.best[1:]]
    ordered = sorted([*same, *schedules], key=lambda other: other.seconds)
    return tuple(o for n, o in enumerate(ordered) if n < top or o.schedule != case.best[0][0])


def choices_beside(problem: Problem, solution: Solution) -> Iterator[Mapping[str, int]]:
    """The best choice with each group of sizes changed."""
    read_by = readers(problem)
    shared = [name for name, terms in read_by.items() if len(terms) > 1]
    for term in problem.cost:
        own = [name for name, terms in read_by.items() if terms == (term,)]
        rest = {name: value for name, value in solution.values.items() if name not in own}
        if own:
            yield from _next(held_at(problem, rest), solution)
    for name in shared:
        yield from _next_value(problem, solution, name)


def _next(problem: Problem, solution: Solution) -> Iterator[Mapping[str, int]]:
    """The cheapest that is not as good."""
    for found in solve(problem, LISTED):
        if found.cost > solution.cost * (1 + NEAR):
            yield found.values
            return


def _next_value(problem: Problem, solution: Solution, name: str) -> Iterator[Mapping[str, int]]:
    """The cheapest with another value of one size that is not as good."""
    [variable] = [v for v in problem.variables if v.name == name]
    found = []
    for value in variable.values():
        if value != solution.values[name]:
            try:
                found.append(solve(held_at(problem, {name: value})))
            except Infeasible:
                continue
    worse = [s for s in found if s.cost > solution.cost * (1 + NEAR)]
    if worse:
        yield min(worse, key=lambda s: s.cost).values


def _same(case: Case, values: Mapping[str, int], best_parts: tuple[Part, ...]) -> Other:
    """Of the chosen schedule."""
    return _other(case, case.best[0][0], evaluate(case.problem, values), best_parts)


def _other(case: Case, schedule: str, solution: Solution, best_parts: tuple[Part, ...]) -> Other:
    best = case.solution
    same = schedule == case.best[0][0]
    differs = {n: (v, best.values[n]) for n, v in solution.values.items() if best.values[n] != v} if same else {}
    mine, theirs = _places(case.parts(schedule, solution), same), _places(best_parts, same)
    changes = [_change(place, mine.get(place, {}), theirs.get(place, {})) for place in dict.fromkeys([*mine, *theirs])]
    return Other(
        schedule, solution.cost, solution.cost - best.cost, solution.cost / best.cost - 1, solution.cost / best.cost,
        dict(solution.values), differs,
        tuple(sorted((c for c in changes if c.seconds), key=lambda c: -abs(c.seconds))),
    )  # fmt: skip


def _places(parts: tuple[Part, ...], by_part: bool) -> dict[str, dict[str, float]]:
    """Seconds of each part or pass, under "", and of its terms."""
    found: dict[str, dict[str, float]] = {}
    for part in parts:
        place = found.setdefault(part.name if by_part else part.pass_name, {})
        longest = max(value for term, value in part.terms.items() if term != "launches")
        rest = part.seconds - longest - part.terms.get("launches", 0.0)
        for term, value in {"": part.seconds, **part.terms, REST: rest}.items():
            place[term] = place.get(term, 0.0) + value
    return found


def _change(place: str, mine: Mapping[str, float], best: Mapping[str, float]) -> Change:
    """The term that changes most in the direction of the whole; `REST` only where no unit changes by as much."""
    more = mine.get("", 0.0) - best.get("", 0.0)
    sign = 1 if more >= 0 else -1
    changed = {t: sign * (mine.get(t, 0.0) - best.get(t, 0.0)) for t in dict.fromkeys([*mine, *best]) if t}
    units = {t: value for t, value in changed.items() if t != REST}
    term = max(units, key=lambda t: units[t])
    if units[term] < MOST_OF_IT * abs(more):
        term = max(changed, key=lambda t: changed[t])
    return Change(place, more, term, mine.get(term, 0.0), best.get(term, 0.0))
