"""Recognises a GPU by what it has, never by what it is called.

In: a `Device`, as a driver describes it. Out: the machine of the file that fits, with what was read filled in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rekern.hwmodels.checks import implausible
from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.files import names, packaged
from rekern.hwmodels.gpu import Gpu
from rekern.hwmodels.schema import Machine

SAME_MEMORY = 0.1       # drivers report up to this much less than the data sheet, and no two chips are this close


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as its driver describes it. None: the driver does not say.

    Args:
        name: What the vendor calls it; for messages only.
        clock_hz: The highest, which no chip holds under load.
        dram_bytes_per_s: Of the memory clock and the width of the bus.
    """

    name: str
    vendor: Literal["nvidia", "amd"]
    architecture: str
    sms: int
    dram_bytes: int
    clock_hz: float | None = None
    dram_bytes_per_s: float | None = None
    l2_bytes: int | None = None
    shared_bytes_per_block: int | None = None
    shared_bytes_per_sm: int | None = None
    registers_per_sm: int | None = None
    threads_per_sm: int | None = None
    warp_threads: int | None = None

    @property
    def processor(self) -> str:
        """What a calibration is kept under."""
        return f"{self.name}, {self.sms} SMs"


@dataclass(frozen=True, slots=True)
class Recognised:
    """A machine at hand, as its file says with what was read filled in.

    Args:
        processor: What a calibration of it is kept under.
        note: In words, where no file is of this very chip; else "".
    """

    machine: Machine
    processor: str
    note: str = ""


def recognise_device(device: Device) -> Recognised:
    """The machine that `device` is: the file of its architecture, SMs and memory, else the nearest, scaled.

    Raises:
        MachineError: no file is of this architecture.
    """
    known = [machine for machine in _gpus() if _gpu(machine).architecture == device.architecture]
    if not known:
        there = ", ".join(sorted({_gpu(machine).architecture for machine in _gpus()}))
        raise MachineError(
            f"no machine file is of {device.architecture}, which {device.name} has; known: {there}\n"
            "copy the nearest file of hwmodels, change what differs, and name its path instead"
        )
    nearest = min(known, key=lambda machine: (_distance(_gpu(machine), device), machine.name))
    gpu = _gpu(nearest)
    if gpu.sms == device.sms and abs(device.dram_bytes / gpu.dram_bytes - 1) <= SAME_MEMORY:
        return Recognised(dataclasses.replace(nearest, gpu=_filled(gpu, device)), device.processor)
    note = (
        f"no machine file is of {device.name} ({device.architecture}, {device.sms} SMs, "
        f"{device.dram_bytes / 2**30:.0f} GiB): {nearest.name} ({gpu.sms} SMs) is scaled to it; "
        "`rekern calibrate` measures the rest"
    )
    scaled = _filled(_scaled(gpu, device), device)
    return Recognised(Machine(f"{nearest.name}_{device.sms}sms", "gpu", gpu=scaled), device.processor, note)


CAPACITIES = (
    "l2_bytes", "shared_bytes_per_block", "shared_bytes_per_sm", "registers_per_sm", "threads_per_sm", "warp_threads",
)  # fmt: skip


def _filled(gpu: Gpu, device: Device) -> Gpu:
    """`gpu` with what the device says, as far as it makes sense; drivers also report 0 and nonsense."""
    filled = dataclasses.replace(gpu, sms=device.sms, dram_bytes=device.dram_bytes)
    read = {key: getattr(device, key) for key in CAPACITIES}
    sound = {key: value for key, value in read.items() if value is not None and not implausible(key, value)}
    try:
        return dataclasses.replace(filled, **sound)
    except MachineError:    # numbers that contradict each other: which of them is wrong cannot be known
        return filled


def _scaled(gpu: Gpu, device: Device) -> Gpu:
    """Rates that grow with SMs and clock. Latencies stay, and memory unless its bus is known.

    A slice of a chip may report the bus of all of it: what L2 passes on is the limit then.
    """
    clock = min(gpu.clock_hz, device.clock_hz or gpu.clock_hz)
    sms = device.sms / gpu.sms
    rates: dict[str, Any] = {"clock_hz": clock, "l2_bytes_per_s": gpu.l2_bytes_per_s * sms * clock / gpu.clock_hz}
    for key in ("float16_flops_per_s", "bfloat16_flops_per_s", "tfloat32_flops_per_s"):
        peak = getattr(gpu, key)
        if peak is not None:
            rates[key] = peak * sms * clock / gpu.clock_hz
    bus = device.dram_bytes_per_s or gpu.dram_bytes_per_s
    rates["dram_bytes_per_s"] = min(bus, rates["l2_bytes_per_s"] / gpu.dram_share)
    return dataclasses.replace(gpu, **rates)


def _distance(gpu: Gpu, device: Device) -> float:
    return abs(math.log(device.sms / gpu.sms)) + abs(math.log(device.dram_bytes / gpu.dram_bytes))


def _gpus() -> Iterator[Machine]:
    machines = (packaged(name)[0] for name in names())
    return (machine for machine in machines if machine.gpu is not None)


def _gpu(machine: Machine) -> Gpu:
    assert machine.gpu is not None
    return machine.gpu


class Properties(Protocol):
    """What `torch.cuda.get_device_properties` returns, as far as every version of torch has it."""

    name: str
    major: int
    minor: int
    multi_processor_count: int
    total_memory: int


def from_torch(properties: Properties) -> Device:
    """A device as torch describes it, under CUDA or ROCm."""

    def read(key: str, scale: int = 1) -> int | None:
        value = getattr(properties, key, None)
        return value * scale if isinstance(value, int) and value > 0 else None

    amd = str(getattr(properties, "gcnArchName", "") or "").partition(":")[0]
    is_amd = amd.startswith("gfx")
    memory_clock, bus_bits = read("memory_clock_rate", 1000), read("memory_bus_width")
    rate = None
    if memory_clock and bus_bits and not is_amd:    # two transfers a cycle; AMD counts the clock of HBM otherwise
        rate = 2.0 * memory_clock * bus_bits / 8
    return Device(
        name=properties.name,
        vendor="amd" if is_amd else "nvidia",
        architecture=amd if is_amd else f"sm_{properties.major}{properties.minor}",
        sms=properties.multi_processor_count,
        dram_bytes=properties.total_memory,
        clock_hz=read("clock_rate", 1000),
        dram_bytes_per_s=rate,
        l2_bytes=read("L2_cache_size"),
        shared_bytes_per_block=read("shared_memory_per_block_optin"),
        shared_bytes_per_sm=None if is_amd else read("shared_memory_per_multiprocessor"),   # HIP counts all units
        registers_per_sm=None if is_amd else read("regs_per_multiprocessor"),   # HIP leaves half of them out
        threads_per_sm=read("max_threads_per_multi_processor"),
        warp_threads=read("warp_size"),
    )


def read_devices() -> tuple[Device, ...]:
    """The GPUs that torch can use here; none without torch, a driver or a GPU."""
    try:
        import torch  # not at the top: the machine files need nothing but Python
    except ImportError:
        return ()
    if not torch.cuda.is_available():
        return ()
    return tuple(from_torch(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count()))
