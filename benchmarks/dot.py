"""The kernel of benchmarks/gate.py: one matrix product in a loop over K, rows of any length, masked at the edges."""

import triton
import triton.language as tl


@triton.jit
def matmul(
    a_ptr, b_ptr, c_ptr, m, n, k, a_stride, b_stride, c_stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    a = a_ptr + rows[:, None] * a_stride + inner[None, :]
    b = b_ptr + inner[:, None] * b_stride + columns[None, :]
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        left = tl.load(a, mask=inner[None, :] < k - start, other=0.0)
        right = tl.load(b, mask=inner[:, None] < k - start, other=0.0)
        sums = tl.dot(left, right, sums)
        a += BK
        b += BK * b_stride
    c = c_ptr + rows[:, None] * c_stride + columns[None, :]
    tl.store(c, sums.to(c_ptr.dtype.element_ty), mask=(rows[:, None] < m) & (columns[None, :] < n))
