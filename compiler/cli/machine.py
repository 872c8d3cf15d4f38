"""What a measurement depends on beside the code: the machine, versions, the allocator's settings.

In: the process. Out: plain values that belong beside every number.
"""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch

from rekern.backends.cpp import toolchain
from rekern.hwmodels import detect

ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "_RJEM_MALLOC_CONF", "OMP_", "GOMP_", "KMP_", "MKL_")


def cpu_model() -> str:
    """As the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    if "cpu family" in found:
        return f"{found.get('model name', 'x86')} (family {found['cpu family']} model {found.get('model', '?')})"
    return found.get("model name") or platform.processor() or platform.machine()


def slug() -> str:
    """A folder name for results of this machine: the file of hwmodels that fits it, and the model of its CPU.

    Two machines of one name share it.
    """
    model = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(R\)|\(TM\)|\bCPU\b", "", cpu_model()).lower()).strip("-")
    return f"{detect().name}-{model}"


def loaded_openmp() -> list[str] | None:
    """The OpenMP libraries in this process; None where that cannot be read."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count("/")}
    return sorted(p for p in paths if re.search(r"/lib(g|i)?omp(5)?[-.\w]*\.so", p))


def describe() -> dict[str, object]:
    """Plain values.

    Raises:
        BuildError: there is no C++ compiler.
    """
    cpu = detect().cpu
    settings = {k: v for k, v in sorted(os.environ.items()) if k.startswith(ALLOCATOR)}
    return {
        "machine": detect().name,
        "cpu": cpu_model(),
        "cores": cpu.cores if cpu else None,
        "system": platform.platform(),
        "rekern": version("rekern"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": str(toolchain()),
        "compiler_flags": " ".join(toolchain().flags),
        "environment": settings,
    }
