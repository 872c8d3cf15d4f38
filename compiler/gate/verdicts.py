"""What the gate says of a kernel: accepted, rejected by a limit, failed, timed out, or not needed.

In: what a compiled kernel takes, and a machine. Out: the limits that it breaks, in words with both numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rekern.backends.offline import Resources, Source
from rekern.errors import PlanError
from rekern.hwmodels.gpu import Gpu
from rekern.hwmodels.schema import Machine


@dataclass(frozen=True)
class Candidate:
    """A kernel that may be used.

    Args:
        matrix_units: Whether the plan counts on matrix instructions; the gate then looks for them in the code.
    """

    source: Source
    matrix_units: bool = True

    def __str__(self) -> str:
        return str(self.source)


@dataclass(frozen=True)
class Excess:
    """A limit that a kernel breaks.

    Args:
        limit: Its name, as in the solver's problems.
        used: By the kernel; `allowed` by the machine.
    """

    limit: str
    used: int
    allowed: int
    text: str

    def __str__(self) -> str:
        return f"{self.limit}: {self.text}"


@dataclass(frozen=True)
class Accepted:
    """The kernel fits.

    Args:
        remembered: Whether an earlier answer of the same toolchain was used.
    """

    resources: Resources
    remembered: bool = False

    def __str__(self) -> str:
        r = self.resources
        return f"accepted: {r.shared_bytes:,} bytes of shared memory, {r.registers} registers"


@dataclass(frozen=True)
class Rejected:
    """The kernel compiles, but does not fit the machine or spills."""

    resources: Resources
    reasons: tuple[Excess, ...]
    remembered: bool = False

    def __str__(self) -> str:
        return f"rejected: {'; '.join(map(str, self.reasons))}"


@dataclass(frozen=True)
class Failed:
    """There is no kernel: the compiler says no, or died."""

    message: str
    remembered: bool = False

    def __str__(self) -> str:
        return f"failed: {self.message}"


@dataclass(frozen=True)
class TimedOut:
    """The compiler was stopped after `seconds`; 0: the deadline of all came before its turn."""

    seconds: float

    def __str__(self) -> str:
        return f"timed out after {self.seconds:.1f} s" if self.seconds else "timed out before its turn"


@dataclass(frozen=True)
class NotNeeded:
    """Enough candidates of better rank were accepted."""

    def __str__(self) -> str:
        return "not needed"


Verdict = Accepted | Rejected | Failed | TimedOut | NotNeeded


def gpu_of(machine: Machine) -> Gpu:
    """The GPU of a machine.

    Raises:
        PlanError: it has none.
    """
    if machine.gpu is None:
        raise PlanError(f"{machine.name} is no GPU: the gate compiles for GPUs; kernels for a CPU are built there")
    return machine.gpu


def judge(
    candidate: Candidate, resources: Resources, machine: Machine, remembered: bool = False
) -> Accepted | Rejected:
    """Whether a kernel that takes `resources` runs on `machine` as planned."""
    reasons = tuple(_excesses(candidate, resources, machine.name, gpu_of(machine)))
    return Rejected(resources, reasons, remembered) if reasons else Accepted(resources, remembered)


def _excesses(candidate: Candidate, r: Resources, name: str, gpu: Gpu) -> Iterator[Excess]:
    def over(limit: str, used: int, allowed: int | None, unit: str) -> Iterator[Excess]:
        if allowed is not None and used > allowed:
            yield Excess(limit, used, allowed, f"needs {used:,} {unit}, one block of {name} has {allowed:,}")

    granted = -(-r.registers * gpu.warp_threads // gpu.register_granule) * gpu.register_granule
    yield from over("shared_memory", r.shared_bytes, gpu.shared_bytes_per_block, "bytes")
    yield from over("threads", r.threads, gpu.threads_per_block, "threads")
    yield from over("registers", granted * r.threads // gpu.warp_threads, gpu.registers_per_sm, "registers")
    yield from over("tensor_memory", r.tensor_memory_columns, gpu.tensor_memory_columns, "columns")
    if r.spill_bytes:
        yield Excess("spills", r.spill_bytes, 0, f"a thread spills {r.spill_bytes:,} bytes")
    if candidate.matrix_units and not r.matrix_instructions:
        yield Excess("matrix_units", 0, 0, "no tensor-core instruction in a kernel whose plan counts on them")
