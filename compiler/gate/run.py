"""Compile candidates in order of rank, side by side, and judge them; stop when enough are accepted.

In: candidates, a machine, limits of time. Out: a verdict on each, in the given order. What a compiler has said
before is remembered. A compiler that hangs, crashes or eats memory costs its candidate only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rekern.backends.compile import toolchain_of
from rekern.backends.offline import Resources, Source, to_json
from rekern.gate.memory import Question, recall, store
from rekern.gate.processes import CompilerProcess, Died, Late, Stopped
from rekern.gate.verdicts import Accepted, Candidate, Failed, NotNeeded, TimedOut, Verdict, gpu_of, judge
from rekern.hwmodels.schema import Machine

# What does not spill compiles in 5 s at most (1,700 kernels); a spill takes up to a minute, and is not wanted.
CANDIDATE_SECONDS = 20.0
MEMORY_BYTES = 8 << 30


def gate(
    candidates: Sequence[Candidate],
    machine: Machine,
    *,
    deadline: float | None = None,
    timeout: float = CANDIDATE_SECONDS,
    workers: int | None = None,
    enough: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> tuple[Verdict, ...]:
    """Compile each candidate for `machine`, which need not be there, and judge what it takes.

    Args:
        candidates: Best first.
        deadline: Seconds for all of them; None: as long as it takes.
        timeout: Seconds for one.
        workers: Compilers side by side; None: one a processor.
        enough: Stop when so many are accepted and all that rank before them are judged. Later ones are then
            "not needed", whatever became of them, so that the result does not depend on timing.
        memory_bytes: For one compiler.

    Raises:
        BuildError: there is no compiler for a candidate.
        PlanError: `machine` is no GPU.
    """
    architecture = gpu_of(machine).architecture
    toolchains = {kind: toolchain_of(source, architecture) for kind, source in _one_of_each(candidates).items()}
    questions = [
        Question(c.source, architecture, toolchains[type(c.source).__name__], c.matrix_units) for c in candidates
    ]
    until = time.monotonic() + deadline if deadline is not None else float("inf")
    run = _Run(tuple(candidates), questions, machine, until, timeout, enough)
    run.recall_all()
    count = min(workers or os.cpu_count() or 1, sum(verdict is None for verdict in run.verdicts))
    if count and not run.is_over():
        folder = Path(tempfile.mkdtemp(prefix="rekern-gate-"))
        try:
            _serve(run, [CompilerProcess(folder / str(i), memory_bytes) for i in range(count)])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return run.result()


def _one_of_each(candidates: Sequence[Candidate]) -> dict[str, Source]:
    return {type(c.source).__name__: c.source for c in candidates}


def _serve(run: _Run, processes: Sequence[CompilerProcess]) -> None:
    threads = [threading.Thread(target=run.work, args=(process,)) for process in processes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:    # also when the user interrupts: nothing is left running
        run.stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


@dataclass
class _Run:
    """What is judged so far. Threads share it under `lock`."""

    candidates: tuple[Candidate, ...]
    questions: list[Question]
    machine: Machine
    until: float
    timeout: float
    enough: int | None
    next: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    faults: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.verdicts: list[Verdict | None] = [None] * len(self.candidates)

    def recall_all(self) -> None:
        for i, question in enumerate(self.questions):
            found = recall(question)
            if found is not None:
                self.verdicts[i] = self.verdict(i, found, remembered=True)

    def verdict(self, i: int, found: Resources | str, remembered: bool = False) -> Verdict:
        if isinstance(found, str):
            return Failed(found, remembered)
        return judge(self.candidates[i], found, self.machine, remembered)

    def settled(self) -> int | None:
        """How many from the front are needed to have enough; None: not known yet."""
        if self.enough is None:
            return None
        accepted = 0
        for i, verdict in enumerate(self.verdicts):
            if accepted >= self.enough:
                return i
            if verdict is None:
                return None
            accepted += isinstance(verdict, Accepted)
        return len(self.verdicts)

    def is_over(self) -> bool:
        return self.settled() is not None or time.monotonic() >= self.until

    def take(self) -> int | None:
        """The next candidate that nobody has looked at."""
        with self.lock:
            while self.next < len(self.candidates) and self.verdicts[self.next] is not None:
                self.next += 1
            if self.next == len(self.candidates) or self.stop.is_set() or self.is_over():
                return None
            self.next += 1
            return self.next - 1

    def work(self, process: CompilerProcess) -> None:
        """Judge candidates until there are none, there is no time, or no need."""
        try:
            while (i := self.take()) is not None:
                verdict = self.compile(i, process)
                with self.lock:
                    self.verdicts[i] = verdict
                    if self.settled() is not None:
                        self.stop.set()
        except BaseException as fault:
            self.faults.append(fault)
            self.stop.set()
        finally:
            process.end()

    def compile(self, i: int, process: CompilerProcess) -> Verdict | None:
        question = self.questions[i]
        asked = {
            "source": to_json(question.source),
            "architecture": question.architecture,
            "disassemble": question.disassemble,
        }
        start = time.monotonic()
        try:
            told = process.ask(asked, min(start + self.timeout, self.until), self.stop)
        except Late:
            return TimedOut(time.monotonic() - start)
        except Stopped:
            return None
        except Died as death:
            return Failed(str(death))
        if "died" in told:
            return Failed(f"the compiler died: {told['died']}")
        found = Resources.from_json(told["resources"]) if "resources" in told else str(told["failed"])
        store(question, found)
        return self.verdict(i, found)

    def result(self) -> tuple[Verdict, ...]:
        for fault in self.faults:
            raise fault
        needed = self.settled()
        return tuple(
            NotNeeded() if needed is not None and i >= needed else verdict or TimedOut(0.0)
            for i, verdict in enumerate(self.verdicts)
        )
