"""What a call costs beside the kernel: checks, memory for results, autograd, and the way into C++ and back.

In: a spec. Out: microseconds of a whole call of a tiny problem less what is spent inside the built libraries, for the
forward pass, a step, and forward and backward together. One thread; medians of its CPU time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rekern.api import compile
from rekern.cli.workload import Workload, draw
from rekern.runtime.kernel import Kernel
from rekern.spec import Recurrence

LENGTH = 8
ROUNDS, CALLS = 41, 50


@dataclass(frozen=True)
class Overhead:
    """Microseconds of one kind of call: above the library, and inside it."""

    call: str
    above: float
    inside: float


def overheads(spec: Recurrence, rounds: int = ROUNDS) -> list[Overhead]:
    """Every kind of call with B = T = H = 1 and axes of 8."""
    work = Workload(spec, 1, 1, 1, dict.fromkeys(spec.axes, LENGTH))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = {name: _microseconds(call, rounds) for name, call in _calls(compile(spec), work).items()}
        with _timed_libraries(compile(spec)) as spent:
            # A kernel of its own: it takes the libraries as they are now.
            found = []
            for name, call in _calls(Kernel(spec), work).items():
                inside = []
                for _ in range(max(3, rounds)):
                    spent.clear()
                    call()
                    inside.append(sum(spent) / 1e3)
                inside_median = statistics.median(inside)
                found.append(Overhead(name, whole[name] - inside_median, inside_median))
        return found
    finally:
        torch.set_num_threads(threads)


def _calls(kernel: Kernel, work: Workload) -> dict[str, Callable[[], object]]:
    """Each has been called before, so nothing is built while it is timed."""
    operands: dict[str, Any] = dict(draw(work).operands)
    inputs = {o.name for o in work.spec.of_kind("input")}
    now = {n: t[:, 0].contiguous() if n in inputs else t for n, t in operands.items()}
    leaves = {n: t.clone().requires_grad_() for n, t in operands.items()}
    out, state = kernel(**operands)
    outputs = [out] if isinstance(out, torch.Tensor) else list(out.values())
    cotangents = [torch.ones_like(t) for t in outputs]

    def gradient() -> None:
        out, _ = kernel(**leaves)
        results = [out] if isinstance(out, torch.Tensor) else list(out.values())
        torch.autograd.grad(results, list(leaves.values()), cotangents, allow_unused=True)

    calls: dict[str, Callable[[], object]] = {
        "forward": lambda: kernel(**operands),
        "step": lambda: kernel.step(state=state, **now),
        "step in place": lambda: kernel.step(state=state, in_place=True, **now),
        "forward+backward": gradient,
    }
    for call in calls.values():
        call()
    return calls


def _microseconds(call: Callable[[], object], rounds: int) -> float:
    """Of one call, as the median over rounds of many."""
    found = []
    for _ in range(rounds):
        start = time.thread_time_ns()
        for _ in range(CALLS):
            call()
        found.append((time.thread_time_ns() - start) / CALLS / 1e3)
    return statistics.median(found)


@contextmanager
def _timed_libraries(kernel: Kernel) -> Iterator[list[int]]:
    """While it lasts, kernels that are made note the nanoseconds of every run of a library of `kernel`."""
    spent: list[int] = []
    libraries: list[Any] = [f.result().library for f in kernel.executor.passes.values()]

    def timed(run: Any) -> Callable[[int], int]:
        def call(address: int) -> int:
            start = time.perf_counter_ns()
            failed = run(address)
            spent.append(time.perf_counter_ns() - start)
            return int(failed)

        return call

    before = [library.run for library in libraries]
    for library in libraries:
        library.run = timed(library.run)
    try:
        yield spent
    finally:
        for library, run in zip(libraries, before, strict=True):
            library.run = run
