"""Recognises the CPU at hand.

In: what the host tells of itself. Out: the `Machine` of the file that fits best, and what was read
filled in.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.files import packaged
from rekern.hwmodels.host import Host, read_host
from rekern.hwmodels.schema import Machine

AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
AVX2 = {"avx2", "fma"}


@cache
def detect() -> Machine:
    """The CPU that this process runs on. Read once per process.

    The name is that of the file that fits best; what cannot be read (most rates, and caches where there is no
    /sys) is as in that file.

    Raises:
        MachineError: no file fits the architecture.
    """
    return recognise(read_host())


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
    known = {key: value for key, value in read.items() if value is not None}
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
