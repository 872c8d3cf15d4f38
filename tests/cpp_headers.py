"""Builds of the C++ headers that every kernel includes, callable with NumPy arrays."""

import ctypes
import math
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

TEMPLATES = Path(__file__).parents[1] / "templates"
ENTRY_POINTS = Path(__file__).with_suffix(".cpp")
HEADERS = ("vector", "vector_math", "rows", "pairs", "contract", "contract_tiles", "fingerprint")
SHARED = ("rows", "pairs", "contract", "fingerprint")  # those with functions in a file beside them
FLAGS = ("-std=c++17", "-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-Wno-psabi")

Array = NDArray[Any]


@dataclass(frozen=True)
class Build:
    """One way to compile the headers."""

    real: str
    vector_bytes: int
    arch: str = "native"

    def __str__(self) -> str:
        return f"{self.real}-{self.vector_bytes}-{self.arch}"

    @property
    def dtype(self) -> type:
        return np.float32 if self.real == "float" else np.float64

    def headers(self, folder: Path) -> None:
        env = Environment(undefined=StrictUndefined, loader=FileSystemLoader(TEMPLATES))
        for name in (*(f"{n}.h" for n in HEADERS), *(f"{n}.cpp" for n in SHARED)):
            text = env.get_template(f"cpp/{name}.j2").render(real=self.real, vector_bytes=self.vector_bytes, pairs=True)
            (folder / name).write_text(text)

    def library(self, folder: Path, source: Path = ENTRY_POINTS) -> Path:
        self.headers(folder)
        made = folder / "entry_points.so"
        options = (*FLAGS, *WARNINGS, f"-march={self.arch}", "-shared", "-fPIC", f"-I{folder}")
        command = ["g++", *options, source, *(folder / f"{n}.cpp" for n in SHARED), "-o", made]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.fail(done.stderr, pytrace=False)
        return made


BUILDS = [Build(real, bytes_) for real in ("float", "double") for bytes_ in (64, 32, 16)]
if platform.machine() == "x86_64":      # without fused multiply-adds, and with 16 registers
    BUILDS.append(Build("float", 16, "x86-64"))


class Library:
    """The entry points of one build, on NumPy arrays."""

    def __init__(self, build: Build, path: Path) -> None:
        self.build = build
        self.dll = ctypes.CDLL(str(path))
        self.lanes = int(self.dll.lanes())
        self.panel = int(self.dll.panel())

    def __call__(self, name: str, *args: Array | float | None) -> int:
        """Arrays go by address, floats as reals, ints as 64 bits (which an int parameter halves)."""
        real = ctypes.c_float if self.build.real == "float" else ctypes.c_double
        passed: list[Any] = []
        for arg in args:
            if arg is None or isinstance(arg, np.ndarray):
                passed.append(ctypes.c_void_p(None if arg is None else arg.ctypes.data))
            else:
                passed.append(real(arg) if isinstance(arg, float) else ctypes.c_int64(arg))
        self.dll[name].restype = ctypes.c_int64
        return int(self.dll[name](*passed))

    def array(self, values: Any) -> Array:
        return np.ascontiguousarray(values, dtype=self.build.dtype)

    def zeros(self, *shape: int) -> Array:
        """Aligned like a vector."""
        size = math.prod(shape)
        raw = np.zeros(size + 64, self.build.dtype)
        start = -raw.ctypes.data % 64 // raw.itemsize
        return raw[start:start + size].reshape(shape)

    def apply(self, name: str, a: Array, b: Array | None = None, how: str = "lanes") -> Array:
        """The function of each value; how is lanes or single."""
        n = len(a)
        a, b = (np.pad(v, (0, -n % 16), mode="edge") for v in (a, a if b is None else b))
        y = np.zeros_like(a)
        self(f"{name}_{how}", y, a, b, len(a))
        return y[:n]
