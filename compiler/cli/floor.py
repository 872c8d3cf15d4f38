"""The least work of a call: bytes that must move, operations that must be done.

In: a `Workload`. Out: `Floor`. No kernel is faster than the slower of its two times on the machine at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from rekern.analysis.facts import facts
from rekern.cli.workload import Workload
from rekern.hwmodels import Machine

GRADIENT_FLOPS = 2  # times those of the forward pass, as is usual; what is recomputed is not counted


@dataclass(frozen=True)
class Floor:
    """Bytes of the operands and results, each moved once; operations, a multiply-add is 2; seconds on a machine.

    Exponentials and their like are not among the operations.
    """

    bytes: int
    flops: int
    memory_seconds: float | None
    arithmetic_seconds: float | None

    def __str__(self) -> str:
        giga = self.flops >= 1e9
        return f"{self.bytes / 1e6:.3g} MB, {self.flops / (1e9 if giga else 1e6):.3g} {'G' if giga else 'M'}FLOP"


def floor(work: Workload, gradient: bool, machine: Machine, threads: int) -> Floor:
    """The floor of a forward call, or of a forward and a backward one (`gradient`), in float32."""
    counts = facts(work.spec).counts
    steps = work.batch * work.time * work.heads
    inputs = steps * counts.input_elements(**work.sizes)
    outputs = steps * counts.output_elements(**work.sizes)
    params = work.heads * counts.param_elements(**work.sizes)
    flops = steps * counts.flops(**work.sizes)
    moved = inputs + outputs + params
    if gradient:  # operands again, cotangents of outputs in, cotangents of operands out
        moved += (inputs + params) + outputs + (inputs + params)
        flops += GRADIENT_FLOPS * flops
    moved *= 4
    cpu = machine.cpu
    if cpu is None:
        return Floor(moved, flops, None, None)
    cores = min(threads, cpu.cores)
    bandwidth = cpu.dram_stream_bytes_per_s or cpu.dram_bytes_per_s
    return Floor(moved, flops, moved / bandwidth, flops / (cpu.float32_flops_per_s * cores))
