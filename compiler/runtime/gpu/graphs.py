"""Loops of the host as graphs: launched one by one once, captured when they come again, replayed from then on.

In: a function that launches, and a key that says with which tensors. Out: the same work, in one launch of a graph.

A graph holds addresses. Inputs could be copied to fixed ones, at the price of their traffic at every call; so there is
a graph for each set of addresses instead, operands, results and all. Torch hands out the same memory again to a program
that asks for the same sizes in the same order, so a loop of training or of generation soon comes round to addresses
that it had before. A set that comes once costs nothing but the launches; only one that comes again is captured. What
the launches allocate is the graph's own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch

from rekern.runtime.calls import Latest

Work = Callable[[], None]
MOST_GRAPHS = 4  # of one kind of call: each holds memory for what its launches allocate
MOST_SEEN = 256  # sets of addresses that are remembered without a graph


class Recorder(Protocol):
    """What captures launches."""

    def is_capturing(self) -> bool:
        """Whether someone else captures what is launched now."""

    def capture(self, work: Work) -> Work:
        """What `work` launches, as one launch. It has run before, and is not run now."""


class Graphs:
    """The graphs of one pass of one kind of call."""

    def __init__(self, recorder: Recorder | None) -> None:
        """`recorder`: None where nothing can be captured, as in the interpreter."""
        self._recorder = recorder
        self._graphs: Latest[Work] = Latest(MOST_GRAPHS)
        self._seen: Latest[bool] = Latest(MOST_SEEN)

    def run(self, key: tuple[object, ...], work: Work) -> None:
        """Do `work`, which does the same for every call with this key."""
        if self._recorder is None or self._recorder.is_capturing():
            work()
            return
        graph = self._graphs.get(key)
        if graph is None:
            if self._seen.get(key) is None:
                self._seen.put(key, True)
                work()
                return
            graph = self._recorder.capture(work)
            self._graphs.put(key, graph)
        graph()


class CudaRecorder:
    """Graphs of CUDA and HIP."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def is_capturing(self) -> bool:
        with torch.cuda.device(self._device):
            return torch.cuda.is_current_stream_capturing()

    def capture(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        current, side = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            # Other threads may allocate and wait meanwhile: only what this one does has to be fit for a graph.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with suppress(RuntimeError):  # the capture is broken: what broke it is to be told
                    graph.capture_end()
                raise
            graph.capture_end()
        current.wait_stream(side)

        def replay() -> None:
            with torch.cuda.device(self._device):  # whose current stream is meant
                graph.replay()

        return replay
