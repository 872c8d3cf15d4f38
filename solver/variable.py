"""A whole number to be chosen: an interval, met with "multiple of", "divides" and the like.

In: bounds and demands. Out: a frozen `Variable`, its symbol for formulas, and its values in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral

import sympy

from rekern.solver.errors import SolverError

LISTED = 8              # a domain with at most this many values is printed in full
LARGEST = 1 << 62       # values and their differences fit a 64-bit integer


@dataclass(frozen=True, slots=True)
class Variable:
    """A whole number to be chosen: every value from `low` to `high` that meets all that is said of it.

    Args:
        low: Smallest value, at least 0.
        high: Largest value, included; at most 2**62.
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
            object.__setattr__(self, "choices", tuple(self._whole("choices", c) for c in self.choices))
        for field, least in (("low", 0), ("high", 0), ("multiple_of", 1), ("divides", 1)):
            value = getattr(self, field)
            if value is None:
                continue
            value = self._whole(field, value)
            object.__setattr__(self, field, value)
            if value < least:
                raise SolverError(f"variable {self.name!r}: {field} = {value}, expected at least {least}")
            if value > LARGEST:
                raise SolverError(f"variable {self.name!r}: {field} = {value}, expected at most 2**62")
        if len(_values(self)) == 0:
            raise SolverError(f"variable {self.name!r} can have no value: {self._described()}")

    def _whole(self, field: str, value: object) -> int:
        if isinstance(value, Integral):
            return int(value)
        raise SolverError(f"variable {self.name!r}: {field} = {value!r}, expected a whole number")

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
