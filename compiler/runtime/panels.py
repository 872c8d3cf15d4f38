"""Weights laid out for products, kept from call to call.

In: what a pass does with its weights, their addresses, and the tensors. Out: an `Entry`, memory that a call has to
itself; the pass leaves the panels there and, if it is asked to, fingerprints of the weights that they were made from.

Only fingerprints decide that panels are still right: a weight can change in ways that nobody is told of, and another
may lie where it was. They are taken from the numbers at every call that would use panels again. A version that torch
has counted up only says that there is no need to look.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from rekern.runtime.memory import HUGE_PAGE, Shelf

SHARE = 16  # of the machine's memory that may hold panels between calls: one part in so many
MOST = 256  # kinds of panels that wait
NOT_MARKED, TO_BE_MARKED, MARKED = range(3)  # `PanelsState` of templates/cpp/arrays.h

Key = tuple[int, ...]
Versions = list[int] | None


@dataclass(eq=False, slots=True)
class Entry:
    """Memory for panels.

    state: what the memory holds when a call begins, by `PanelsState`.
    versions: those of the weights when it was filled; None: torch counts none.
    storages: the memory of the weights, which an entry does not keep alive.
    """

    memory: Tensor
    address: int
    storages: tuple[StorageWeakRef, ...]
    versions: Versions
    state: int = NOT_MARKED

    @property
    def dead(self) -> bool:
        """Whether a weight that it was made from is gone."""
        return any(s.expired() for s in self.storages)


class Kept:
    """Entries that wait for a call, the longest waiting first. A call takes one out and puts it back."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting: OrderedDict[Key, list[Entry]] = OrderedDict()
        self._bytes = 0  # of all that wait
        self._lock = Lock()
        self._shelf = Shelf(most, HUGE_PAGE)  # where the memory of entries goes that are dropped

    def take(self, key: Key, weights: Sequence[Tensor], count: int, real: torch.dtype) -> Entry:
        """An entry with room for `count` numbers that no other call has.

        A call that fails midway does not put it back: nobody knows what is in it.
        """
        versions: Versions
        try:
            versions = [t._version for t in weights]
        except RuntimeError:  # of inference tensors torch counts none
            versions = None
        with self._lock:
            waiting = self._waiting.get(key)
            entry = waiting.pop() if waiting else None
            if entry is None:
                self._drop_dead()
            else:
                self._bytes -= entry.memory.nbytes
        if entry is None:
            return self._new(weights, versions, count, real)
        if entry.versions != versions:
            entry.storages = storages(weights)  # another weight may lie where the last one was
            entry.versions, entry.state = versions, NOT_MARKED
        elif entry.state != MARKED:  # weights that stay the same for two calls may do so for more
            entry.state += 1
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Have an entry wait for the next call."""
        if entry.memory.nbytes > self.most:  # all others would go for it
            return
        with self._lock:
            self._waiting.setdefault(key, []).append(entry)
            self._waiting.move_to_end(key)
            self._bytes += entry.memory.nbytes
            while self._bytes > self.most or len(self._waiting) > MOST:
                self._drop(next(iter(self._waiting)))

    def release(self) -> None:
        """Give all memory that waits back to the system."""
        with self._lock:
            self._waiting.clear()
            self._bytes = 0
        self._shelf.release()

    def idle(self) -> int:
        """Bytes that wait."""
        with self._lock:
            return self._shelf.idle() + self._bytes

    def _new(self, weights: Sequence[Tensor], versions: Versions, count: int, real: torch.dtype) -> Entry:
        size = count * real.itemsize
        if HUGE_PAGE // 4 <= size < HUGE_PAGE:  # worth a page of its own
            count = HUGE_PAGE // real.itemsize
        memory = self._shelf.empty((count,), real)
        return Entry(memory, memory.data_ptr(), storages(weights), versions)

    def _drop_dead(self) -> None:
        """Drop what was made from weights that are gone."""
        for key in [key for key, entries in self._waiting.items() if entries and entries[0].dead]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self._bytes -= sum(e.memory.nbytes for e in self._waiting.pop(key))


def storages(weights: Sequence[Tensor]) -> tuple[StorageWeakRef, ...]:
    return tuple([StorageWeakRef(t.untyped_storage()) for t in weights])


KEPT = Kept(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE)
take, put, release = KEPT.take, KEPT.put, KEPT.release
