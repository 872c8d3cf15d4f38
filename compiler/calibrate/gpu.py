"""The numbers of a GPU: memory, L2, matrix products, and what a launch costs.

In: a GPU, and torch on its device. Out: `Measurement`s. All of it is torch under CUDA or ROCm; only the timer touches
a device, so the rest runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from rekern.calibrate.measurement import Job, Measurement, Samples, Timer, measurement
from rekern.hwmodels import Gpu

MOST_COPY_BYTES = 1 << 31
FAST_PRODUCTS = 2e14    # operations a second from which a product of 8192 is needed to fill the chip
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "tfloat32": torch.float32}


def jobs(gpu: Gpu, device: str = "cuda") -> tuple[Job, ...]:
    """What is run. The tensors live as long as the jobs."""
    return tuple(_jobs(gpu, device))


def _jobs(gpu: Gpu, device: str) -> Iterator[Job]:
    for name, size in copies(gpu).items():
        call = _copy(size, device)
        yield Job(name, call, "device", 5) if name == "copy_dram" else Job(name, call, "graph", 200)
    for dtype in products(gpu):
        yield Job(dtype, _product(order(gpu), dtype, device), "device", 10)
    one = torch.zeros(1, device=device)
    yield Job("launch", lambda: one.add_(1), "device", 1000)
    yield Job("graph_launch", lambda: one.add_(1), "graph", 1000)


def copies(gpu: Gpu) -> dict[str, int]:
    """Bytes of each copy. The two small ones stay in L2, source and result together."""
    sizes = {
        "copy_dram": min(MOST_COPY_BYTES, gpu.dram_bytes // 16),
        "copy_l2": gpu.l2_bytes // 4,
        "copy_half_l2": gpu.l2_bytes // 8,
    }
    return {name: size // 4096 * 4096 for name, size in sizes.items()}


def products(gpu: Gpu) -> tuple[str, ...]:
    """Types that the matrix units take."""
    return tuple(dtype for dtype in DTYPES if _peak(gpu, dtype) is not None)


def order(gpu: Gpu) -> int:
    """Rows of the square matrices."""
    return 8192 if (gpu.float16_flops_per_s or 0) > FAST_PRODUCTS else 4096


def _peak(gpu: Gpu, dtype: str) -> float | None:
    peaks = {
        "bfloat16": gpu.bfloat16_flops_per_s,
        "float16": gpu.float16_flops_per_s,
        "tfloat32": gpu.tfloat32_flops_per_s,
    }
    return peaks[dtype]


def _copy(size: int, device: str) -> Callable[[], object]:
    source = torch.ones(size // 4, device=device)
    result = torch.empty_like(source)
    return lambda: result.copy_(source)


def _product(rows: int, dtype: str, device: str) -> Callable[[], object]:
    # Random: products of zeros draw less power, and run at a higher clock.
    left, right = (torch.randn(rows, rows, device=device).to(DTYPES[dtype]) for _ in range(2))
    result = torch.empty_like(left)

    def call() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            torch.mm(left, right, out=result)
        finally:
            torch.set_float32_matmul_precision(before)

    return call


def measurements(gpu: Gpu, samples: Samples) -> tuple[Measurement, ...]:
    """The numbers that the rounds of `jobs(gpu)` make."""
    return tuple(_measurements(gpu, samples))


def _measurements(gpu: Gpu, samples: Samples) -> Iterator[Measurement]:
    size = copies(gpu)
    reached = [2 * size["copy_dram"] / s / gpu.dram_bytes_per_s for s in samples["copy_dram"]]
    how = f"copy of {size['copy_dram'] >> 20} MiB, read and written"
    yield measurement("dram_share", "of the peak", [min(1.0, r) for r in reached], how)
    more = 2 * (size["copy_l2"] - size["copy_half_l2"])
    longer = [a - b for a, b in zip(samples["copy_l2"], samples["copy_half_l2"], strict=True)]
    if all(seconds > 0 for seconds in longer):
        how = f"copies of {size['copy_l2'] >> 10} and {size['copy_half_l2'] >> 10} KiB in a graph, the difference"
        yield measurement("l2_bytes_per_s", "bytes/s", [more / seconds for seconds in longer], how)
    operations = 2.0 * order(gpu) ** 3
    how = f"torch.mm of order {order(gpu)}"
    for dtype in products(gpu):
        rates = [operations / s for s in samples[dtype]]
        yield measurement(f"{dtype}_reached_flops_per_s", "operations/s", rates, how, kept=False)
    for dtype in products(gpu)[:1]:
        peak = _peak(gpu, dtype)
        assert peak is not None, "products() has those with a peak"
        shares = [min(1.0, operations / s / peak) for s in samples[dtype]]
        yield measurement("mma_share", "of the peak", shares, f"{how} in {dtype}")
    how = "one-element torch.add_, 1000 in a row"
    yield measurement("launch_seconds", "s", samples["launch"], how)
    inside = [min(a, b) for a, b in zip(samples["graph_launch"], samples["launch"], strict=True)]
    yield measurement("graph_launch_seconds", "s", inside, f"{how} in a graph")


def device_timer() -> Timer:
    """Seconds of a call by events of the current device. Graphs are captured once."""
    graphs: dict[str, torch.cuda.CUDAGraph] = {}

    def captured(job: Job) -> torch.cuda.CUDAGraph:
        if job.name not in graphs:
            job.call()      # loads the kernel, which a capture cannot
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(job.repeats):
                    job.call()
            graphs[job.name] = graph
        return graphs[job.name]

    def timer(job: Job) -> float:
        replay = captured(job).replay if job.clock == "graph" else None
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        if replay is not None:
            replay()
        else:
            for _ in range(job.repeats):
                job.call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / job.repeats

    return timer
