"""What choices cost and use, as values for the reader.

In: a problem and values of its variables. Out: a `Solution` for each choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import sympy

from rekern.solver.domains import Domains, Floats, Positions
from rekern.solver.errors import SolverError, inexact
from rekern.solver.frozen import FrozenMap
from rekern.solver.problem import Problem
from rekern.solver.program import Program
from rekern.solver.scalars import at_one
from rekern.solver.solution import Solution, slack
from rekern.solver.text import point

TIE_BITS = 40       # costs that agree in so many leading bits (12 digits) are the same cost

Choices = Sequence[Sequence[int]]


def solutions(problem: Problem, choices: Choices, unproven: float | None) -> tuple[Solution, ...]:
    """What some choices cost and use.

    Args:
        choices: Values in the order of the problem's variables, the best choice first.
        unproven: Seconds that any other choice costs at least; -inf: nothing is known; None: it is proven
            that no other choice is cheaper.

    Raises:
        SolverError: a limit, a figure or a term of the cost has no value, or none that is exact, at a choice.
    """
    compiled = problem.compiled
    limits = {limit.name: limit.expression for limit in problem.limits}
    uses = _values(problem, "limit", limits, compiled.limits, choices)
    terms = _values(problem, "cost term", problem.cost, compiled.cost, choices)
    figures = _values(problem, "figure", problem.figures, compiled.figures, choices)
    names = [v.name for v in problem.variables]
    found = []
    for choice, use, term, figure in zip(choices, uses, terms, figures, strict=True):
        cost = sum(term.values())
        used = {limit.name: slack(limit, use[limit.name]) for limit in problem.limits}
        gap = 0.0 if unproven is None else _gap(cost, unproven)
        proven = unproven is None or gap == 0.0
        values = FrozenMap(zip(names, map(int, choice), strict=True))
        found.append(Solution(values, cost, FrozenMap(term), FrozenMap(used), proven, FrozenMap(figure), gap))
    return tuple(found)


def ranked(problem: Problem, domains: Domains, positions: Positions) -> list[tuple[int, ...]]:
    """The values at some positions, the cheapest first; equal costs in the order of positions."""
    columns = [domain.values for domain in domains.values()]
    choices = [tuple(values[i] for values, i in zip(columns, row, strict=True)) for row in positions.tolist()]
    if len(choices) == 1:
        return choices
    order = np.lexsort((*positions.T[::-1], rounded(cost_of(problem, choices))))
    return [choices[i] for i in order]


def cost_of(problem: Problem, choices: Choices) -> Floats:
    """Seconds at each choice, the terms added in their order."""
    total = np.zeros(len(choices))
    for term in _results(problem.compiled.cost, _columns(problem, choices), len(choices)):
        total = total + term
    return total


def rounded(cost: Floats) -> Floats:
    """Costs to `TIE_BITS`: what differs less is the same cost."""
    mantissa, exponent = np.frexp(cost)
    near: Floats = np.ldexp(np.rint(np.ldexp(mantissa, TIE_BITS)), exponent - TIE_BITS)
    return near


def rounded_cost(cost: float) -> float:
    """One cost to `TIE_BITS`."""
    return float(rounded(np.array([cost]))[0])


def _gap(cost: float, bound: float) -> float:
    if bound >= cost:
        return 0.0
    return (cost - bound) / abs(cost) if cost and math.isfinite(bound) else math.inf


def _columns(problem: Problem, choices: Choices) -> dict[str, Floats]:
    columns = np.array(choices, dtype=np.float64).reshape(len(choices), -1).T
    return {v.name: column for v, column in zip(problem.variables, columns, strict=True)}


def _results(program: Program, at: Mapping[str, Floats], count: int) -> list[Floats]:
    """Each formula at each choice."""
    if count == 1:
        return [np.array([value]) for value in at_one(program, {name: float(column[0]) for name, column in at.items()})]
    return [np.broadcast_to(result, count) for result in program.at(at)]


def _values(
    problem: Problem, kind: str, formulas: Mapping[str, sympy.Expr], program: Program, choices: Choices
) -> list[dict[str, float]]:
    """The value of each formula at each choice."""
    at = _columns(problem, choices)
    results = _results(program, at, len(choices))
    hull = {name: (column.min(), column.max()) for name, column in at.items()} if choices else {}
    risky = program.inexact(hull) if any(high > 1 << 16 for _, high in hull.values()) else [0.0] * len(results)
    for place, (name, formula) in enumerate(formulas.items()):
        result = results[place]
        wrong = np.isnan(result) if kind == "limit" else ~np.isfinite(result)
        if not (risky[place] or wrong.any()):
            continue
        label = f"{kind} {name!r} of {problem.name!r}"
        if wrong.any():
            first = dict(zip(at, choices[int(np.argmax(wrong))], strict=True))
            fault = "has no value" if kind == "limit" else f"is {result[wrong][0]}"
            where = f" at {point(first)}" if first else ""
            raise SolverError(f"{label} {fault}{where}:\n    {formula}")
        if risky[place]:
            points = {name: (column, column) for name, column in at.items()}
            large = np.broadcast_to(program.part([place]).largest(points), len(choices))
            if large.any():
                raise inexact(label, str(formula), dict(zip(at, choices[int(np.argmax(large))], strict=True)))
    values = [[float(result[i]) for result in results] for i in range(len(choices))]
    return [dict(zip(formulas, row, strict=True)) for row in values]
