"""One recurrence at one size, measured: the kernel and what it competes with, times, errors, the floor.

In: a `Workload`. Out: a `Measurement` for each pass. The fastest candidate of each role is found first, with a call
or two each; then it and the kernel take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from rekern.cli.candidates import ROLES, Candidate, Role, candidates
from rekern.cli.errors import Truth, kept_bytes, truth
from rekern.cli.floor import Floor, floor
from rekern.cli.timing import Samples, clock, clock_name, estimate, interleave
from rekern.cli.workload import Data, Workload, draw
from rekern.hwmodels import detect

PassName = Literal["forward", "forward+backward"]
PASSES: tuple[PassName, ...] = ("forward", "forward+backward")
HOPELESS = 2.0  # times slower in the forward pass than the best of its role: not tried again


@dataclass(frozen=True)
class Timed:
    """A candidate's times, and its largest error relative to the largest number of the float64 result.

    Of a forward pass the error is that of the outputs, else that of the worst gradient. `kept_bytes` is what is held
    between forward and backward, beside the operands.
    """

    role: Role
    name: str
    samples: Samples
    error: float
    kept_bytes: int

    def as_json(self) -> dict[str, object]:
        """Plain values, times in seconds."""
        return {
            "name": self.name,
            "median_seconds": self.samples.median,
            "min_seconds": self.samples.minimum,
            "quartile_seconds": list(self.samples.quartiles),
            "rounds": len(self.samples.seconds),
            "error": self.error,
            "kept_bytes": self.kept_bytes,
        }


@dataclass(frozen=True)
class Measurement:
    """`baselines` are the fastest of each role; `slower` lists those that were not, with the seconds of one call."""

    workload: Workload
    passes: PassName
    threads: int
    rekern: Timed
    baselines: tuple[Timed, ...]
    slower: Mapping[str, float]
    checked_steps: int
    floor: Floor

    def baseline(self, role: Role) -> Timed | None:
        """The fastest of `role`."""
        return next((b for b in self.baselines if b.role == role), None)

    def ratio(self, role: Role) -> float | None:
        """How many times as long the fastest of `role` takes as the kernel."""
        found = self.baseline(role)
        return found.samples.ratio_to(self.rekern.samples) if found else None

    def as_json(self) -> dict[str, object]:
        """Plain values, times in seconds."""
        work = self.workload
        return {
            "spec": work.spec.name,
            "bound": dict(work.spec.bindings),
            "batch": work.batch,
            "time": work.time,
            "heads": work.heads,
            "sizes": dict(work.sizes),
            "pass": self.passes,
            "threads": self.threads,
            "clock": clock_name(self.threads),
            "rekern": self.rekern.as_json(),
            "baselines": [{"role": b.role, "ratio": self.ratio(b.role), **b.as_json()} for b in self.baselines],
            "slower_seconds": dict(self.slower),
            "checked_steps": self.checked_steps,
            "floor": {
                "bytes": self.floor.bytes,
                "flops": self.floor.flops,
                "memory_seconds": self.floor.memory_seconds,
                "arithmetic_seconds": self.floor.arithmetic_seconds,
            },
        }


@contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """Torch, and with it the kernels, on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(
    work: Workload,
    passes: tuple[PassName, ...] = PASSES,
    roles: tuple[Role, ...] = ROLES,
    threads: int = 1,
    seconds: float = 2.0,
    after: Callable[[Measurement], None] = lambda measurement: None,
    rival: str | None = None,
) -> list[Measurement]:
    """Measure `work`.

    Args:
        seconds: For the rounds of one pass; there are three rounds at least, however long they take.
        after: Called with each measurement as soon as it is there.
        rival: The name of the only candidate to compare with, where it is not to be the fastest of its role.

    Raises:
        RekernError: the numbers of the spec overflow on random data, so nothing can be compared.
    """
    found: list[Measurement] = []
    with threads_of_torch(threads):
        data = draw(work)
        true = truth(data, gradients="forward+backward" in passes)
        left_out = {c.name for c in candidates(data, roles) if rival not in (None, c.name) and c.role != "rekern"}
        for name in passes:
            found.append(_measure_pass(data, true, name, roles, threads, seconds, left_out))
            after(found[-1])
            taken = {b.role: b.samples.median for b in found[-1].baselines}
            role = {c.name: c.role for c in candidates(true.data, roles)}
            left_out |= {n for n, s in found[-1].slower.items() if s > HOPELESS * taken[role[n]]}
    return found


def _measure_pass(
    data: Data, true: Truth, name: PassName, roles: tuple[Role, ...], threads: int, seconds: float, left_out: set[str]
) -> Measurement:
    now = clock(threads)
    tried = [c for c in candidates(data, roles) if c.name not in left_out]
    expected = {c.name: estimate(_call(c, name), now) for c in tried}
    best = {c.role: c for c in sorted(tried, key=lambda c: -expected[c.name])}  # the fastest comes last and stays
    calls = {c.name: _call(c, name) for c in best.values()}
    samples = interleave(calls, now, seconds, expected)
    small = {c.name: c for c in candidates(true.data, roles)}

    def timed(c: Candidate) -> Timed:
        error = true.output_error if name == "forward" else true.gradient_error
        kept = 0 if name == "forward" else kept_bytes(c)
        return Timed(c.role, c.name, samples[c.name], error(small[c.name]), kept)

    return Measurement(
        data.workload,
        name,
        threads,
        timed(best["rekern"]),
        tuple(timed(best[role]) for role in ROLES if role in best and role != "rekern"),
        {n: s for n, s in expected.items() if n not in calls},
        true.data.workload.time,
        floor(data.workload, name != "forward", detect(), threads),
    )


def _call(candidate: Candidate, name: PassName) -> Callable[[], object]:
    return candidate.run if name == "forward" else candidate.run_both
