"""CUDA C++, compiled by nvcc or else by NVRTC for a chip that need not be there.

In: a `CudaSource` and an architecture. Out: a `Compiled`. Where the compiler fails, the source is kept.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rekern.backends import nvrtc
from rekern.backends.binaries import matrix_instructions_of_cubin, usage_of_cubin, version_of
from rekern.backends.offline import Compiled, CudaSource, Resources, identity
from rekern.errors import BuildError, PlanError
from rekern.settings import Settings

# From here on, instructions of warp groups and tensor memory need the name of one architecture exactly.
EXACT = 90
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores")
SHARED = re.compile(r"(\d+) bytes smem")


@cache
def nvcc() -> str | None:
    """The command, or None."""
    for place in (None, "/usr/local/cuda/bin"):
        if found := shutil.which("nvcc", path=place):
            return found
    return None


def toolchain() -> str:
    """The compiler with its version.

    Raises:
        BuildError: there is none.
    """
    if found := nvcc():
        return f"nvcc {version_of(found)}"
    if nvrtc.library():
        return f"nvrtc {nvrtc.version()}"
    raise BuildError(
        "no compiler of CUDA found: no nvcc on PATH, and no NVRTC\n"
        "install the CUDA toolkit, or: pip install 'rekern[cuda]'"
    )


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
        BuildError: there is no compiler, or it fails; the message says where the source is kept.
    """
    toolchain()
    start = time.perf_counter()
    options = [f"-arch={exact_name(architecture)}", "-std=c++17", *source.options]
    try:
        binary, assembly, output = _by_nvcc(source.text, options) if nvcc() else nvrtc.compile_text(
            source.text, [*options, "--ptxas-options=-v"]
        )
    except BuildError as error:
        raise BuildError(_failure(source, str(error))) from None
    seconds = time.perf_counter() - start
    registers, stack = usage_of_cubin(binary, source.name)
    report = _report_of(source.name, output)
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


def _by_nvcc(text: str, options: Sequence[str]) -> tuple[bytes, str, str]:
    """As `nvrtc.compile_text`."""
    with tempfile.TemporaryDirectory(prefix="rekern-kernel-") as name:
        folder = Path(name)
        (folder / "kernel.cu").write_text(text)
        command = [str(nvcc()), *options, "-O3", "-cubin", "-Xptxas", "-v"]
        command += ["--keep", "--keep-dir", ".", "kernel.cu", "-o", "out.cubin"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(done.stderr + done.stdout)
        return (folder / "out.cubin").read_bytes(), (folder / "kernel.ptx").read_text(), done.stderr


def _report_of(kernel: str, output: str) -> str:
    """What ptxas says of one kernel: from the line that names it to the one that names the next."""
    parts = re.split(r"Compiling entry function '(\w+)'", output)
    return dict(zip(parts[1::2], parts[2::2])).get(kernel, "")


def _failure(source: CudaSource, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    first = next((line for line in lines if "error" in line or "fatal" in line), lines[0] if lines else "no message")
    kept = Settings.read().cache_dir / "cuda" / "failed" / f"{identity(source)}.cu"
    message = f"{toolchain().split()[0]} cannot compile {source}\n    {first}"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(source.text)
    except OSError:
        return message
    return f"{message}\nthe source is kept in {kept}"
