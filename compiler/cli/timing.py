"""Timing that repeats on a machine which others use: interleaved rounds, medians, the spread beside them.

In: calls by name. Out: `Samples` of each. With one thread the clock is the CPU time of this thread, which other
processes do not lengthen; with more it is the wall clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Clock = Callable[[], float]
LEAST_ROUNDS, MOST_ROUNDS = 3, 11
SHORT_SECONDS = 0.01  # a shorter call is repeated within its round for about as long
MOST_REPEATS = 20


@dataclass(frozen=True)
class Samples:
    """Seconds of one call in each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the rounds lies between them.

        >>> Samples((1.0, 2.0, 3.0, 4.0, 9.0)).quartiles
        (2.0, 4.0)
        """
        if len(self.seconds) == 1:
            return self.minimum, self.minimum
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def ratio_to(self, other: Samples) -> float:
        """How many times as long as `other`: the median over the rounds, so that slow spells cancel.

        >>> Samples((2.0, 20.0, 2.2)).ratio_to(Samples((1.0, 10.0, 1.0)))
        2.0
        """
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def clock(threads: int) -> Clock:
    """CPU time of this thread, or wall time where there are more threads."""
    return time.thread_time if threads == 1 else time.perf_counter


def clock_name(threads: int) -> str:
    return "CPU time of the thread" if threads == 1 else "wall time"


def once(call: Callable[[], object], now: Clock) -> float:
    """Seconds of a call."""
    start = now()
    call()
    return now() - start


def estimate(call: Callable[[], object], now: Clock) -> float:
    """Seconds of a call that has everything it needs: the least of a few after the first, fewer if they are long."""
    least = first = once(call, now)
    if first > 50 * SHORT_SECONDS:
        return first
    spent = 0.0
    for number in range(LEAST_ROUNDS):
        taken = once(call, now)
        least = taken if number == 0 else min(least, taken)
        spent += taken
        if spent > 10 * SHORT_SECONDS:
            break
    return least


def interleave(
    calls: Mapping[str, Callable[[], object]], now: Clock, budget_seconds: float, expected: Mapping[str, float]
) -> dict[str, Samples]:
    """Rounds in which every call has its turn; a sample is the median of its repeats in that round.

    Args:
        budget_seconds: For all rounds together, by `now`; there are LEAST_ROUNDS at least.
        expected: Seconds of one call, from `estimate`.
    """
    repeats = {n: max(1, min(MOST_REPEATS, int(SHORT_SECONDS / max(expected[n], 1e-9)))) for n in calls}
    one_round = sum(repeats[n] * expected[n] for n in calls)
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(budget_seconds / max(one_round, 1e-9))))
    taken: dict[str, list[float]] = {n: [] for n in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(statistics.median(once(call, now) for _ in range(repeats[name])))
    return {name: Samples(tuple(seconds)) for name, seconds in taken.items()}
