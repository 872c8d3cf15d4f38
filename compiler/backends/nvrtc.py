"""NVRTC: NVIDIA's compiler of CUDA C++ as a library, from the Python packages that bring it (`rekern[cuda]`).

In: the text of a kernel and options. Out: a cubin, its PTX and what ptxas reports.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rekern.errors import BuildError


def library() -> Path | None:
    """The library of the installed packages, or None."""
    found = [path for root in _roots() for path in root.glob("*/lib/libnvrtc.so.*") if "alt" not in path.name]
    return max(found, default=None)


@cache
def version() -> str:
    """As "13.0".

    Raises:
        BuildError: it is not installed.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _load().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compile_text(text: str, options: Sequence[str]) -> tuple[bytes, str, str]:
    """Compile for a real architecture.

    Returns:
        The cubin, its PTX, and the compiler's report.

    Raises:
        BuildError: NVRTC is not installed, or says no; the message is its report.
    """
    nvrtc = _load()
    headers = [f"--include-path={path}" for root in _roots() for path in sorted(root.glob("*/include"))]
    given = [option.encode() for option in (*options, *headers)]
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None) != 0:
        raise BuildError("NVRTC cannot be started")
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        report = _read(nvrtc, program, "ProgramLog").decode(errors="replace").rstrip("\0")
        if status != 0:
            raise BuildError(report)
        return _read(nvrtc, program, "CUBIN"), _read(nvrtc, program, "PTX").decode().rstrip("\0"), report
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _roots() -> list[Path]:
    spec = find_spec("nvidia")
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


@cache
def _load() -> ctypes.CDLL:
    path = library()
    if path is None:
        raise BuildError("NVRTC is not installed\ninstall it: pip install 'rekern[cuda]'")
    return ctypes.CDLL(str(path))


def _read(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    return text.raw
