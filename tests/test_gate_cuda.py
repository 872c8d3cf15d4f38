"""CUDA C++ through nvcc, without a GPU: the same answers as for Triton."""

from pathlib import Path

import pytest

from rekern.backends import cuda, nvrtc
from rekern.backends.compile import compile_source, toolchain_of
from rekern.backends.cuda import _report_of, compile_cuda, exact_name, nvcc
from rekern.backends.offline import CudaSource
from rekern.errors import BuildError, PlanError
from rekern.gate.run import gate
from rekern.gate.verdicts import Accepted, Candidate
from rekern.hwmodels import load

needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="no nvcc here")

needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC here")

PLAIN = """
extern "C" __global__ void scale(float *x, int n) {
    __shared__ float tile[256];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[(threadIdx.x + n) % 256];
}
"""
PRODUCT = """
#include <mma.h>
using namespace nvcuda;
extern "C" __global__ void product(const half *a, const half *b, float *c) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> left;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> right;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;
    wmma::fill_fragment(sums, 0.0f);
    wmma::load_matrix_sync(left, a, 16);
    wmma::load_matrix_sync(right, b, 16);
    wmma::mma_sync(sums, left, right, sums);
    wmma::store_matrix_sync(c, sums, 16, wmma::mem_row_major);
}
"""
# 128 sums that live through a loop, in a kernel that may use 32 registers
SPILLS = """
extern "C" __global__ void __launch_bounds__(1024, 2) many(float *x, int n) {
    float sums[128];
    #pragma unroll
    for (int i = 0; i < 128; ++i) sums[i] = x[i];
    for (int t = 0; t < n; ++t)
        #pragma unroll
        for (int i = 0; i < 128; ++i) sums[i] = sums[i] * sums[(i + 1) % 128] + x[t];
    #pragma unroll
    for (int i = 0; i < 128; ++i) x[i + threadIdx.x] = sums[i];
}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))


@needs_nvcc
def test_a_kernel_is_compiled_and_read() -> None:
    done = compile_source(CudaSource(PLAIN, "scale", threads=256, dynamic_shared_bytes=4096), "sm_80")
    found = done.resources
    assert (found.shared_bytes, found.threads) == (4096 + 1024, 256)
    assert found.spill_bytes == found.stack_bytes == 0 and 4 <= found.registers <= 32
    assert found.matrix_instructions == ()
    assert done.binary.startswith(b"\x7fELF") and ".target sm_80" in done.assembly


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100", "sm_120"])
def test_matrix_instructions_are_found(architecture: str) -> None:
    found = compile_cuda(CudaSource(PRODUCT, "product", threads=32), architecture).resources
    assert [kind for kind, _ in found.matrix_instructions] == ["HMMA"]


@needs_nvcc
def test_spills_are_read() -> None:
    found = compile_cuda(CudaSource(SPILLS, "many", threads=1024), "sm_90", disassemble=False).resources
    assert found.spill_bytes > 100 and found.stack_bytes > 100 and found.registers == 32


@needs_nvcc
def test_the_gate_judges_it() -> None:
    fits, product, spills = (
        Candidate(CudaSource(PLAIN, "scale", threads=256), matrix_units=False),
        Candidate(CudaSource(PRODUCT, "product", threads=32)),
        Candidate(CudaSource(SPILLS, "many", threads=1024), matrix_units=False),
    )
    first, second, third = gate([fits, product, spills], load("h100_sxm"), timeout=120)
    assert isinstance(first, Accepted) and isinstance(second, Accepted)
    assert str(third).startswith("rejected: spills: a thread spills")


@needs_nvcc
def test_an_error_is_quoted_and_the_source_kept(tmp_path: Path) -> None:
    wrong = CudaSource(PLAIN.replace("tile[threadIdx.x] =", "tale[threadIdx.x] ="), "scale", threads=256)
    with pytest.raises(BuildError) as caught:
        compile_cuda(wrong, "sm_80")
    first, second, third = str(caught.value).splitlines()
    assert first == "nvcc cannot compile scale, 256 threads"
    assert 'error: identifier "tale" is undefined' in second
    kept = Path(third.removeprefix("the source is kept in "))
    assert kept.is_relative_to(tmp_path) and kept.read_text() == wrong.text


@needs_nvcc
def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BuildError, match="cuobjdump names no resources of 'other'"):
        compile_cuda(CudaSource(PLAIN, "other", threads=256), "sm_80")


@needs_nvcc
def test_the_toolchain_has_a_version() -> None:
    assert toolchain_of(CudaSource(PLAIN, "scale", threads=256), "sm_80").startswith("nvcc release 1")


def test_chips_of_others_are_refused() -> None:
    with pytest.raises(PlanError, match="CUDA has no architecture 'gfx942'; expected a name like sm_90"):
        exact_name("gfx942")


def test_a_missing_compiler_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "nvcc", lambda: None)
    monkeypatch.setattr(nvrtc, "library", lambda: None)
    with pytest.raises(BuildError, match=r"no compiler of CUDA found(.|\n)*install the CUDA toolkit, or: pip install"):
        compile_cuda(CudaSource(PLAIN, "scale", threads=256), "sm_90")


@needs_nvrtc
def test_nvrtc_serves_where_there_is_no_nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_nvcc = compile_cuda(CudaSource(PRODUCT, "product", threads=32), "sm_90") if nvcc() else None
    monkeypatch.setattr(cuda, "nvcc", lambda: None)
    done = compile_cuda(CudaSource(PRODUCT, "product", threads=32), "sm_90")
    assert done.binary.startswith(b"\x7fELF") and ".target sm_90a" in done.assembly
    assert [kind for kind, _ in done.resources.matrix_instructions] == ["HMMA"]
    assert with_nvcc is None or done.resources.shared_bytes == with_nvcc.resources.shared_bytes
    assert toolchain_of(CudaSource(PLAIN, "scale", threads=256), "sm_90") == f"nvrtc {nvrtc.version()}"
    with pytest.raises(BuildError, match=r'nvrtc cannot compile k, 32 threads\n.*error: identifier "x" is undefined'):
        compile_cuda(CudaSource("__global__ void k() { x = 1; }", "k", threads=32), "sm_90")


def test_what_ptxas_says_is_told_apart_by_kernel() -> None:
    text = "Compiling entry function 'a' for\nUsed 3\nptxas: Compiling entry function 'b' for\nUsed 4\n"
    assert "Used 4" in _report_of("b", text) and "Used 3" not in _report_of("b", text)
    assert _report_of("c", text) == ""
