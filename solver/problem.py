"""What is to be chosen, what rules a choice out, and what it costs: the solver's language.

In: variables, limits, named formulas. Out: a frozen `Problem` that is checked when built, and can be printed,
compared, hashed and pickled. Nothing here knows what a size is for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import sympy

from rekern.solver.errors import SolverError
from rekern.solver.frozen import FrozenMap
from rekern.solver.limit import Formula, Limit, formula
from rekern.solver.program import Program, compile_program
from rekern.solver.variable import Variable

__all__ = ["Limit", "Problem", "Variable", "programs"]


@dataclass(frozen=True)
class Compiled:
    """The formulas of a problem as programs, in their order, and the variables that they read."""

    limits: Program
    cost: Program
    figures: Program

    @cached_property
    def limit_reads(self) -> list[frozenset[str]]:
        """The variables of each limit."""
        return self.limits.reads()

    @cached_property
    def term_reads(self) -> list[frozenset[str]]:
        """The variables of each term of the cost."""
        return self.cost.reads()


@dataclass(frozen=True, slots=True, init=False)
class Problem:
    """Variables, limits on them, and the cost to minimise.

    Args:
        name: What is solved, as a reader of an error would say it: "no sizes fit <name>".
        variables: Most important first: among choices of equal cost, the first variable has its preferred
            value.
        limits: All must be met.
        cost: Seconds per named term; the cost is their sum. It is evaluated only where all limits are met.
        figures: Named quantities that a solution reports, and that are not minimised.

    Raises:
        SolverError: a name is empty or used twice, or a formula reads something that is not a variable, or uses a
            function that the solver cannot evaluate.

    >>> rows = Variable("rows", 1, 16)
    >>> registers = Limit("registers", 4 * rows.symbol, at_most=32)
    >>> print(Problem("demo", [rows], [registers], {"loop": 1e-6 / rows.symbol}))
    demo
        rows in 1..16
    subject to
        registers: 4*rows <= 32
    minimise, in seconds
        loop: 1.0e-6/rows
    """

    name: str
    variables: tuple[Variable, ...]
    limits: tuple[Limit, ...] = ()
    cost: Mapping[str, sympy.Expr] = FrozenMap()
    figures: Mapping[str, sympy.Expr] = FrozenMap()
    compiled: Compiled = field(init=False, compare=False, repr=False)

    def __init__(
        self,
        name: str,
        variables: Iterable[Variable],
        limits: Iterable[Limit] = (),
        cost: Mapping[str, Formula] = FrozenMap(),
        figures: Mapping[str, Formula] = FrozenMap(),
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "variables", tuple(variables))
        object.__setattr__(self, "limits", tuple(limits))
        for kind, named in (("cost term", cost), ("figure", figures)):
            checked = FrozenMap({key: formula(f"{kind} {key!r}", value) for key, value in named.items()})
            object.__setattr__(self, "figures" if kind == "figure" else "cost", checked)
        for kind, names in (
            ("variables", [v.name for v in self.variables]),
            ("limits", [limit.name for limit in self.limits]),
        ):
            twice = [n for n, count in Counter(names).items() if count > 1]
            if twice:
                raise SolverError(f"problem {name!r} has two {kind} named {twice[0]!r}")
            if "" in names:
                raise SolverError(f"problem {name!r} has {kind} without a name")
        object.__setattr__(self, "compiled", _compile(self))

    def __reduce__(self) -> tuple[type[Problem], tuple[object, ...]]:
        return Problem, (self.name, self.variables, self.limits, self.cost, self.figures)

    @property
    def points(self) -> int:
        """How many choices there are, before any limit."""
        return math.prod(len(v.values()) for v in self.variables)

    def __str__(self) -> str:
        parts = [self.name, *(f"    {v}" for v in self.variables)]
        if self.limits:
            parts += ["subject to", *(f"    {limit}" for limit in self.limits)]
        if self.cost:
            terms = (f"    {term}: {formula}" for term, formula in self.cost.items())
            parts += ["minimise, in seconds", *terms]
        if self.figures:
            parts += ["and report", *(f"    {key}: {formula}" for key, formula in self.figures.items())]
        return "\n".join(parts)


def programs(problem: Problem) -> tuple[Program, Program]:
    """The program of a problem's limits, and the program of its cost terms, in their order."""
    return problem.compiled.limits, problem.compiled.cost


def _compile(problem: Problem) -> Compiled:
    symbols = {v.symbol: v.name for v in problem.variables}

    def program(kind: str, formulas: Mapping[str, sympy.Expr]) -> Program:
        return compile_program(
            symbols, {f"{kind} {key!r} of {problem.name!r}": formula for key, formula in formulas.items()}
        )

    return Compiled(
        program("limit", {limit.name: limit.expression for limit in problem.limits}),
        program("cost term", problem.cost),
        program("figure", problem.figures),
    )
