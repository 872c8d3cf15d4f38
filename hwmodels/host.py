"""What can be read of the machine at hand, quickly and without running anything.

In: /proc and /sys, as far as they exist. Out: a `Host`, with nothing in it that was not read.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Host:
    """What was read of a machine.

    Args:
        architecture: As `platform.machine()` gives it.
        cpuinfo: Fields of the first processor in /proc/cpuinfo; empty where there is none.
        cache_bytes: By level, the data cache or the share of one core in it.
        line_bytes: None: not known.
        cores: That this process may use; threads that share a core count once. None: not known.
        clock_hz: The highest; None: not known.
    """

    architecture: str
    cpuinfo: Mapping[str, str]
    cache_bytes: Mapping[int, int]
    line_bytes: int | None
    cores: int | None
    clock_hz: float | None

    def processor(self, cores: int) -> str:
        """What a calibration is kept under: the model, and the cores that took part.

        >>> Host("aarch64", {"CPU implementer": "0x41", "CPU part": "0xd0c"}, {}, None, 4, None).processor(4)
        'aarch64 (implementer 0x41 part 0xd0c), 4 cores'
        """
        known = self.cpuinfo
        if "cpu family" in known:
            detail = f" (family {known['cpu family']} model {known.get('model', '?')})"
        elif "CPU part" in known:
            detail = f" (implementer {known.get('CPU implementer', '?')} part {known['CPU part']})"
        else:
            detail = ""
        return f"{known.get('model name', self.architecture)}{detail}, {cores} cores"


def read_host(root: Path = Path("/")) -> Host:
    """What can be read of the machine whose /proc and /sys are below `root`."""
    cpu0 = root / "sys/devices/system/cpu/cpu0"
    caches, line = _caches(cpu0)
    kilohertz = _number(cpu0 / "cpufreq/cpuinfo_max_freq")
    return Host(
        architecture=platform.machine(),
        cpuinfo=_first_processor(root / "proc/cpuinfo"),
        cache_bytes=caches,
        line_bytes=line,
        cores=_cores(root),
        clock_hz=kilohertz * 1e3 if kilohertz else None,
    )


def _first_processor(path: Path) -> dict[str, str]:
    """The first paragraph. The kernel writes the file while it is read: the rest is slow on many cores."""
    fields: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, colon, value = line.partition(":")
                if colon:
                    fields[key.strip()] = value.strip()
                elif fields:
                    break
    except OSError:
        pass
    return fields


def _caches(cpu0: Path) -> tuple[dict[int, int], int | None]:
    """Bytes a core has of each level, and the bytes of a line of the first."""
    threads = max(1, _count(_text(cpu0 / "topology/thread_siblings_list")))
    found: dict[int, int] = {}
    line = None
    for index in sorted(_entries(cpu0 / "cache", "index*")):
        level, size = _number(index / "level"), _bytes(_text(index / "size"))
        if level and size and _text(index / "type") in ("Data", "Unified"):
            cores = max(1, _count(_text(index / "shared_cpu_list")) // threads)
            found[level] = size // cores
            if level == 1:
                line = _number(index / "coherency_line_size")
    return found, line


def _cores(root: Path) -> int | None:
    """Cores that this process may use, by affinity and by the quota of its container."""
    try:
        allowed: Iterable[int] = os.sched_getaffinity(0)
    except AttributeError:      # not on Linux
        return os.cpu_count()
    topology = root / "sys/devices/system/cpu"
    cores = {_text(topology / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    quota, _, period = _text(root / "sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        return max(1, min(len(cores), -(-int(quota) // int(period))))
    return len(cores)


def _entries(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() and int(text) > 0 else None


def _bytes(text: str) -> int | None:
    """A size as sysfs writes it.

    >>> _bytes("48K"), _bytes("32M"), _bytes("")
    (49152, 33554432, None)
    """
    digits, unit = text.rstrip("KMG"), text[-1:]
    return int(digits) * UNITS.get(unit, 1) if digits.isdigit() else None


def _count(text: str) -> int:
    """Processors in a list as sysfs writes it.

    >>> _count("0-3,8-11"), _count("0"), _count("")
    (8, 1, 0)
    """
    total = 0
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return 0
        total += int(last or first) - int(first) + 1
    return total
