"""A GPU as kernels see it: what a block may use, how fast memory and units are, what waiting costs.

In: keyword arguments, checked like every table. Out: a frozen `Gpu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rekern.hwmodels.checks import check
from rekern.hwmodels.errors import MachineError


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU. Capacities and peaks are those of data sheets; shares and latencies say what kernels reach.

    "SM" stands for a streaming multiprocessor or a compute unit, "warp" for a warp or a wavefront.

    Args:
        architecture: What a compiler is told: "sm_90", "gfx942".
        sms: SMs of the whole chip.
        clock_hz: Under load, all SMs busy.
        registers_per_sm: Of 32 bits.
        registers_per_thread: The most that one thread can name without spilling.
        register_granule: Registers of a warp are given out in multiples of this.
        shared_bytes_per_sm: Shared memory of all blocks of an SM together.
        shared_bytes_per_block: The most that one block can ask for.
        shared_bytes_reserved: What the system takes of `shared_bytes_per_sm` for every block.
        tensor_memory_columns: Columns of 128 x 32 bit for accumulators; None: they are in registers.
        cluster_blocks: Largest portable cluster; None: no clusters.
        mma_m: Rows, columns and depth in bytes (`mma_n`, `mma_k_bytes`) of the smallest matrix instruction.
        warpgroup_mma: Whether warp groups read matrix operands from shared memory (wgmma, tcgen05).
        dram_bytes_per_s: Peak; `dram_share` of it is reached by a kernel that streams.
        l2_bytes_per_s: Reached, by all SMs together.
        shared_bytes_per_cycle: Of one SM.
        float32_lanes: float32 multiply-adds per cycle and SM.
        special_per_cycle: exp2, rsqrt and the like per cycle and SM.
        float16_flops_per_s: Dense matrix products with float32 sums, peak; bfloat16 and tfloat32 alike. None:
            the chip has none; `mma_share` of it is reached by products of tiles in a loop.
        mma_latency_seconds: From the issue of one tile product to its result.
        dram_latency_seconds: From a load to its value; `l2_latency_seconds`, `shared_latency_seconds` too.
        block_barrier_seconds: A barrier of the threads of a block.
        cluster_barrier_seconds: Of the blocks of a cluster; None: no clusters.
        grid_barrier_seconds: By flags in L2, among the blocks of one head group.
        launch_seconds: Between kernels of one stream; `graph_launch_seconds` inside a graph.
    """

    vendor: Literal["nvidia", "amd"]
    architecture: str
    sms: int
    clock_hz: float
    warp_threads: int
    threads_per_block: int
    threads_per_sm: int
    blocks_per_sm: int
    registers_per_sm: int
    registers_per_thread: int
    register_granule: int
    shared_bytes_per_sm: int
    shared_bytes_per_block: int
    l2_bytes: int
    dram_bytes: int
    mma_m: int
    mma_n: int
    mma_k_bytes: int
    warpgroup_mma: bool
    dram_bytes_per_s: float
    dram_share: float
    l2_bytes_per_s: float
    shared_bytes_per_cycle: float
    float32_lanes: int
    special_per_cycle: float
    mma_share: float
    mma_latency_seconds: float
    dram_latency_seconds: float
    l2_latency_seconds: float
    shared_latency_seconds: float
    block_barrier_seconds: float
    grid_barrier_seconds: float
    launch_seconds: float
    graph_launch_seconds: float
    shared_bytes_reserved: int | None = None
    float16_flops_per_s: float | None = None
    bfloat16_flops_per_s: float | None = None
    tfloat32_flops_per_s: float | None = None
    tensor_memory_columns: int | None = None
    cluster_blocks: int | None = None
    cluster_barrier_seconds: float | None = None

    def __post_init__(self) -> None:
        check(self, "[gpu] ")
        for holds, fault in self._laws():
            if not holds:
                raise MachineError(f"[gpu] {fault}")

    def _laws(self) -> tuple[tuple[bool, str], ...]:
        """What must hold between fields, and what to say where it does not."""
        reserved = self.shared_bytes_reserved or 0
        prefix = {"nvidia": "sm_", "amd": "gfx"}[self.vendor]
        matrix = {"bfloat16_flops_per_s": self.bfloat16_flops_per_s, "tfloat32_flops_per_s": self.tfloat32_flops_per_s}
        latencies = (self.shared_latency_seconds, self.l2_latency_seconds, self.dram_latency_seconds)
        return (
            (
                self.architecture.startswith(prefix),
                f"architecture = {self.architecture!r}, expected {prefix}... of {self.vendor}",
            ),
            (
                self.shared_bytes_per_block + reserved <= self.shared_bytes_per_sm,
                f"shared_bytes_per_block = {self.shared_bytes_per_block:,} and {reserved:,} reserved are more than "
                f"shared_bytes_per_sm = {self.shared_bytes_per_sm:,}",
            ),
            (
                self.threads_per_block <= self.threads_per_sm,
                f"threads_per_block = {self.threads_per_block:,} is more than "
                f"threads_per_sm = {self.threads_per_sm:,}",
            ),
            (
                self.threads_per_block % self.warp_threads == 0 and self.threads_per_sm % self.warp_threads == 0,
                f"warp_threads = {self.warp_threads} does not divide threads_per_block = {self.threads_per_block:,} "
                f"and threads_per_sm = {self.threads_per_sm:,}",
            ),
            (
                self.registers_per_thread * self.warp_threads <= self.registers_per_sm,
                f"a warp of {self.warp_threads} threads with registers_per_thread = {self.registers_per_thread} "
                f"needs more than registers_per_sm = {self.registers_per_sm:,}",
            ),
            (
                self.registers_per_sm % self.register_granule == 0,
                f"register_granule = {self.register_granule} does not divide "
                f"registers_per_sm = {self.registers_per_sm:,}",
            ),
            (
                self.l2_bytes < self.dram_bytes,
                f"l2_bytes = {self.l2_bytes:,} is not less than dram_bytes = {self.dram_bytes:,}",
            ),
            (
                (self.cluster_blocks is None) == (self.cluster_barrier_seconds is None),
                "cluster_blocks and cluster_barrier_seconds belong together: give both, or none",
            ),
            *(
                (rate is None or self.float16_flops_per_s is not None, f"{key} needs float16_flops_per_s beside it")
                for key, rate in matrix.items()
            ),
            (
                self.tensor_memory_columns is None or self.warpgroup_mma,
                "tensor_memory_columns needs warpgroup_mma = true",
            ),
            (
                latencies == tuple(sorted(latencies)),
                "expected shared_latency_seconds <= l2_latency_seconds <= dram_latency_seconds",
            ),
            (
                self.graph_launch_seconds <= self.launch_seconds,
                f"graph_launch_seconds = {self.graph_launch_seconds:g} is more than "
                f"launch_seconds = {self.launch_seconds:g}",
            ),
            (
                self.dram_bytes_per_s * self.dram_share <= self.l2_bytes_per_s,
                f"l2_bytes_per_s = {self.l2_bytes_per_s:g} is less than what dram_bytes_per_s reaches",
            ),
        )

    @property
    def float32_flops_per_s(self) -> float:
        """Without matrix units; a multiply-add counts as 2."""
        return 2 * self.float32_lanes * self.sms * self.clock_hz
