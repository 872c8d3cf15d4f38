"""Kernels for tests of the gate: one that is right, and ways to break it."""

import importlib.util
import os
import sys
from dataclasses import replace
from types import ModuleType

from rekern.backends.offline import TritonSource
from rekern.gate.verdicts import Candidate
from source_tree import ROOT

OFFLINE = ROOT / "benchmarks" / "results" / "offline"


def benchmark() -> ModuleType:
    """benchmarks/gate.py, which is no package."""
    if "benchmark_gate" not in sys.modules:
        spec = importlib.util.spec_from_file_location("benchmark_gate", ROOT / "benchmarks" / "gate.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["benchmark_gate"] = module
        spec.loader.exec_module(module)
    return sys.modules["benchmark_gate"]


def product(bm: int = 64, bn: int = 32, bk: int = 32, stages: int = 2, warps: int = 4) -> TritonSource:
    """The product of the benchmark, in bfloat16."""
    source: TritonSource = benchmark().Tile(bm, bn, bk, "bf16", "bf16", stages, warps).source()
    return source


def candidate(source: TritonSource | None = None, *, before: str = "", change: tuple[str, str] = ("", "")) -> Candidate:
    """A kernel with a statement that runs when its module is imported, or with other words in its text."""
    source = source or product()
    return Candidate(replace(source, text=f"{before}\n{source.text.replace(*change)}"))


TOO_LARGE = candidate(product(64, 64, 128, stages=8))           # 262,144 bytes on sm_90
SPILLS = candidate(product(64, 128, 16, stages=1, warps=1))     # 256 sums a thread
SLEEP = f"sleep {10_000 + os.getpid()}"                         # no other process of tests has this one
HANGS = candidate(before=f"import subprocess; subprocess.run({SLEEP.split()})")
CRASHES = candidate(before="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
WRONG = candidate(change=("tl.dot(", "tl.dott("))
GREEDY = candidate(before="x = bytearray(1 << 40)")
NO_PRODUCT = candidate(change=("tl.dot(left, right, sums)", "sums + tl.sum(left) + tl.sum(right)"))
