"""Which variables can be chosen apart once a few shared ones are known.

In: the variables that each limit and each cost term reads. Out: a separator, the parts that are left without it,
and an order of choosing.

Variables are joined if a limit or a cost term reads both. What looks like one problem in 14 variables is often
three in 4, that share one or two: then the work is a sum and not a product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rekern.solver.divisors import Relation

MOST_CELLS = 4096       # choices of the separator that are looked at one by one
SMALLEST_PART = 2       # variables; with less there is nothing to choose apart


@dataclass(frozen=True, slots=True)
class Split:
    """Variables to choose first, and those that can then be chosen apart."""

    separator: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]


def split(names: Sequence[str], reads: Iterable[frozenset[str]], sizes: Mapping[str, float]) -> Split:
    """The split with the least work: choices of the separator, times the sum over parts of theirs.

    Args:
        reads: Names that must be known together.
        sizes: Values that each variable may have.

    >>> reads = [frozenset("sab"), frozenset("scd")]
    >>> split("abcds", reads, dict.fromkeys("abcds", 10.0))
    Split(separator=('s',), parts=(('a', 'b'), ('c', 'd')))
    """
    joined: dict[str, set[str]] = {name: set() for name in names}
    for together in reads:
        for name in together:
            joined[name] |= together - {name}
    best, least = Split((), (tuple(names),)), math.fsum(math.log2(sizes[name]) for name in names)
    separator: list[str] = []
    cells = 1.0
    while cells <= MOST_CELLS:
        parts = _components([n for n in names if n not in separator], joined)
        work = math.log2(cells) + _log2_sum(math.fsum(math.log2(sizes[n]) for n in part) for part in parts)
        if len(parts) > 1 and work < least - 2:
            best, least = Split(tuple(n for n in names if n in separator), tuple(parts)), work
        left = [n for n in names if n not in separator]
        if len(left) <= SMALLEST_PART:
            break
        # The one that holds most together, and of those the one with fewest values.
        widest = max(left, key=lambda n: (len(joined[n] - set(separator)), -sizes[n]))
        separator.append(widest)
        cells *= sizes[widest]
    return best


def _log2_sum(exponents: Iterable[float]) -> float:
    known = list(exponents)
    most = max(known, default=0.0)
    return most + math.log2(math.fsum(2.0 ** (e - most) for e in known)) if known else 0.0


def _components(names: Sequence[str], joined: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    left = dict.fromkeys(names)
    parts = []
    while left:
        found = {next(iter(left))}
        waiting = list(found)
        while waiting:
            new = {n for n in joined[waiting.pop()] if n in left and n not in found}
            found |= new
            waiting += sorted(new)
        parts.append(tuple(n for n in names if n in found))
        for name in found:
            del left[name]
    return parts


def choosing_order(
    names: Sequence[str],
    known: Iterable[str],
    limit_reads: Iterable[frozenset[str]],
    sizes: Mapping[str, float],
    related: Iterable[Relation],
) -> tuple[str, ...]:
    """The order in which to choose: first what is determined, then what has few values and completes many limits."""
    chosen = list(known)
    left = list(names)
    reads = [r & {*left, *chosen} for r in limit_reads]
    equalities = [r for r in related if r.equal and r.reads <= {*left, *chosen}]
    order: list[str] = []

    def value(name: str) -> tuple[float, float]:
        done = {*chosen, name}
        if any(r.determined(chosen) == name for r in equalities):
            return -1.0, 0.0
        completes = sum(name in r and r <= done for r in reads)
        leads_to = sum(r.determined(done) is not None for r in equalities if name in r.reads)
        touches = sum(name in r and len(r) > 1 for r in reads)
        return 0.0, math.log2(sizes[name]) - completes - 2.0 * leads_to - 0.25 * touches

    while left:
        name = min(left, key=lambda n: (value(n), names.index(n)))
        left.remove(name)
        chosen.append(name)
        order.append(name)
    return tuple(order)
