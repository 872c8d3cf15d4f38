"""Weights laid out for products are kept from call to call: every change of a weight must be noticed."""

import gc
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kernel_checks import FORWARD, agree, draw, error, exact, only
from rekern import zoo
from rekern.api import compile
from rekern.reference import reference
from rekern.runtime import launch, panels
from rekern.runtime.memory import HUGE_PAGE
from rekern.runtime.panels import MARKED, NOT_MARKED, TO_BE_MARKED, Kept
from rekern.spec import Recurrence

LARGE = {"D": 100}  # of which panels are kept
BFLOAT = 1e-2  # results are rounded to 8 bits
TOLERANCE = {torch.bfloat16: BFLOAT, torch.float16: 2e-3, **FORWARD}

Change = Callable[[Tensor], None]


def in_place(weight: Tensor) -> None:
    with torch.no_grad():
        weight.mul_(-1)


def past_the_version(weight: Tensor) -> None:
    weight.data.mul_(-1)


def one_bit(weight: Tensor) -> None:
    """The lowest bit of the last number's exponent, behind torch's back."""
    bits = {torch.float32: 23, torch.float64: 52, torch.bfloat16: 7, torch.float16: 10}[weight.dtype]
    words = weight.detach().view(getattr(torch, f"int{8 * weight.element_size()}")).numpy()
    words[..., -1, -1] ^= words.dtype.type(1 << bits)


def other_memory(weight: Tensor) -> None:
    weight.set_(-weight.detach())


CHANGES: list[Change] = [in_place, past_the_version, one_bit, other_memory]


@pytest.fixture(autouse=True)
def fresh() -> None:
    panels.release()


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In what state the entries were that calls took."""
    taken: list[int] = []
    take = panels.take

    def watched(*args: Any) -> panels.Entry:
        entry = take(*args)
        taken.append(entry.state)
        return entry

    monkeypatch.setattr(panels, "take", watched)
    return taken


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("time", [1, 2, 7])
def test_every_change_of_a_weight_is_noticed(time: int, dtype: torch.dtype, change: Change, states: list[int]) -> None:
    kernel = compile(zoo.lstm)
    operands, first = draw(zoo.lstm, time=time, sizes=LARGE, dtype=dtype)
    for n in range(6):
        if n == 4:
            change(operands["R"])
        actual = only(kernel(**operands, state=first)[0])
        expected = only(reference(zoo.lstm, exact(operands), exact(first))[0])
        assert error(actual, expected) < TOLERANCE[dtype], n
    assert states[:4] == [NOT_MARKED, TO_BE_MARKED, MARKED, MARKED]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("spec", [zoo.lstm, zoo.gru, zoo.layer_norm_lstm], ids=str)
def test_gradients_notice_too(spec: Recurrence, change: Change, states: list[int]) -> None:
    operands, first = draw(spec, time=5, sizes=LARGE)
    for n in range(5):
        if n == 3:
            change(operands["R"])
        agree(spec, operands, first)
    assert MARKED in states


@pytest.mark.parametrize("change", CHANGES)
def test_steps_notice_too(change: Change, states: list[int]) -> None:
    kernel = compile(zoo.lstm)
    operands, first = draw(zoo.lstm, time=1, sizes=LARGE)
    now = {**operands, "x": operands["x"][:, 0]}
    for n in range(6):
        if n == 4:
            change(operands["R"])
        actual = only(kernel.step(**now, state=first)[0])
        expected = only(reference(zoo.lstm, exact(operands), exact(first))[0])[:, 0]
        assert error(actual, expected) < 1e-5, n
    assert MARKED in states


def test_other_weights_at_the_same_place(states: list[int]) -> None:
    """A weight is freed, and another one lies where it was, as young as the first."""
    kernel = compile(zoo.lstm)
    operands, first = draw(zoo.lstm, time=4, sizes=LARGE)
    memory = np.empty(operands["R"].numel(), np.float32)
    values = operands.pop("R")
    for factor in (1, -1, 0.5):
        memory[:] = (factor * values).flatten().numpy()
        weight = torch.from_numpy(memory).view(values.shape)
        for _ in range(3):
            expected = only(reference(zoo.lstm, exact({**operands, "R": weight}), exact(first))[0])
            assert error(only(kernel(**operands, R=weight, state=first)[0]), expected) < 1e-5
        del weight
        gc.collect()
    assert states.count(MARKED) == 7


def test_the_same_memory_seen_in_other_ways() -> None:
    """Turned, with shared heads, with heads in another order, with gaps between rows: none is taken for another."""
    operands, first = draw(zoo.lstm, time=4, heads=2, sizes=LARGE)
    kernel, weight = compile(zoo.lstm), operands.pop("R")
    wide = torch.zeros(2, 4, 100, 128)
    wide[..., :100] = weight
    for _ in range(4):
        for seen in (weight, weight.mT, weight[:1], weight[1:], wide[..., :100], wide.mT[:, :, :100].mT[..., :100]):
            expected = only(reference(zoo.lstm, exact({**operands, "R": seen}), exact(first))[0])
            assert error(only(kernel(**operands, R=seen, state=first)[0]), expected) < 1e-5


def test_weights_without_versions() -> None:
    kernel = compile(zoo.lstm)
    with torch.inference_mode():
        operands, first = draw(zoo.lstm, time=4, sizes=LARGE)
        for _ in range(4):
            expected = only(reference(zoo.lstm, exact(operands), exact(first))[0])
            assert error(only(kernel(**operands, state=first)[0]), expected) < 1e-5
            operands["R"].mul_(-1)


def test_threads_with_weights_of_their_own() -> None:
    kernel = compile(zoo.lstm)
    operands, first = draw(zoo.lstm, time=4, sizes=LARGE)
    weight = operands.pop("R")
    weights = [weight * factor for factor in (1, -1, 0.5)]
    expected = [only(kernel(**operands, R=w, state=first)[0]) for w in weights]
    wrong: list[int] = []

    def work(number: int) -> None:
        for n in range(200):
            which = (number if n % 3 else n) % 3
            if not torch.equal(only(kernel(**operands, R=weights[which], state=first)[0]), expected[which]):
                wrong.append(n)

    at_work = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in at_work:
        t.start()
    for t in at_work:
        t.join()
    assert not wrong


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_depends_on_what_is_kept(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, with fingerprints shared over threads."""
    operands, first = draw(zoo.lstm, time=4, heads=2, sizes={"D": 260})
    kernel = compile(zoo.lstm)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kept = [only(kernel(**operands, state=first)[0]) for _ in range(4)]
        monkeypatch.setattr(launch, "WORTH_KEEPING", 1 << 40)
        alone = only(compile(zoo.lstm)(**operands, state=first)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(alone, k) for k in kept)


