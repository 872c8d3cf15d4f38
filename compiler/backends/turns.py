"""Compilers take turns: as many at a time as there are cores, and of those that wait what takes longest first.

In: how long a piece of work takes, in any unit. Out: a turn. Without turns all compilers of a first call would share
the cores alike, and the longest would run on alone at the end.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition
from typing import Protocol


class Turns:
    """Turns of one process."""

    def __init__(self, most: int) -> None:
        """`most`: turns at a time."""
        self._free = most
        self._waiting: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._changed = Condition()

    @contextmanager
    def turn(self, length: int) -> Iterator[None]:
        """Wait for a turn, and have it."""
        with self._changed:
            place = -length, next(self._numbers)
            heapq.heappush(self._waiting, place)
            try:
                self._changed.wait_for(lambda: self._free > 0 and self._waiting[0] == place)
                self._free -= 1
            finally:  # whoever is interrupted makes room for the next
                self._waiting.remove(place)
                heapq.heapify(self._waiting)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()


@cache
def turns() -> Turns:
    """Those of this process."""
    renew_in_child(turns)
    return Turns(os.cpu_count() or 1)


class Cached(Protocol):
    """A function that remembers what it has made."""

    def cache_clear(self) -> None: ...


def renew_in_child(owner: Cached) -> None:
    """Have what it has made forgotten in a process that is forked off: threads, and what they hold, stay behind."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=owner.cache_clear)
