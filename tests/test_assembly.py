"""What the compiler makes of the inner loops: sums stay in registers, and loads are as the tiles say."""

import platform
import shutil
from pathlib import Path

import pytest

from assembly import inner_loops
from rekern.backends.cpp import Source
from rekern.render import headers

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None, reason="x86 assembly by g++"
)
# Vector bytes, the instruction set, and the tallest tile of a product: rows and vectors.
TARGETS = {"avx512": (64, "x86-64-v4", 6, 4), "avx2": (32, "x86-64-v3", 6, 2)}


def shared(name: str, vector_bytes: int) -> Source:
    """A file that is compiled once for all kernels."""
    files = headers("float", vector_bytes, pairs=True)
    return Source(name, files[name], files)


@pytest.mark.parametrize("target", TARGETS)
def test_products_keep_their_sums_in_registers(target: str, tmp_path: Path) -> None:
    vector_bytes, architecture, rows, vectors = TARGETS[target]
    every = inner_loops(shared("contract.cpp", vector_bytes), tmp_path, architecture)
    loops = [loop for loop in every if loop.multiply_adds >= len(loop.lines) / 2]
    assert not any(loop.stack_vectors for loop in loops)
    tallest = [loop for loop in loops if loop.multiply_adds == rows * vectors]
    assert tallest, [loop.multiply_adds for loop in loops]
    for loop in tallest:
        assert loop.vector_loads == rows + vectors  # an element of each row, and one row of the weight


def test_a_row_times_weights_that_lie_anywhere_keeps_its_sums_in_registers(tmp_path: Path) -> None:
    loops = inner_loops(shared("panels.cpp", 64), tmp_path, "x86-64-v4")
    eight = [loop for loop in loops if loop.multiply_adds == 8]
    assert eight and not any(loop.stack_vectors for loop in eight)


@pytest.mark.parametrize("vector_bytes", [32, 64])
def test_products_of_pairs_keep_their_sums_in_registers(vector_bytes: int, tmp_path: Path) -> None:
    products = [
        loop for loop in inner_loops(shared("contract_pairs.cpp", vector_bytes), tmp_path, "cooperlake") if loop.dots
    ]
    assert products and not any(loop.stack_vectors for loop in products)
    tallest = [loop for loop in products if loop.dots == 6 * 4]
    assert tallest, [loop.dots for loop in products]
    for loop in tallest:
        assert loop.vector_loads == 6 + 4  # a pair of each row, and one row of the weight