# ---- The entries


def entry_of(kept: Kept, key: int, weight: Tensor, count: int = 1000) -> panels.Entry:
    return kept.take((key,), [weight], count, torch.float32)


def is_new(entry: panels.Entry) -> bool:
    """One that was put back would be marked next, its weight being the same."""
    return entry.state == NOT_MARKED


def test_entries_survive_many_threads() -> None:
    """Every call takes and puts while others do, and drops what is too much."""
    kept, failed = Kept(most=40 * 4000), []
    weights = [torch.zeros(2) for _ in range(200)]

    def work(seed: int) -> None:
        order = random.Random(seed)
        try:
            for _ in range(3000):
                n = order.randrange(len(weights))
                kept.put((n,), entry_of(kept, n, weights[n]))
        except Exception as error:
            failed.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not failed
    assert kept.idle() <= kept.most


def test_what_is_too_much_goes_first_what_waits_longest() -> None:
    kept = Kept(most=10_000)
    weights = [torch.zeros(2) for _ in range(3)]
    for key in (0, 1, 0, 2):
        kept.put((key,), entry_of(kept, key, weights[key]))
    assert kept.idle() <= 10_000
    assert is_new(entry_of(kept, 1, weights[1])) and not is_new(entry_of(kept, 0, weights[0]))
    huge = entry_of(kept, 3, weights[0], HUGE_PAGE)
    kept.put((3,), huge)
    del huge
    assert kept.idle() <= 10_000 and is_new(entry_of(kept, 3, weights[0], HUGE_PAGE))


def test_entries_of_dead_weights_are_dropped() -> None:
    kept = Kept(most=1 << 30)
    weight, other = torch.zeros(2), torch.zeros(2)
    kept.put((0,), entry_of(kept, 0, weight.view(1, 2)))  # the view dies, the weight does not
    kept.put((1,), entry_of(kept, 1, other))
    both = kept.idle()
    del other
    kept.put((2,), entry_of(kept, 2, weight))
    assert kept.idle() == both
    assert not is_new(entry_of(kept, 0, weight))


def test_no_two_calls_have_one_entry() -> None:
    kept = Kept(most=1 << 30)
    weight = torch.zeros(2)
    a, b = entry_of(kept, 0, weight), entry_of(kept, 0, weight)
    assert a is not b and a.address != b.address
    kept.put((0,), a)
    kept.put((0,), b)
    assert {id(entry_of(kept, 0, weight)), id(entry_of(kept, 0, weight))} == {id(a), id(b)}
    assert is_new(entry_of(kept, 0, weight))


def test_a_version_says_that_there_is_no_need_to_look() -> None:
    kept = Kept(most=1 << 30)
    weight = torch.zeros(2)
    found = []
    for n in range(8):
        if n in (4, 5):
            weight.add_(1)
        entry = entry_of(kept, 0, weight)
        found.append(entry.state)
        kept.put((0,), entry)
    assert found == [NOT_MARKED, TO_BE_MARKED, MARKED, MARKED, NOT_MARKED, NOT_MARKED, TO_BE_MARKED, MARKED]
