"""Memory for results.

In: a shape. Out: a tensor whose numbers are still to be written. Memory that nobody has written yet costs a fault for
every page, which for large results is as long as computing them; large pages are 512 times as large.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

LARGE_PAGE = 2 << 20
LEAST = 2 * LARGE_PAGE  # bytes of a tensor that has a whole large page in it


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """`torch.empty`, in large pages where it is large and the system has them."""
    made = torch.empty(shape, dtype=dtype)
    size = made.numel() * made.element_size()
    if size >= LEAST and sys.platform == "linux":
        begin = -(-made.data_ptr() // LARGE_PAGE) * LARGE_PAGE
        end = (made.data_ptr() + size) // LARGE_PAGE * LARGE_PAGE
        _madvise()(begin, end - begin, mmap.MADV_HUGEPAGE)  # advice: the kernel may not take it
    return made


@cache
def _madvise() -> ctypes._NamedFuncPointer:
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call
