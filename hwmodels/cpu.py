"""A CPU as one of its cores sees it: vectors, caches, rates, and what waiting for other cores costs.

In: keyword arguments, checked like every table. Out: a frozen `Cpu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from rekern.hwmodels.checks import check
from rekern.hwmodels.errors import MachineError


class Level(NamedTuple):
    """A level of memory as one core sees it: its size (None: as large as needed) and how fast it is read."""

    name: str
    bytes: int | None
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU as one of its cores sees it. Rates are what code reaches, not peaks of a data sheet.

    Args:
        isa: Instruction set, as `platform.machine()` calls it on Linux.
        vector_bytes: Width of a vector register that code should use.
        vector_registers: Vector registers that code can name.
        fma_per_cycle: Fused multiply-adds of whole vectors of float32, for one core.
        clock_hz: Under vector load, for one core.
        cores: Cores to run on; threads that share a core count once.
        line_bytes: A cache line.
        l1_bytes: Data cache of one core.
        l2_bytes: Share of one core, if several share it.
        l3_bytes_per_core: Share of one core.
        l1_bytes_per_cycle: Reads by one core; l2_bytes_per_cycle, l3_bytes_per_s and dram_bytes_per_s too.
        dram_stream_bytes_per_s: Reads and streaming stores together, two reads a store, by one core.
        barrier_seconds: A barrier of all threads that are running.
        fork_join_seconds: A parallel region that does nothing.
        bf16_dot: Whether there is a dot product of pairs of bfloat16 into float32, at the rate of the FMA.
    """

    isa: Literal["x86_64", "aarch64"]
    vector_bytes: int
    vector_registers: int
    fma_per_cycle: float
    clock_hz: float
    cores: int
    line_bytes: int
    l1_bytes: int
    l2_bytes: int
    l1_bytes_per_cycle: float
    l2_bytes_per_cycle: float
    dram_bytes_per_s: float
    barrier_seconds: float
    bf16_dot: bool
    l3_bytes_per_core: int | None = None
    l3_bytes_per_s: float | None = None
    dram_stream_bytes_per_s: float | None = None
    fork_join_seconds: float | None = None

    def __post_init__(self) -> None:
        check(self, "[cpu] ")
        if self.l1_bytes > self.l2_bytes:   # a share of L3 may be smaller than L2: many cores, little cache
            raise MachineError(
                f"[cpu] l1_bytes = {self.l1_bytes:,} is more than l2_bytes = {self.l2_bytes:,}"
            )

    @property
    def float32_lanes(self) -> int:
        """float32 numbers in a vector."""
        return self.vector_bytes // 4

    @property
    def float32_flops_per_s(self) -> float:
        """Of one core; a fused multiply-add counts as 2."""
        return 2 * self.float32_lanes * self.fma_per_cycle * self.clock_hz

    @property
    def levels(self) -> tuple[Level, ...]:
        """From the nearest memory to the farthest. A level of unknown size or speed is left out."""
        l3 = self.l3_bytes_per_core, self.l3_bytes_per_s
        return (
            Level("l1", self.l1_bytes, self.l1_bytes_per_cycle * self.clock_hz),
            Level("l2", self.l2_bytes, self.l2_bytes_per_cycle * self.clock_hz),
            *([] if l3[0] is None or l3[1] is None else [Level("l3", l3[0], l3[1])]),
            Level("dram", None, self.dram_bytes_per_s),
        )
