"""Memory for large results, kept from call to call.

In: a shape and a dtype. Out: a tensor whose numbers are not set.

The first write to a page of fresh memory costs more than ten times as much as any later one (1.3 us for 4 KiB on
the machine of hwmodels/x86_avx512.toml), and a C library hands large blocks back to the system as soon as they are
free: a call that makes its results afresh spends most of its time on pages. Here a block waits on a shelf when its
last tensor is gone, and the next call of that size takes it. A block that nobody takes for a while goes back.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SMALLEST = 1 << 18  # bytes; below, the C library keeps its memory itself
PATIENCE = 256  # tensors made from other blocks, after which a block that waits goes back to the system
HUGE_PAGE = 1 << 21  # bytes
SHARE = 8  # of the machine's memory that may wait on the shelf: one part in so many


@dataclass
class Block:
    """Memory of the system, from byte `first` on.

    since: the number of tensors that had been made when it was put on the shelf.
    """

    memory: mmap.mmap
    size: int
    first: int = 0
    since: int = 0


class Shelf:
    """Blocks that wait for a tensor, the longest waiting first."""

    def __init__(self, most_idle: int, huge: int | None = None) -> None:
        """`huge`: from how many bytes on a block is on huge pages, if the system has any."""
        self.most_idle = most_idle
        self.huge = huge
        self.made = 0
        self.waiting: list[Block] = []
        self.returned: deque[Block] = deque()  # where any thread puts a block down, in the midst of whatever it does
        self.lock = Lock()

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A dense tensor with whatever numbers are in its memory."""
        count = math.prod(shape)
        size = count * dtype.itemsize
        if size < SMALLEST:
            return torch.empty(tuple(shape), dtype=dtype)
        block = self._take(rounded(size))
        # Torch holds the array as long as there is a tensor on it; the array holds the block.
        array = (ctypes.c_char * block.size).from_buffer(block.memory, block.first)
        weakref.finalize(array, self.returned.append, block).atexit = False
        return torch.frombuffer(array, dtype=dtype, count=count).view(tuple(shape))

    def release(self) -> None:
        """Give all memory that waits back to the system."""
        with self.lock:
            self.returned.clear()
            self.waiting.clear()

    def idle(self) -> int:
        """Bytes that wait."""
        with self.lock:
            self._put_in_order()
            return sum(b.size for b in self.waiting)

    def _take(self, size: int) -> Block:
        with self.lock:
            self.made += 1
            self._put_in_order()
            fits = [b for b in self.waiting if b.size == size]
            if fits:  # the one put down last is the likeliest to be in a cache
                self.waiting.remove(fits[-1])
                return fits[-1]
        if self.huge is not None and size >= self.huge:
            return on_huge_pages(size)
        return Block(mmap.mmap(-1, size, flags=FLAGS), size)

    def _put_in_order(self) -> None:
        while self.returned:
            block = self.returned.popleft()
            block.since = self.made
            self.waiting.append(block)
        idle = sum(b.size for b in self.waiting)
        while self.waiting and (idle > self.most_idle or self.made - self.waiting[0].since > PATIENCE):
            idle -= self.waiting.pop(0).size


def on_huge_pages(size: int) -> Block:
    """A block at the beginning of a huge page, of which the system is asked to take such pages.

    One page lies in one piece: what is read again and again then uses all of a cache, and few entries of the tables
    that addresses are looked up in.
    """
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=FLAGS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return Block(memory, size, -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % HUGE_PAGE)


def rounded(size: int) -> int:
    """`size` rounded up by at most an eighth, so that calls of nearly one size share their blocks.

    >>> [rounded(n) for n in (1 << 20, (1 << 20) + 1, 1_900_000)]
    [1048576, 1179648, 1966080]
    """
    step = max(mmap.PAGESIZE, 1 << (size.bit_length() - 4))
    return -(-size // step) * step


SHELF = Shelf(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE)
empty = SHELF.empty
release = SHELF.release
