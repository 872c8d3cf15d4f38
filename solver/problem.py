"""What is to be chosen, what rules a choice out, and what it costs: the solver's language.

In: names, sympy formulas, numbers. Out: frozen values that are checked when built, and can be printed,
compared, hashed and pickled. Nothing here knows what a size is for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real

import sympy

from rekern.solver.errors import SolverError
from rekern.solver.frozen import FrozenMap
from rekern.solver.program import Program, compile_program
from rekern.solver.text import counted

LISTED = 8     # a domain with at most this many values is printed in full


@dataclass(frozen=True, slots=True)
class Variable:
    """A whole number to be chosen: every value from `low` to `high` that meets all that is said of it.

    Args:
        low: Smallest value, at least 0.
        high: Largest value, included.
        multiple_of: Every value is a multiple of this.
        divides: Every value divides this without a rest; None: no such demand.
        powers_of_two: Every value is 1, 2, 4, ...
        choices: Every value is one of these, in the order of preference; None: no such demand.

    Raises:
        SolverError: no value is left, or a bound makes no sense.

    >>> Variable("columns", 1, 256, multiple_of=16, divides=96).values()
    (16, 32, 48, 96)
    >>> Variable("rows", 1, 2**60).values()
    range(1, 1152921504606846977)
    """

    name: str
    low: int
    high: int
    multiple_of: int = 1
    divides: int | None = None
    powers_of_two: bool = False
    choices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SolverError("a variable has an empty name")
        if self.choices is not None:
            object.__setattr__(self, "choices", tuple(self.choices))
        for field, least in (("low", 0), ("multiple_of", 1), ("divides", 1)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise SolverError(f"variable {self.name!r}: {field} = {value}, expected at least {least}")
        if len(_values(self)) == 0:
            raise SolverError(f"variable {self.name!r} can have no value: {self._described()}")

    @classmethod
    def one_of(cls, name: str, choices: Iterable[int]) -> Variable:
        """A variable with just these values, the preferred first.

        >>> print(Variable.one_of("state_in_memory", (0, 1)))
        state_in_memory in {0, 1}
        """
        values = tuple(choices)
        if not values:
            raise SolverError(f"variable {name!r} can have no value: choices are empty")
        return cls(name, min(values), max(values), choices=values)

    def values(self) -> Sequence[int]:
        """All values, the preferred first: ascending, or as in `choices`. A plain interval is a `range`."""
        return _values(self)

    @property
    def symbol(self) -> sympy.Symbol:
        """What stands for this variable in formulas; a symbol made by hand is another one to sympy."""
        if self.low > 0:
            return sympy.Symbol(self.name, integer=True, positive=True)
        return sympy.Symbol(self.name, integer=True, nonnegative=True)

    def __str__(self) -> str:
        values = self.values()
        if len(values) <= LISTED:
            return f"{self.name} in {{{', '.join(map(str, values))}}}"
        return f"{self.name} in {self._described()}"

    def _described(self) -> str:
        extra = [f"multiple of {self.multiple_of}"] if self.multiple_of > 1 else []
        extra += [f"divides {self.divides}"] if self.divides is not None else []
        extra += ["power of two"] if self.powers_of_two else []
        extra += [f"one of {', '.join(map(str, self.choices))}"] if self.choices is not None else []
        return f"{self.low}..{self.high}" + (f" ({', '.join(extra)})" if extra else "")


@lru_cache(maxsize=1024)
def _values(variable: Variable) -> Sequence[int]:
    low, high, multiple = variable.low, variable.high, variable.multiple_of
    first = -(-low // multiple) * multiple
    if variable.choices is not None:
        found: Iterable[int] = dict.fromkeys(variable.choices)
    elif variable.powers_of_two:
        found = (1 << bit for bit in range(high.bit_length()))
    elif variable.divides is not None:
        found = sympy.divisors(variable.divides)
    else:
        return range(first, high + 1, multiple)
    return tuple(
        value
        for value in found
        if low <= value <= high
        and value % multiple == 0
        and (variable.divides is None or (value > 0 and variable.divides % value == 0))
        and (not variable.powers_of_two or (value > 0 and value & (value - 1) == 0))
    )


@dataclass(frozen=True, slots=True)
class Limit:
    """A formula that must not exceed a bound, or not fall below one.

    Args:
        expression: Over the symbols of the problem's variables; see `program.VOCABULARY` for what it may use.
            Evaluated in float64: whole numbers below 2**53 are exact, and a miss by rounding is none.
        at_most: The bound; give this or `at_least`, not both.
        unit: What both sides count, for the reader.
        reason: Why the limit holds, for the reader.
        advice: What the user can change when it cannot be met, for the reader.
        at_least: The bound from below.

    Raises:
        SolverError: none or both of the bounds are given, or `expression` is not a formula.

    >>> rows = Variable("rows", 1, 16)
    >>> print(Limit("registers", 4 * rows.symbol + 5, 32, "registers", reason="live in the K loop"))
    registers: 4*rows + 5 <= 32 registers (live in the K loop)
    """

    name: str
    expression: sympy.Expr
    at_most: float | None = None
    unit: str = ""
    reason: str = ""
    advice: str = ""
    at_least: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", _formula(f"limit {self.name!r}", self.expression))
        if (self.at_most is None) == (self.at_least is None):
            raise SolverError(f"limit {self.name!r}: give one of at_most and at_least")
        if not isinstance(self.bound, (int, float)) or math.isnan(self.bound):
            raise SolverError(f"limit {self.name!r}: the bound is {self.bound!r}, expected a number")

    @property
    def bound(self) -> float:
        """`at_most` or `at_least`, whichever is given."""
        bound = self.at_most if self.at_most is not None else self.at_least
        assert bound is not None
        return bound

    @property
    def reads(self) -> frozenset[str]:
        """Names of the variables in the formula."""
        return frozenset(symbol.name for symbol in self.expression.free_symbols)

    def __str__(self) -> str:
        sense = "<=" if self.at_least is None else ">="
        text = f"{self.name}: {self.expression} {sense} {counted(self.bound, self.unit)}"
        return f"{text} ({self.reason})" if self.reason else text


@dataclass(frozen=True, slots=True, init=False)
class Problem:
    """Variables, limits on them, and the cost to minimise.

    Args:
        name: What is solved, as a reader of an error would say it: "no sizes fit <name>".
        variables: Most important first: among choices of equal cost, the first variable has its preferred
            value.
        limits: All must be met.
        cost: Seconds per named term; the cost is their sum. It is evaluated only where all limits are met.

    Raises:
        SolverError: a name is used twice, or a formula reads something that is not a variable, or uses a
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

    def __init__(
        self,
        name: str,
        variables: Iterable[Variable],
        limits: Iterable[Limit] = (),
        cost: Mapping[str, sympy.Expr] = FrozenMap(),
    ) -> None:
        terms = FrozenMap({term: _formula(f"cost term {term!r}", formula) for term, formula in cost.items()})
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "variables", tuple(variables))
        object.__setattr__(self, "limits", tuple(limits))
        object.__setattr__(self, "cost", terms)
        for kind, names in (
            ("variables", [v.name for v in self.variables]),
            ("limits", [limit.name for limit in self.limits]),
        ):
            twice = [n for n, count in Counter(names).items() if count > 1]
            if twice:
                raise SolverError(f"problem {name!r} has two {kind} named {twice[0]!r}")
        programs(self)

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
        return "\n".join(parts)


@lru_cache(maxsize=64)
def programs(problem: Problem) -> tuple[Program, Program]:
    """The program of a problem's limits, and the program of its cost terms, in their order."""
    symbols = {v.symbol: v.name for v in problem.variables}
    limits = {f"limit {limit.name!r} of {problem.name!r}": limit.expression for limit in problem.limits}
    terms = {f"cost term {term!r} of {problem.name!r}": formula for term, formula in problem.cost.items()}
    return compile_program(symbols, limits), compile_program(symbols, terms)


def _formula(where: str, value: object) -> sympy.Expr:
    """`value` as a formula; text is refused, because sympy would execute it."""
    if isinstance(value, sympy.Expr) and not value.has(sympy.nan, sympy.zoo):
        return value
    if isinstance(value, Real) and math.isfinite(value):
        return sympy.sympify(int(value) if isinstance(value, Integral) else float(value))
    raise SolverError(f"{where} is {value!r}, expected a sympy expression or a number")
