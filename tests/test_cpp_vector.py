"""The C++ headers under every kernel: vectors, their functions, rows of any dtype, products."""

import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

from cpp_headers import BUILDS, FLAGS, HEADERS, Array, Build, Library


@pytest.fixture(scope="session", params=BUILDS, ids=str)
def lib(request: pytest.FixtureRequest, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Compiled once a session: a second test worker finds the first one's library."""
    build: Build = request.param
    kept = cache_dir / f"entry_points-{build}.so"
    if not kept.exists():
        os.replace(build.library(tmp_path_factory.mktemp(str(build))), kept)
    return Library(build, kept)


# ---- Functions -----------------------------------------------------------------------------------

MEANING: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "abs": np.abs,
    "sign": lambda x: np.nan_to_num(np.sign(x)),
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
    "log_sigmoid": lambda x: np.minimum(x, -0.0) - np.log1p(np.exp(-np.abs(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * np.array([math.erfc(v) for v in -x / math.sqrt(2)]),
    "silu": lambda x: x * np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
    "square": np.square,
    "erf": lambda x: np.array([math.erf(v) for v in x]),
}
ULPS = dict.fromkeys(MEANING, 2.0) | {"silu": 3.0, "sqrt": 0.501, "square": 0.501, "abs": 0.0, "sign": 0.0}


def all_floats(dtype: type, step: int) -> Array:
    """Every step-th float by bit pattern, NaNs among them; denser where functions bend."""
    patterns = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.random.default_rng(0).uniform(-20, 20, len(patterns) // 4).astype(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 88.72284, -87.33655, -103.98], np.float32)
    with np.errstate(invalid="ignore"):     # signalling NaNs among the patterns
        return np.concatenate([patterns, near, special]).astype(dtype)


def ulps(got: Array, want: Array) -> Array:
    """Distance of each float32 from the float64, in units of the float32 next to it."""
    exponent = np.maximum(np.frexp(want)[1], -125)
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = want.astype(np.float32)
        error = np.abs(got.astype(np.float64) - want) * np.ldexp(1.0, 24 - exponent)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(same, np.where(np.isfinite(got), error, 0), np.where(np.isfinite(error), error, np.inf))


@pytest.mark.parametrize("name", MEANING)
def test_lanes_and_single_reals_give_the_same_bits(lib: Library, name: str) -> None:
    x = all_floats(lib.build.dtype, 130_003)
    np.testing.assert_array_equal(lib.apply(name, x), lib.apply(name, x, how="single"))


@pytest.mark.parametrize("lib", [build for build in BUILDS if build.real == "float"], ids=str, indirect=True)
@pytest.mark.parametrize("name", MEANING)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_are_right_to_two_units_over_all_floats(lib: Library, name: str) -> None:
    x = all_floats(np.float32, 50_021 if name in ("gelu", "erf") else 4_099)
    want, got = MEANING[name](x.astype(np.float64)), lib.apply(name, x)
    error = ulps(got, want)
    if name == "silu":      # multiplies what exp has already rounded to a subnormal
        error[np.abs(got - want) < 1e-42] = 0
    worst = int(np.argmax(error))
    assert error[worst] <= ULPS[name], f"{name}({x[worst]}) is {got[worst]}, not {want[worst]}"


@pytest.mark.parametrize("name", MEANING)
@pytest.mark.parametrize("how", ("lanes", "single"))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinities_and_nan_give_what_the_formula_gives(lib: Library, name: str, how: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(lib.apply(name, lib.array(x), how=how), MEANING[name](x))


@pytest.mark.parametrize("name", ("log1p", "expm1", "tanh", "sin", "erf", "abs", "square"))
def test_zero_keeps_its_sign_and_the_smallest_numbers_survive(lib: Library, name: str) -> None:
    tiny = np.finfo(lib.build.dtype).smallest_subnormal
    x = lib.array([0.0, -0.0, tiny, -tiny])
    want = np.abs(x) if name == "abs" else x * x if name == "square" else x
    if name == "erf":
        want = lib.array([0.0, -0.0, *(2 / math.sqrt(math.pi) * x[2:])])
    for how in ("lanes", "single"):
        assert lib.apply(name, x, how=how).tobytes() == lib.array(want).tobytes()


EXACT: dict[str, Callable[[Any], Any]] = {
    name: getattr(mpmath, name) for name in ("exp", "log", "log1p", "expm1", "tanh")
} | {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log_sigmoid": lambda x: -mpmath.log1p(mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
}


@pytest.mark.parametrize("name", EXACT)
def test_functions_of_doubles_keep_their_relative_accuracy_in_both_tails(lib: Library, name: str) -> None:
    x = np.concatenate([np.logspace(-12, 2.4, 60), [0.3, 0.5, 1.0, 30.0]])
    x = lib.array(np.concatenate([x, -x] if name not in ("log", "log1p") else [x]))
    if name == "gelu":
        x = x[np.abs(x) < 20]
    with mpmath.workdps(200):
        want = np.array([float(EXACT[name](mpmath.mpf(float(v)))) for v in x])
    usable = np.abs(want) < np.finfo(lib.build.dtype).max
    usable &= np.abs(want) > np.finfo(lib.build.dtype).tiny * 1e3
    rtol = {"gelu": 100, "silu": 4}.get(name, 3) * np.finfo(lib.build.dtype).eps
    np.testing.assert_allclose(lib.apply(name, x)[usable], want[usable], rtol=rtol, atol=0)


@pytest.mark.parametrize("name", ("maximum", "minimum", "logaddexp"))
@pytest.mark.parametrize("how", ("lanes", "single"))
def test_functions_of_two_agree_with_numpy_at_infinities_and_nan(lib: Library, name: str, how: str) -> None:
    few = lib.array([0.0, -1.5, 3.0, 1e-30, 80.0, -200.0, np.inf, -np.inf, np.nan])
    a, b = (grid.ravel() for grid in np.meshgrid(few, few))
    got = lib.apply(name, a, b, how)
    with np.errstate(invalid="ignore"):
        want = getattr(np, name)(a.astype(np.float64), b.astype(np.float64)).astype(lib.build.dtype)
    np.testing.assert_allclose(got, want, rtol=0 if name != "logaddexp" else 3 * np.finfo(want.dtype).eps)


# ---- Lanes ---------------------------------------------------------------------------------------

def test_lanes_are_summed_compared_chosen_and_gathered(lib: Library) -> None:
    x = lib.array(np.random.default_rng(0).normal(size=64))
    y = lib.zeros(64)
    lib("reductions", y, x)
    np.testing.assert_allclose(y[0], x[:lib.lanes].sum(dtype=np.float64), rtol=1e-5)
    assert (y[1], y[2]) == (x[:lib.lanes].max(), x[:lib.lanes].min())
    for lane in range(lib.lanes):
        poisoned = x.copy()
        poisoned[lane] = np.nan
        lib("reductions", y, poisoned)
        assert np.isnan(y[:3]).all()
    for n in (-3, 0, 1, lib.lanes - 1, lib.lanes, 2**40):
        lib("keep_first", y, x, n)
        np.testing.assert_array_equal(y[:lib.lanes], np.where(np.arange(lib.lanes) < n, x[:lib.lanes], -1))
    for stride in (0, 1, 3):
        lib("gathered", y, x, stride)
        np.testing.assert_array_equal(y[:lib.lanes], x[np.arange(lib.lanes) * stride])
    lib("mixed", y, x * 3)
    np.testing.assert_array_equal(y[:lib.lanes], np.clip(x[:lib.lanes] * 3, -0.5, 2))
    lib("copy_of", y, -0.0)
    assert np.signbit(y[:lib.lanes]).all()


# ---- Rows ----------------------------------------------------------------------------------------

def to_bfloat16(x: Array) -> Array:
    """Bits of the nearest bfloat16, ties to even: scaled so that rint rounds the right bit."""
    with np.errstate(invalid="ignore", over="ignore"):
        unit = np.ldexp(1.0, np.maximum(np.frexp(x)[1], -125) - 8)
        nearest = (np.rint(x / unit) * unit).astype(np.float32)
    return (nearest.view(np.uint32) >> 16).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


DTYPES = {"F32": 0, "F64": 1, "BF16": 2, "F16": 3}
STORAGE: dict[str, type] = {"F32": np.float32, "F64": np.float64, "BF16": np.uint16, "F16": np.float16}


def encode(x: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        return to_bfloat16(x.astype(np.float64)) if dtype == "BF16" else x.astype(STORAGE[dtype])


def decode(x: Array, dtype: str) -> Array:
    return from_bfloat16(x) if dtype == "BF16" else x


def awkward(dtype: type) -> Array:
    """Numbers that are hard to round to 16 bits: each half type's values and the middles between them."""
    halves = np.arange(2**16, dtype=np.uint16)
    values = [halves.view(np.float16), from_bfloat16(halves)]
    exact = np.concatenate([v[np.isfinite(v)].astype(np.float64) for v in values])
    exact = np.unique(exact)
    middles = (exact[1:] + exact[:-1]) / 2
    x = np.concatenate([exact, middles, [np.inf, -np.inf, 65519.99, 65520.0, -0.0]])
    below, above = np.nextafter(x.astype(dtype), dtype(-np.inf)), np.nextafter(x.astype(dtype), dtype(np.inf))
    return np.concatenate([x.astype(dtype), below, above])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_to_nearest_even(lib: Library, dtype: str) -> None:
    x = awkward(lib.build.dtype)
    got = np.zeros(len(x), STORAGE[dtype])
    lib("out", got, x, len(x), 1, DTYPES[dtype])
    assert got.tobytes() == encode(x, dtype).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_every_half_value_come_in_as_they_are(lib: Library, dtype: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    halves = dtype in ("BF16", "F16")
    stored = bits.view(STORAGE[dtype]) if halves else encode(awkward(lib.build.dtype), dtype)
    got, back = lib.zeros(len(stored)), np.zeros_like(stored)
    lib("in", got, stored, len(stored), 1, DTYPES[dtype])
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(got, decode(stored, dtype).astype(lib.build.dtype))
    nans = lib.array([np.nan, -np.nan])
    lib("out", back, nans, 2, 1, DTYPES[dtype])
    assert np.isnan(decode(back[:2], dtype)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", (1, 2, 7, 16, 17, 33, 64, 100))
def test_rows_go_in_with_zeros_behind_and_out_with_nothing_behind(lib: Library, dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    for stride in (1, 3):
        stored = encode(rng.normal(size=n * stride), dtype)
        row = lib.array(np.full(n + 2 * lib.lanes, 7))
        lib("in", row, stored, n, stride, DTYPES[dtype])
        padded = -(-n // lib.lanes) * lib.lanes
        np.testing.assert_array_equal(row[:n], decode(stored[::stride], dtype).astype(row.dtype))
        assert (row[n:padded] == 0).all() and (row[padded:] == 7).all()
        back = np.zeros_like(stored)
        lib("out", back, row, n, stride, DTYPES[dtype])
        np.testing.assert_array_equal(back[::stride], encode(row[:n], dtype))
        assert stride == 1 or (back[1::stride] == 0).all()
        again = np.zeros_like(stored)
        lib("one", again, stored, n - 1, DTYPES[dtype])
        assert again[n - 1] == encode(decode(stored, dtype).astype(row.dtype), dtype)[n - 1]
    scratch = lib.zeros(n + lib.lanes)
    own = STORAGE[dtype] is lib.build.dtype
    assert lib("is_copied", scratch, stored, n, DTYPES[dtype]) == (0 if own and n % lib.lanes == 0 else 1)
    sums = row.copy()
    lib("add", sums, row, n)
    np.testing.assert_array_equal(sums, np.concatenate([row[:n] * 2, row[n:]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows,cols", ((1, 1), (3, 5), (16, 16), (17, 300), (40, 31), (1, 20), (20, 1)))
def test_blocks_are_transposed_whatever_their_strides(lib: Library, dtype: str, rows: int, cols: int) -> None:
    rng = np.random.default_rng(rows * cols)
    padded = -(-rows // lib.lanes) * lib.lanes
    for row_stride, col_stride in ((cols + 2, 1), (1, rows + 1), (2 * cols, 2)):
        stored = encode(rng.normal(size=rows * row_stride + cols * col_stride), dtype)
        r, c = np.ogrid[:rows, :cols]
        want = decode(stored, dtype).astype(lib.build.dtype)[r * row_stride + c * col_stride].T
        got = lib.array(np.full((cols, padded + 3), 7))
        lib("turn", got, padded + 3, stored, rows, cols, row_stride, col_stride, DTYPES[dtype])
        np.testing.assert_array_equal(got[:, :rows], want)
        assert (got[:, rows:padded] == 0).all() and (got[:, padded:] == 7).all()


@pytest.mark.parametrize("count", (1, 4, 17, 64))
def test_sums_of_rows_are_the_sums_of_their_lanes(lib: Library, count: int) -> None:
    padded = -(-count // lib.lanes) * lib.lanes
    rows = lib.array(np.random.default_rng(count).integers(-99, 99, size=(padded, lib.lanes)))
    sums = lib.array(np.full(padded + 3, 7))
    lib("join", sums, rows, count)
    np.testing.assert_array_equal(sums, np.append(rows.sum(1), [7, 7, 7]))


# ---- Products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", (*range(1, 15), 16, 23, 64))
def test_products_agree_with_numpy_and_do_not_depend_on_the_tile(lib: Library, rows: int) -> None:
    rng = np.random.default_rng(rows)
    for vecs, depth in ((1, 1), (2, 5), (3, 16), (4, 7), (5, 33), (7, 2), (11, 20), (16, 64)):
        width = vecs * lib.lanes
        stride = width + lib.lanes
        x = lib.array(rng.normal(size=(rows, depth + 3)))
        w, y, base = lib.zeros(depth, stride), lib.zeros(rows, stride), lib.zeros(rows, stride)
        w[:, :width], base[:] = rng.normal(size=(depth, width)), rng.normal(size=base.shape)
        # Two weights side by side, the first of which has columns to spare.
        own, dtype = lib.lanes * (vecs // 2), int(lib.build.real == "double")
        panels = lib.zeros(lib("pack", None, own, w, width - own, depth, 1, stride, dtype))
        first = own - 1 if own else 0
        w[:, first:own] = 0
        lib("pack", panels, 0, w, first, depth, 1, stride, dtype)
        lib("pack", panels, own, w[:, own:], width - own, depth, 1, stride, dtype)
        want = x[:, :depth].astype(np.float64) @ w[:, :width]
        shape = (rows, depth, width)
        for onto in (0, 1):
            y[:] = base
            lib("product", y, stride, x, depth + 3, panels, *shape, onto)
            bound = (depth + 2) * np.finfo(y.dtype).eps * (np.abs(x[:, :depth]) @ np.abs(w[:, :width]) + 3)
            assert (np.abs(y[:, :width] - (want + onto * base[:, :width])) <= bound).all()
            np.testing.assert_array_equal(y[:, width:], base[:, width:])
            alone = base.copy()
            for r in range(rows):
                lib("product", alone[r], stride, x[r], depth + 3, panels, 1, depth, width, onto)
            np.testing.assert_array_equal(alone, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_panels_hold_the_matrix_and_zeros(lib: Library, dtype: str) -> None:
    """Zeros up to a whole vector, from any vector on; what is beside stays."""
    out, depth = 2 * lib.panel + 3, 13
    matrix = encode(np.random.default_rng(0).normal(size=(out, depth)), dtype)
    for stored, strides in ((matrix, (depth, 1)), (np.ascontiguousarray(matrix.T), (1, out))):
        for first in (0, lib.lanes, lib.panel - lib.lanes, lib.panel):
            end, whole = first + out, first + 2 * lib.panel + -(-3 // lib.lanes) * lib.lanes
            panels = lib.array(np.full((-(-end // lib.panel), depth, lib.panel), 7))
            assert lib("pack", panels, first, stored, out, depth, *strides, DTYPES[dtype]) == panels.size
            got = panels.transpose(1, 0, 2).reshape(depth, -1)
            np.testing.assert_array_equal(got[:, first:end], decode(matrix, dtype).astype(panels.dtype).T)
            assert (got[:, end:whole] == 0).all()
            assert (got[:, :first] == 7).all() and (got[:, whole:] == 7).all()


@pytest.mark.parametrize("strides", [(20, 1), (24, 1), (1, 8)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fingerprints_tell_of_every_bit(lib: Library, strides: tuple[int, int], dtype: str) -> None:
    if lib.build.real == "float" and dtype == "F64":
        pytest.skip("calls with float64 are made in double")
    rows, columns = 7, 20
    places = np.add.outer(np.arange(rows) * strides[0], np.arange(columns) * strides[1])
    values = encode(np.random.default_rng(0).normal(size=places.max() + 1), dtype)
    words = values.view(f"u{values.itemsize}")
    layout = (rows, columns, *strides, DTYPES[dtype])
    seen = {lib("mark", words, *layout)}
    flips = [(place, bit) for place in places.flat for bit in range(8 * words.itemsize)]
    for place, bit in (flip := [*flips[::37], *flips[-64:]]):
        words[place] ^= words.dtype.type(1 << bit)
        seen.add(lib("mark", words, *layout))
        words[place] ^= words.dtype.type(1 << bit)
    assert len(seen) == 1 + len(set(flip))
    between = sorted({*range(len(words))} - {*places.flat})
    words[between] ^= words.dtype.type(1)  # what lies between rows is no part of it
    assert lib("mark", words, *layout) in seen


def test_fingerprints_tell_of_order_and_signs(lib: Library) -> None:
    w = lib.array(np.random.default_rng(0).normal(size=4096))
    dtype = DTYPES["F32" if lib.build.real == "float" else "F64"]

    def mark(values: Array) -> int:
        return lib("mark", np.ascontiguousarray(values), 1, values.size, values.size, 1, dtype)

    seen = {mark(v) for v in (w, -w, w[::-1], np.roll(w, 1), np.roll(w, 512), w * 2)}
    for n in range(0, 2048, 64):  # pairs that a sum, or an exclusive or, would take for the same
        changed, signs = w.copy(), w.copy()
        changed[[n, n + 2048]] = changed[[n + 2048, n]]
        signs[[n, n + 63, n + 64, n + 2047]] *= -1
        seen |= {mark(changed), mark(signs)}
    assert len(seen) == 6 + 32 + 32


def test_headers_leave_nothing_where_they_are_not_used(tmp_path: Path) -> None:
    Build("float", 16).headers(tmp_path)
    source = tmp_path / "empty.cpp"
    source.write_text("".join(f'#include "{name}.h"\n' for name in HEADERS) + "int main() {}\n")
    subprocess.run(["g++", *FLAGS, "-c", source, "-o", tmp_path / "empty.o"], check=True)
    code = subprocess.run(["nm", tmp_path / "empty.o"], check=True, capture_output=True, text=True).stdout
    assert [line.split()[-1] for line in code.splitlines() if line.split()[-2] in "TtWw"] == ["main"]
