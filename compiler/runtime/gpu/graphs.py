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
MOST_GRAPHS = 32  # of one kind of call (layers that are alike share it): each holds memory for what launches allocate
MOST_SEEN = 256  # sets of addresses that are remembered without a graph


class Recorder(Protocol):
    """What captures launches."""

    def is_capturing(self) -> bool:
        """Whether someone else captures what is launched now."""

    def stream(self) -> int:
        """A number of the stream that launches go to now."""

    def capture(self, work: Work) -> Work:
        """What `work` launches, as one launch. It has run before, and is not run now."""


class Graphs:
    """The graphs of one pass of one kind of call."""

    def __init__(self, recorder: Recorder | None) -> None:
        """`recorder`: None where nothing can be captured, as in the interpreter."""
        self._recorder = recorder
        self._graphs: Latest[Work] = Latest(MOST_GRAPHS)
        self._seen: Latest[bool] = Latest(MOST_SEEN)  # whether a graph was made of them

    def run(self, key: tuple[object, ...], work: Work) -> None:
        """Do `work`, which does the same for every call with this key."""
        if self._recorder is None or self._recorder.is_capturing():
            work()
            return
        key = *key, self._recorder.stream()  # what one stream replays, another may not touch meanwhile
        graph = self._graphs.get(key)
        if graph is None:
            captured = self._seen.get(key)
            if captured is not False:  # it is new; or its graph was dropped, and so would be the next one
                self._seen.put(key, bool(captured))
                work()
                return
            graph = self._recorder.capture(work)
            self._graphs.put(key, graph)
            self._seen.put(key, True)
        graph()


class CudaRecorder:
    """Graphs of CUDA and HIP."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sides: dict[int, torch.cuda.Stream] = {}  # by the stream that replays: cuBLAS has memory for each stream

    def is_capturing(self) -> bool:
        with torch.cuda.device(self._device):
            return torch.cuda.is_current_stream_capturing()

    def stream(self) -> int:
        return torch.cuda.current_stream(self._device).cuda_stream

    def capture(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._device)
        side = self._sides.get(current.cuda_stream) or torch.cuda.Stream(self._device)
        self._sides[current.cuda_stream] = side
        with torch.cuda.device(self._device):
            torch.cuda.current_blas_handle()  # a thread makes its own when it first multiplies, which no graph may hold
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
