"""CUDA C++, compiled by nvcc for a chip that need not be there.

In: a `CudaSource` and an architecture. Out: a `Compiled`. Where nvcc fails, the source is kept.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from rekern.backends.binaries import matrix_instructions_of_cubin, usage_of_cubin, version_of
from rekern.backends.offline import Compiled, CudaSource, Resources, identity
from rekern.errors import BuildError, PlanError
from rekern.settings import Settings

# From here on, instructions of warp groups and tensor memory need the name of one architecture exactly.
EXACT = 90
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores")
SHARED = re.compile(r"(\d+) bytes smem")


@cache
def nvcc() -> str:
    """The command.

    Raises:
        BuildError: there is none.
    """
    for place in (None, "/usr/local/cuda/bin"):
        if found := shutil.which("nvcc", path=place):
            return found
    raise BuildError("no nvcc found; install the CUDA toolkit, or put its bin folder on PATH")


@cache
def toolchain() -> str:
    """The compiler with its version.

    Raises:
        BuildError: there is none.
    """
    return f"nvcc {version_of(nvcc())}"


def exact_name(architecture: str) -> str:
    """The name that nvcc has for all instructions of an architecture.

    Raises:
        PlanError: it is not one of NVIDIA's.

    >>> exact_name("sm_80"), exact_name("sm_90")
    ('sm_80', 'sm_90a')
    """
    number = re.fullmatch(r"sm_(\d+)", architecture)
    if number is None:
        raise PlanError(f"CUDA has no architecture {architecture!r}; expected a name like sm_90")
    return f"{architecture}a" if int(number[1]) >= EXACT else architecture


def compile_cuda(source: CudaSource, architecture: str, *, disassemble: bool = True) -> Compiled:
    """Compile a kernel and read what it takes.

    Args:
        disassemble: Whether to count matrix instructions.

    Raises:
        BuildError: nvcc is missing or fails; the message says where the source is kept.
    """
    with tempfile.TemporaryDirectory(prefix="rekern-kernel-") as name:
        folder = Path(name)
        (folder / "kernel.cu").write_text(source.text)
        command = [nvcc(), f"-arch={exact_name(architecture)}", "-std=c++17", "-O3", *source.options]
        command += ["-cubin", "-Xptxas", "-v", "--keep", "--keep-dir", ".", "kernel.cu", "-o", "out.cubin"]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            raise BuildError(_failure(source, done.stderr + done.stdout))
        binary = (folder / "out.cubin").read_bytes()
        assembly = (folder / "kernel.ptx").read_text()
    registers, stack = usage_of_cubin(binary, source.name)
    report = _report_of(source.name, done.stderr)
    spills, shared = SPILLS.search(report), SHARED.search(report)
    resources = Resources(
        shared_bytes=source.dynamic_shared_bytes + (int(shared[1]) if shared else 0),
        registers=registers,
        spill_bytes=int(spills[2]) if spills else 0,
        stack_bytes=stack,
        tensor_memory_columns=0,        # asked for when the kernel runs
        threads=source.threads,
        matrix_instructions=matrix_instructions_of_cubin(binary) if disassemble else (),
    )
    return Compiled(architecture, resources, binary, assembly, seconds)


def _report_of(kernel: str, output: str) -> str:
    """What ptxas says of one kernel: from the line that names it to the one that names the next."""
    parts = re.split(r"Compiling entry function '(\w+)'", output)
    return dict(zip(parts[1::2], parts[2::2])).get(kernel, "")


def _failure(source: CudaSource, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next((line for line in lines if "error" in line or "fatal" in line), lines[0] if lines else "no message")
    kept = Settings.read().cache_dir / "cuda" / "failed" / f"{identity(source)}.cu"
    message = f"nvcc cannot compile {source}\n    {first}"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(source.text)
    except OSError:
        return message
    return f"{message}\nthe source is kept in {kept}"
