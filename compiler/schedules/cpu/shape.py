"""What the sizes of a CPU kernel depend on, and what they are.

In: a call's lengths. Out: `Shape`, and `CpuPlan` with what is compiled in and what a call is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rekern.schedules.passes import MOST_ROWS, CpuSizes
from rekern.schedules.programs import Programs


@dataclass(frozen=True)
class RunSizes:
    """What a call is given: sequences of a task, steps of a block, steps whose products with inputs are done at once,
    columns of a task, tasks along columns.

    past_caches: Whether results that are streamed are written past the caches.
    team: Threads that work on one task together.
    """

    rows: int
    block: int
    ahead: int
    columns: int
    tiles: int
    groups: int
    threads: int
    past_caches: bool
    team: int = 1


@dataclass(frozen=True)
class CpuPlan:
    """The sizes of one kind of call."""

    compiled: CpuSizes
    run: RunSizes


@dataclass(frozen=True)
class Shape:
    """What sizes depend on: lengths of the axes, sequences, heads, threads, and whether in float64.

    tokens: Steps of all sequences, up to twice as many: whether a call's data stay in the caches.
    """

    lengths: tuple[tuple[str, int], ...]
    sequences: int
    heads: int
    threads: int
    double: bool
    tokens: int

    @staticmethod
    def of(
        lengths: Mapping[str, int], sequences: int, heads: int, threads: int, double: bool, tokens: int = 1
    ) -> Shape:
        doubled = 1 << max(0, tokens - 1).bit_length()
        return Shape(tuple(lengths.items()), max(1, sequences), heads, threads, double, doubled)

    def bucket(self, programs: Programs) -> Shape:
        """The shape with the same best sizes: calls that only differ in batch or heads share a plan.

        A register tile depends on the lengths, and on how many threads there are for the columns of one head, as
        a power of two, so that a new batch seldom builds anything new; beyond what keeps all threads busy, more
        sequences change nothing either.
        """
        if programs.tiled:
            spare = max(1, self.threads // (self.sequences * self.heads))
            return replace(self, sequences=1, heads=1, threads=1 << spare.bit_length() - 1, tokens=1)
        most = MOST_ROWS * self.threads if programs.rows else self.threads
        heads = min(self.heads, self.threads)
        tokens = self.tokens * self.heads // heads if programs.streamed else 1
        return replace(self, sequences=min(self.sequences, most), heads=heads, tokens=tokens)
