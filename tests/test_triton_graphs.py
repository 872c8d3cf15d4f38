"""When the loops of the host are captured, and when a graph is replayed."""

from __future__ import annotations

import pytest
import torch

from rekern.runtime.gpu.graphs import MOST_GRAPHS, Graphs, Work


class Recorder:
    """Writes down what it is asked for. What it captures is not run, as on a GPU."""

    def __init__(self) -> None:
        self.capturing = False
        self.current = 0
        self.captured = 0
        self.replays: list[int] = []

    def is_capturing(self) -> bool:
        return self.capturing

    def stream(self) -> int:
        return self.current

    def capture(self, work: Work) -> Work:
        number = self.captured
        self.captured += 1
        return lambda: self.replays.append(number)


def test_a_call_that_comes_again_is_captured_and_one_after_that_replays() -> None:
    recorder, launched = Recorder(), list[str]()
    graphs = Graphs(recorder)
    for _ in range(4):
        graphs.run(("a",), lambda: launched.append("a"))
    assert launched == ["a"]
    assert (recorder.captured, recorder.replays) == (1, [0, 0, 0])


def test_other_addresses_are_another_graph() -> None:
    recorder, launched = Recorder(), list[str]()
    graphs = Graphs(recorder)
    for key in ("a", "b", "a", "b", "a"):
        graphs.run((key,), lambda key=key: launched.append(key))  # type: ignore[misc]  # a default binds the name now
    assert launched == ["a", "b"]
    assert (recorder.captured, recorder.replays) == (2, [0, 1, 0])


def test_the_graph_that_was_used_last_stays() -> None:
    recorder = Recorder()
    graphs = Graphs(recorder)
    for key in range(MOST_GRAPHS + 1):
        graphs.run((key,), lambda: None)
        graphs.run((key,), lambda: None)
    graphs.run((MOST_GRAPHS,), lambda: None)
    assert recorder.captured == MOST_GRAPHS + 1
    launched = list[int]()
    for _ in range(3):  # the oldest, which has been dropped: capturing it again and again would cost more than it saves
        graphs.run((0,), lambda: launched.append(0))
    assert recorder.captured == MOST_GRAPHS + 1 and launched == [0] * 3


def test_streams_have_graphs_of_their_own() -> None:
    recorder, launched = Recorder(), list[int]()
    graphs = Graphs(recorder)
    for stream in (0, 1, 0, 1):
        recorder.current = stream
        graphs.run(("a",), lambda stream=stream: launched.append(stream))  # type: ignore[misc]  # bound now
    assert launched == [0, 1] and recorder.captured == 2


def test_launches_go_into_a_graph_that_someone_else_captures() -> None:
    recorder, launched = Recorder(), list[str]()
    graphs = Graphs(recorder)
    for capturing in (False, True, True):
        recorder.capturing = capturing
        graphs.run(("a",), lambda: launched.append("a"))
    assert launched == ["a"] * 3
    assert recorder.captured == 0


def test_nothing_is_captured_without_a_gpu() -> None:
    launched = list[str]()
    for _ in range(3):
        Graphs(None).run(("a",), lambda: launched.append("a"))
    assert launched == ["a"] * 3


def test_a_fault_while_capturing_is_told() -> None:
    class Broken(Recorder):
        def capture(self, work: Work) -> Work:
            raise RuntimeError("operation not permitted when stream is capturing")

    graphs = Graphs(Broken())
    graphs.run(("a",), lambda: None)
    with pytest.raises(RuntimeError, match="not permitted"):
        graphs.run(("a",), lambda: None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs of CUDA need a GPU")
def test_a_graph_of_a_gpu_does_the_work_again() -> None:
    from rekern.runtime.gpu.graphs import CudaRecorder

    device = torch.device("cuda", torch.cuda.current_device())
    counter = torch.zeros(1, device=device)
    graphs = Graphs(CudaRecorder(device))
    for _ in range(3):
        graphs.run(("a",), lambda: counter.add_(1))
    assert counter.item() == 3
