"""What the compiler makes of the inner loops: sums stay in registers, and loads are as the tiles say."""

import platform
import shutil
from pathlib import Path

import pytest

from assembly import Loop, inner_loops
from rekern import zoo
from rekern.backends.cpp import Source
from rekern.render import headers_for, render
from rekern.schedules.passes import CpuSizes
from rekern.schedules.programs import programs
from rekern.schedules.time_loop import backward_pass, forward_pass

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None, reason="x86 assembly by g++"
)
# Vector bytes, the instruction set, and the tallest tile of a product: rows and vectors.
TARGETS = {"avx512": (64, "x86-64-v4", 6, 4), "avx2": (32, "x86-64-v3", 6, 2)}


def products(name: str, passes: str, target: str, folder: Path) -> list[Loop]:
    """The inner loops of a pass that are made of multiply-adds."""
    vector_bytes, architecture, _, _ = TARGETS[target]
    sizes = CpuSizes("float", vector_bytes, 0, 32 if vector_bytes == 64 else 16)
    make = backward_pass if passes == "backward" else forward_pass
    view = make(programs(zoo.load(name)), sizes)
    loops = inner_loops(Source(name, render(view), headers_for(sizes)), folder, architecture)
    return [loop for loop in loops if loop.multiply_adds >= len(loop.lines) / 2]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name, passes", [("lstm", "forward"), ("gru", "backward")])
def test_products_keep_their_sums_in_registers(name: str, passes: str, target: str, tmp_path: Path) -> None:
    *_, rows, vectors = TARGETS[target]
    loops = products(name, passes, target, tmp_path)
    assert not any(loop.stack_vectors for loop in loops)
    tallest = [loop for loop in loops if loop.multiply_adds == rows * vectors]
    assert tallest, [loop.multiply_adds for loop in loops]
    for loop in tallest:
        assert loop.vector_loads == rows + vectors  # an element of each row, and one row of the weight
