"""What is read from compiled kernels: registers, stack and matrix instructions.

In: a cubin, or the text of amdgcn. Out: numbers. NVIDIA's readers come with Triton and with the CUDA toolkit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rekern.errors import BuildError

# HMMA, IMMA, QMMA, DMMA, OMMA: warps; HGMMA, ...: warp groups; UTCHMMA, ...: tensor memory
MATRIX_SASS = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?((?:UTC)?[A-Z]?G?MMA)\b", re.MULTILINE)
MATRIX_AMDGCN = re.compile(r"^\s+v_(s?mfmac?|s?wmmac?)_", re.MULTILINE)
USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)")
METADATA = re.compile(r"^\s+\.(\w+):\s+(\d+)$", re.MULTILINE)


@cache
def bundled(name: str) -> Path:
    """A program of NVIDIA's that Triton brings along, else the one of the CUDA toolkit.

    Raises:
        BuildError: there is none.
    """
    spec = find_spec("triton")      # found, not imported: that takes a quarter of a second
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "backends" / "nvidia" / "bin" / name
        if path.exists():
            return path
    for folder in (None, "/usr/local/cuda/bin"):
        found = shutil.which(name, path=folder)
        if found:
            return Path(found)
    raise BuildError(f"no {name} found; install triton, which has it, or the CUDA toolkit")


def version_of(program: str | Path) -> str:
    """The line of `program --version` that names a release."""
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release [^\n]*", text)
    return found[0] if found else text.strip()


def usage_of_cubin(binary: bytes, kernel: str) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack.

    Raises:
        BuildError: the reader fails, or `kernel` is not in there.
    """
    for name, registers, stack, _ in USAGE.findall(_cuobjdump(binary, "--dump-resource-usage")):
        if name == kernel:
            return int(registers), int(stack)
    raise BuildError(f"cuobjdump names no resources of {kernel!r}")


def matrix_instructions_of_cubin(binary: bytes) -> tuple[tuple[str, int], ...]:
    """Kinds of instructions for tensor cores, each with how often it stands there, sorted."""
    return tuple(sorted(Counter(MATRIX_SASS.findall(_cuobjdump(binary, "--dump-sass"))).items()))


def matrix_instructions_of_amdgcn(text: str) -> tuple[tuple[str, int], ...]:
    """As for a cubin: MFMA, WMMA."""
    return tuple(sorted(Counter(kind.upper() for kind in MATRIX_AMDGCN.findall(text)).items()))


def usage_of_amdgcn(text: str) -> dict[str, int]:
    """The numbers in the metadata of the (only) kernel: `vgpr_count`, `private_segment_fixed_size`, ..."""
    metadata = text[text.rindex("amdhsa.kernels:"):]
    return {key: int(value) for key, value in METADATA.findall(metadata)}


def _cuobjdump(binary: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(bundled("cuobjdump")), option, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"cuobjdump {option} failed\n    {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout
