"""Turns of compilers: the longest first, never more than there are, and nobody is left behind."""

import threading
import time

import pytest

from rekern.backends.turns import Turns


def test_what_takes_longest_is_next_and_no_more_than_there_are_turns_run_at_once() -> None:
    turns, order, at_once, most = Turns(1), list[int](), [0], [0]

    def work(length: int) -> None:
        with turns.turn(length):
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            order.append(length)
            at_once[0] -= 1

    with turns.turn(0):
        threads = [threading.Thread(target=work, args=(length,)) for length in (3, 9, 1, 7)]
        for thread in threads:
            thread.start()
        while len(turns._waiting) < len(threads):
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == [9, 7, 3, 1] and most == [1]


def test_several_turns_are_had_at_once() -> None:
    turns, together = Turns(3), threading.Barrier(3)

    def work() -> None:
        with turns.turn(1):
            together.wait(timeout=10)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken


def test_a_turn_ends_with_an_error_and_so_does_waiting_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(1)
    with pytest.raises(ValueError), turns.turn(1):
        raise ValueError
    with turns.turn(1), monkeypatch.context() as patch:
        patch.setattr(turns._changed, "wait_for", lambda found: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt), turns.turn(2):
            pass
    with turns.turn(1):
        assert turns._waiting == []
