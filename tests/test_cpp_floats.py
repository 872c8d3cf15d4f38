"""The functions that gates are made of, over the floats: within 2 units in the last place of the exact value.

Subnormal numbers, infinities, NaN, signed zeros and both ends of saturation are among the floats. `pytest
tests/test_cpp_floats.py --every-float` walks all 2^32 of them, about two minutes for a function and a build.
"""

import ctypes
import os
from pathlib import Path

import pytest

from cpp_headers import BUILDS, ENTRY_POINTS, Build

WALK = ENTRY_POINTS.with_name("cpp_walk.cpp")
FLOAT_BUILDS = [build for build in BUILDS if build.real == "float"]
NAMES = ("exp", "tanh", "sigmoid", "log_sigmoid", "softplus")
BOUND = 2.0
ALL = range(0, 2**32, 4_099)  # a prime: every bit of a pattern takes part
SIGN, BEND = 1 << 31, (0x3A800000, 0x43000000)  # from 2^-10 to 2^7, where the functions bend


@pytest.fixture(scope="session", params=FLOAT_BUILDS, ids=str)
def walks(request: pytest.FixtureRequest, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Compiled once a session, as the entry points of test_cpp_vector.py."""
    build: Build = request.param
    kept = cache_dir / f"walk-{build}.so"
    if not kept.exists():
        os.replace(build.library(tmp_path_factory.mktemp(str(build)), WALK), kept)
    return ctypes.CDLL(str(kept))


def worst(walks: ctypes.CDLL, name: str, patterns: range) -> tuple[float, float]:
    """The largest error over floats of these bit patterns, in units in the last place, and where it is."""
    walk, where = walks[f"walk_{name}"], ctypes.c_float()
    walk.restype = ctypes.c_double
    first, end, step = map(ctypes.c_uint64, (patterns.start, patterns.stop, patterns.step))
    return walk(first, end, step, ctypes.byref(where)), where.value


@pytest.mark.parametrize("name", NAMES)
def test_every_thousandth_float_is_right_to_two_units(walks: ctypes.CDLL, name: str) -> None:
    dense = [range(sign + BEND[0], sign + BEND[1], 509) for sign in (0, SIGN)]
    for patterns in (ALL, *dense):
        error, where = worst(walks, name, patterns)
        assert error <= BOUND, f"{name}({where.hex()}) is wrong by {error:.3f} units"


@pytest.mark.parametrize("name", NAMES)
def test_every_float_is_right_to_two_units(
    walks: ctypes.CDLL, name: str, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--every-float"):
        pytest.skip("two minutes each: --every-float")
    error, where = worst(walks, name, range(2**32))
    print(f"{name}: {error:.4f} units at {where.hex()}")
    assert error <= BOUND, f"{name}({where.hex()}) is wrong by {error:.3f} units"
