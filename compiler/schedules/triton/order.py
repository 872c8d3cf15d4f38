"""The lines of a step in an order in which few tensors are alive at once.

In: lines that may change places as far as what they read and define allows, the size of each tensor. Out: the same
lines. Compilers keep the order of large tensors to a great extent, so a value that waits for its store or for the last
line that reads it takes registers all the while.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WORD = re.compile(r"[A-Za-z_]\w*")
ASSIGNED = re.compile(r"([A-Za-z_]\w*) (\+?)= ")


@dataclass(frozen=True)
class Line:
    """A line, the name that it defines, and those that it reads."""

    text: str
    defines: str | None
    reads: frozenset[str]

    @staticmethod
    def of(text: str) -> Line:
        """The parts of a line.

        >>> line = Line.of("total += tl.sum(x, axis=0)")
        >>> line.defines, sorted(line.reads)
        ('total', ['axis', 'sum', 'tl', 'total', 'x'])
        """
        found = ASSIGNED.match(text)
        rest = text[found.end() :] if found else text
        again = {found[1]} if found and found[2] else set()
        return Line(text, found[1] if found else None, frozenset({*WORD.findall(rest), *again}))

    def waits_for(self, earlier: Line) -> bool:
        """Whether this line has to stay behind `earlier`."""
        return (
            earlier.defines in self.reads
            or self.defines in earlier.reads
            or (self.defines is not None and self.defines == earlier.defines)
        )


def few_at_once(texts: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """The lines in an order that holds less at once; the given order where none is found.

    At every place stands the line after which least is alive, the first of equals.

    >>> lines = ["a = x * 2", "b = y * 2", "tl.store(p, a)", "tl.store(q, b)", "x = y"]
    >>> few_at_once(lines, dict.fromkeys("abxy", 1))
    ['a = x * 2', 'tl.store(p, a)', 'b = y * 2', 'tl.store(q, b)', 'x = y']
    """
    lines = [Line.of(text) for text in texts]
    left = list(range(len(lines)))
    before = {j: {i for i in range(j) if lines[j].waits_for(lines[i])} for j in left}
    chosen: list[int] = []
    while left:
        ready = [j for j in left if not before[j] & set(left)]
        best = min(ready, key=lambda j: (_grows(lines, left, j, sizes), j))
        chosen.append(best)
        left.remove(best)
    ordered = [lines[j] for j in chosen]
    return [line.text for line in min(lines, ordered, key=lambda order: _largest(order, sizes))]


def _grows(lines: Sequence[Line], left: Sequence[int], j: int, sizes: Mapping[str, int]) -> int:
    """By how much more is alive after line `j` than before."""
    line = lines[j]
    later = {name for i in left if i != j for name in lines[i].reads}
    dies = sum(sizes.get(name, 0) for name in line.reads if name not in later and name != line.defines)
    return (sizes.get(line.defines, 0) if line.defines and line.defines not in line.reads else 0) - dies


def largest(texts: Sequence[str], sizes: Mapping[str, int]) -> int:
    """The most that is alive after one of the lines. What no line defines is alive from the beginning."""
    return _largest([Line.of(text) for text in texts], sizes)


def _largest(lines: Sequence[Line], sizes: Mapping[str, int]) -> int:
    alive: set[str] = set()
    most = 0
    for line in reversed(lines):
        most = max(most, sum(sizes.get(name, 0) for name in alive))
        alive = (alive - {line.defines or ""}) | line.reads
    return max(most, sum(sizes.get(name, 0) for name in alive))
