"""Recognises the CPU and the GPUs at hand.

In: what the host and the drivers tell. Out: the `Machine` of the file that fits best, what was read filled in,
what was measured laid over it.
"""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache
from typing import Any, Literal

from rekern.hwmodels.checks import implausible
from rekern.hwmodels.device import Recognised, read_devices, recognise_device
from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.files import packaged
from rekern.hwmodels.host import Host, read_host
from rekern.hwmodels.overlay import with_overlay
from rekern.hwmodels.schema import Machine

AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
AVX2 = {"avx2", "fma"}


@cache
def detect(kind: Literal["cpu", "gpu"] = "cpu") -> Machine:
    """The CPU that this process runs on, or its first GPU. Read once per process.

    The name is that of the file that fits best. What cannot be read (most rates, and caches where there is no
    /sys) is as in that file, or as `rekern calibrate` measured it here.

    Raises:
        MachineError: no file fits the architecture, or there is no GPU.
    """
    found = at_hand(kind)
    if found.note:
        warnings.warn(found.note, stacklevel=2)
    return with_overlay(found.machine, found.processor)


def at_hand(kind: Literal["cpu", "gpu"]) -> Recognised:
    """The CPU or the first GPU, without what was measured.

    Raises:
        MachineError: no file fits the architecture, or there is no GPU.
    """
    if kind == "cpu":
        host = read_host()
        machine = recognise(host)
        assert machine.cpu is not None
        return Recognised(machine, host.processor(machine.cpu.cores))
    for found in detect_gpus():
        return found
    raise MachineError("torch finds no GPU on this machine; name a machine file instead, such as 'h100_sxm'")


def detect_gpus() -> tuple[Recognised, ...]:
    """Every GPU that torch can use here, as its file says and without what was measured.

    Raises:
        MachineError: a GPU is of an architecture that no file is of.
    """
    return tuple(recognise_device(device) for device in read_devices())


def recognise(host: Host) -> Machine:
    """The machine that `host` is.

    Raises:
        MachineError: no file fits the architecture.
    """
    machine, variants = packaged(_file(host))
    cpu = machine.cpu
    assert cpu is not None, "the files named below are of CPUs"
    for variant in variants:
        if variant.fits(host.cpuinfo):
            cpu = variant.cpu
            break
    read: dict[str, Any] = {
        "cores": host.cores,
        "clock_hz": host.clock_hz,
        "line_bytes": host.line_bytes,
        "l1_bytes": host.cache_bytes.get(1),
        "l2_bytes": host.cache_bytes.get(2),
        "l3_bytes_per_core": host.cache_bytes.get(3),
    }
    if host.cpuinfo:
        read |= _from_flags(_flags(host))
    known = {k: v for k, v in read.items() if v is not None and (isinstance(v, bool) or not implausible(k, v))}
    if known.get("l1_bytes", cpu.l1_bytes) > known.get("l2_bytes", cpu.l2_bytes):     # a virtual machine's tale
        known = {k: v for k, v in known.items() if k not in ("l1_bytes", "l2_bytes")}
    return dataclasses.replace(machine, cpu=dataclasses.replace(cpu, **known))


def _file(host: Host) -> str:
    match host.architecture.lower():
        case "x86_64" | "amd64":
            return "x86_avx512" if _flags(host) >= AVX512 else "x86_avx2"
        case "aarch64" | "arm64":
            return "arm64_neon"
        case other:
            raise MachineError(f"no machine file fits the architecture {other!r}: only x86_64 and aarch64")


def _flags(host: Host) -> set[str]:
    """Instruction set extensions: `flags` on x86, `Features` on ARM."""
    return {*host.cpuinfo.get("flags", "").split(), *host.cpuinfo.get("Features", "").split()}


def _from_flags(flags: set[str]) -> dict[str, Any]:
    read: dict[str, Any] = {"bf16_dot": bool(flags & {"avx512_bf16", "bf16"})}
    if "sse2" in flags and not flags >= AVX2:      # x86 without fused multiply-add: two operations
        read |= {"vector_bytes": 16, "fma_per_cycle": 1}
    return read
