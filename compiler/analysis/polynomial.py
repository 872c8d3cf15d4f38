"""Polynomials in the lengths of axes, for counts that hold for every size.

In: whole numbers and axis names. Out: a value that adds, multiplies, prints and evaluates; `to_sympy` gives
the same expression to whoever wants to solve for the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sympy

Monomial = tuple[str, ...]  # axis names, sorted, repeated for powers


@dataclass(frozen=True)
class Polynomial:
    """A sum of `count * product of axis lengths`, largest degree first; no term has the count 0.

    >>> d = axis("D")
    >>> print(2 * d * d + d + 3, (d + 1)(D=4))
    2*D^2 + D + 3 5
    """

    terms: tuple[tuple[Monomial, int], ...] = ()

    def __add__(self, other: Polynomial | int) -> Polynomial:
        return _collected([*self.terms, *_polynomial(other).terms])

    __radd__ = __add__

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        return _collected(
            (tuple(sorted(a + b)), m * n) for a, m in self.terms for b, n in _polynomial(other).terms
        )

    __rmul__ = __mul__

    def __call__(self, **sizes: int) -> int:
        """The value for these axis lengths.

        Raises:
            KeyError: an axis has no length.
        """
        return sum(count * math.prod(sizes[a] for a in monomial) for monomial, count in self.terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        return " + ".join(_text(m, n) for m, n in self.terms) or "0"

    def to_sympy(self, symbols: Mapping[str, sympy.Expr] | None = None) -> sympy.Expr:
        """The same as a sympy expression; axes without a symbol get a plain one of their name.

        >>> (3 * axis("K")).to_sympy()
        3*K
        """
        import sympy

        known = symbols or {}

        def symbol(name: str) -> sympy.Expr:
            return known.get(name, sympy.Symbol(name))

        return sympy.Add(*(n * sympy.prod([symbol(a) for a in m]) for m, n in self.terms))


def axis(name: str) -> Polynomial:
    """The length of one axis."""
    return Polynomial((((name,), 1),))


def elements(dims: Iterable[int | str]) -> Polynomial:
    """The number of elements of an array with these axes.

    >>> print(elements((4, "D", "D")))
    4*D^2
    """
    result = Polynomial((((), 1),))
    for dim in dims:
        result = result * (axis(dim) if isinstance(dim, str) else dim)
    return result


def _polynomial(value: Polynomial | int) -> Polynomial:
    return value if isinstance(value, Polynomial) else _collected([((), value)])


def _collected(terms: Iterable[tuple[Monomial, int]]) -> Polynomial:
    counts: dict[Monomial, int] = {}
    for monomial, count in terms:
        counts[monomial] = counts.get(monomial, 0) + count
    kept = [(m, n) for m, n in counts.items() if n]
    return Polynomial(tuple(sorted(kept, key=lambda item: (-len(item[0]), item[0]))))


def _text(monomial: Monomial, count: int) -> str:
    powers = {a: monomial.count(a) for a in monomial}
    names = [a if n == 1 else f"{a}^{n}" for a, n in powers.items()]
    return "*".join([*([str(count)] if count != 1 or not names else []), *names])
