"""Divisibility and equality of products: what they leave of a domain, and what they determine.

In: limits such as 768 % (16*x*y) == 0 or x*y*z == 4*w. Out: for each the two products; the values that divide
what they must; the factor that is left when all others are known. All in whole numbers, so nothing is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sympy

from rekern.solver.domains import Domain
from rekern.solver.limit import Limit

MOST_PRODUCTS = 4096      # values of a product that are listed to find their divisors
MOST_FACTORED = 64        # numbers that are taken apart
SMALL_FACTOR = 1 << 12    # up to which factors are searched for: what is left must be a prime
MOST_VALUES = 1 << 16     # values of an interval that are tried one by one; of a longer one divisors are listed


@dataclass(frozen=True, slots=True)
class Product:
    """A whole number times powers of variables.

    >>> x, y = sympy.symbols("x y", integer=True, positive=True)
    >>> Product.of(12 * x * y**2), Product.of(x + 1)
    (Product(factor=12, powers=(('x', 1), ('y', 2))), None)
    """

    factor: int
    powers: tuple[tuple[str, int], ...]

    @staticmethod
    def of(formula: sympy.Expr) -> Product | None:
        """The formula as a product, or None if it is none."""
        factor, powers = 1, []
        for part in sympy.Mul.make_args(formula):
            base, exponent = part.as_base_exp()
            if part.is_Integer and part > 0:
                factor *= int(part)
            elif base.is_Symbol and exponent.is_Integer and exponent > 0:
                powers.append((base.name, int(exponent)))
            else:
                return None
        return Product(factor, tuple(sorted(powers)))

    def values(self, domains: Mapping[str, Domain]) -> frozenset[int] | None:
        """All values, if they are few."""
        if math.prod(len(domains[name]) for name, _ in self.powers) > MOST_PRODUCTS:
            return None
        found = {self.factor}
        for name, power in self.powers:
            found = {f * value**power for f in found for value in domains[name].values}
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Relation:
    """`small` divides `large`; or, if `equal`, is the same."""

    limit: str
    small: Product
    large: Product
    equal: bool

    @property
    def reads(self) -> frozenset[str]:
        """The variables on both sides."""
        return frozenset(name for name, _ in (*self.small.powers, *self.large.powers))

    def determined(self, known: Iterable[str]) -> str | None:
        """The variable that an equality leaves one value for when all others are known."""
        powers = (*self.small.powers, *self.large.powers)
        open_ones = [(name, power) for name, power in powers if name not in set(known)]
        return open_ones[0][0] if self.equal and len(open_ones) == 1 and open_ones[0][1] == 1 else None


def relations(limits: Iterable[Limit]) -> list[Relation]:
    """The limits that relate two products."""
    found = []
    for limit in limits:
        if limit.relation is not None:
            verb, left, right = limit.relation
            small, large = Product.of(left), Product.of(right)
            if small is not None and large is not None:
                found.append(Relation(limit.name, small, large, verb == "=="))
    return found


def cut(relation: Relation, domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """Domains that the relation makes smaller, which may be empty.

    >>> x, y = Domain(range(1, 2**60)), Domain(range(1, 2**60))
    >>> twelve = Relation("twelve", Product(2, (("x", 1), ("y", 1))), Product(12, ()), equal=True)
    >>> {name: domain.values for name, domain in cut(twelve, {"x": x, "y": y}).items()}
    {'x': (1, 2, 3, 6), 'y': (1, 2, 3, 6)}
    """
    smaller = _dividing(relation.small, relation.large, domains)
    if relation.equal:
        for name, domain in _dividing(relation.large, relation.small, {**domains, **smaller}).items():
            smaller[name] = domain
    elif not relation.small.powers and len(relation.large.powers) == 1:
        [(name, power)] = relation.large.powers
        values = domains[name].values
        if power == 1 and isinstance(values, range):
            multiple = relation.small.factor // math.gcd(relation.small.factor, relation.large.factor)
            kept = _multiples(values, multiple)
            if len(kept) < len(values):
                smaller[name] = Domain(kept)
    return smaller


def _dividing(small: Product, large: Product, domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """What is left of the factors of a product that must divide another one."""
    multiples = large.values(domains)
    if multiples is None or 0 in multiples:
        return {}
    quotients = [m // small.factor for m in sorted(multiples) if m % small.factor == 0]
    smaller = {}
    for name, power in small.powers:
        domain = domains[name]
        if isinstance(domain.values, range) and len(domain) > MOST_VALUES:
            listed = _divisors(quotients)
            if listed is None:
                continue
            candidates: Iterable[int] = listed
        else:
            candidates = domain.values
        kept = tuple(
            value
            for value in candidates
            if value > 0 and value in domain.values and any(q % value**power == 0 for q in quotients)
        )
        if len(kept) < len(domain):
            smaller[name] = Domain(kept)
    return smaller


def _divisors(numbers: Sequence[int]) -> list[int] | None:
    """All divisors of some numbers; None if the numbers are many, or one is hard to take apart."""
    found: set[int] = set()
    for number in numbers[: MOST_FACTORED + 1]:
        factors = sympy.factorint(number, limit=SMALL_FACTOR, use_rho=False, use_pm1=False, use_ecm=False)
        if not all(sympy.isprime(factor) for factor in factors):
            return None
        divisors = [1]
        for factor, power in factors.items():
            divisors = [d * factor**exponent for d in divisors for exponent in range(power + 1)]
        found.update(divisors)
        if len(found) > MOST_PRODUCTS:
            return None
    return sorted(found) if len(numbers) <= MOST_FACTORED else None


def _multiples(values: range, multiple: int) -> Sequence[int]:
    """Those of an arithmetic sequence that are multiples of a number."""
    shared = math.gcd(values.step, multiple)
    if values.start % shared:
        return range(0)
    period = multiple // shared
    first = (-values.start // shared * pow(values.step // shared, -1, period)) % period if period > 1 else 0
    return values[first::period]
