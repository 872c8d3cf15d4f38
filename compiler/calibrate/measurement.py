"""What is measured, alike on CPUs and GPUs: jobs take turns under a clock, rounds become numbers with a spread.

In: `Job`s and a `Timer`. Out: `Measurement`s.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LEAST_ROUNDS = 3
MOST_ROUNDS = 25        # the median moves little after these
STEADY = 0.5            # a spread from which a number says more of other processes than of the machine


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be timed.

    Args:
        call: Does it once.
        clock: "thread": CPU time of the calling thread, which other processes do not lengthen; "wall": for
            several threads, which others do disturb, so the shortest of `repeats` counts; "device": between two
            events of a GPU, around `repeats` calls; "graph": the same, captured once, so that launching costs the
            host nothing.
    """

    name: str
    call: Callable[[], object]
    clock: Literal["thread", "wall", "device", "graph"]
    repeats: int = 1


Timer = Callable[[Job], float]      # seconds of one call
Samples = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number.

    Args:
        key: Of [cpu] or [gpu] in a machine file, or a name that no file has: such a number is for people.
        low: A quarter of the rounds were below; `high`: above.
        how: What was run, in words.
        kept: Whether `key` belongs to the machine file.
    """

    key: str
    unit: str
    median: float
    low: float
    high: float
    how: str
    kept: bool = True

    @property
    def spread(self) -> float:
        """Width of the middle half of the rounds, relative to the median."""
        return (self.high - self.low) / self.median

    @property
    def stored(self) -> bool:
        """Whether the overlay gets it."""
        return self.kept and self.spread <= STEADY


def host_timer(job: Job) -> float:
    """Seconds of a call on the host.

    Raises:
        ValueError: the job is one of a GPU.
    """
    clocks: dict[str, Callable[[], float]] = {"thread": time.thread_time, "wall": time.perf_counter}
    if job.clock not in clocks:
        raise ValueError(f"{job.name} is timed on a {job.clock}, not on the host")
    clock = clocks[job.clock]

    def once() -> float:
        start = clock()
        job.call()
        return clock() - start

    return min(once() for _ in range(job.repeats))


def take_turns(jobs: Sequence[Job], timer: Timer, seconds: float, now: Callable[[], float] = time.monotonic) -> Samples:
    """Seconds of every job in every round: A B C A B C, so that a slow spell meets all of them.

    One round more is run first and forgotten. At least LEAST_ROUNDS follow, however few `seconds` there are.
    """
    deadline = now() + seconds
    rounds: list[dict[str, float]] = []
    last = 0.0
    while len(rounds) <= LEAST_ROUNDS or (len(rounds) <= MOST_ROUNDS and now() + last <= deadline):
        start = now()
        rounds.append({job.name: timer(job) for job in jobs})
        last = now() - start
    return {job.name: tuple(round[job.name] for round in rounds[1:]) for job in jobs}


def measurement(key: str, unit: str, values: Sequence[float], how: str, kept: bool = True) -> Measurement:
    """A number from its rounds.

    >>> measurement("clock_hz", "Hz", [1.0, 2.0, 3.0, 4.0, 9.0], "").median
    3.0
    """
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Measurement(key, unit, median, low, high, how, kept)
