"""Calls that are alike are checked once: what is kept of a call changes no number, hides no fault, keeps no tensor."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import rekern as rk
from kernel_checks import agree, draw, error, only, run, threads
from rekern import zoo
from rekern.errors import ArgumentError
from rekern.runtime.calls import MOST_KINDS, Latest
from rekern.runtime.kernel import Kernel

SMALL = {"D": 20, "K": 6, "V": 20}


def test_kinds_of_calls_do_not_get_mixed_up() -> None:
    """One kernel, called in turn in ways that differ in one thing only; each twice, on other numbers."""
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[1, 4] = True
    ways: list[tuple[dict[str, int], dict[str, object]]] = [
        ({}, {}),
        ({}, {"reverse": True}),
        ({}, {"reset": reset}),
        ({}, {"reset": ~reset}),
        ({}, {"reset": reset.T.contiguous().T}),
        ({"batch": 1, "sequences": 2}, {"cu_seqlens": torch.tensor([0, 4, 9])}),
        ({"batch": 1, "sequences": 2}, {"cu_seqlens": torch.tensor([0, 5, 9])}),
        ({"batch": 1, "sequences": 2}, {"cu_seqlens": torch.tensor([0, 5, 9], dtype=torch.int32)}),
        ({"heads": 3}, {}),
    ]
    for seed in (0, 1):
        for shape, options in ways:
            for count in (1, 2):
                with threads(count):
                    lengths = {"time": 9, "sizes": SMALL, "seed": seed, **shape}
                    agree(zoo.gla, *draw(zoo.gla, **lengths), **options)


def test_scalars_are_those_of_the_call() -> None:
    operands, state = draw(zoo.gla, time=3)
    kernel = rk.compile(zoo.gla)
    default = only(kernel(state=state, **operands)[0])
    for scale in (0.5, 2, None, 3.0, torch.tensor(4.0), None):
        out = only(kernel(state=state, scale=scale, **operands)[0])
        wanted = default if scale is None else default * float(scale) * operands["q"].shape[-1] ** 0.5
        assert error(out, wanted) < 1e-6


def test_strides_may_change_from_call_to_call() -> None:
    operands, state = draw(zoo.gla, time=5)
    kernel = rk.compile(zoo.gla)
    expected = only(kernel(state=state, **operands)[0])
    for change in (lambda t: t.mT.contiguous().mT, lambda t: torch.stack([t, t], -1)[..., 1], lambda t: t.clone()):
        assert torch.equal(only(kernel(state=state, **{n: change(t) for n, t in operands.items()})[0]), expected)


FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, object]], str]] = {
    "unknown": (lambda o: {**o, "w": o["q"]}, "gla has no operand 'w'"),
    "unknown in the place of a scalar": (lambda o: {**o, "scal": 0.5}, "gla has no operand 'scal'"),
    "missing": (lambda o: {n: t for n, t in o.items() if n != "v"}, "needs the operand 'v'"),
    "no tensor": (lambda o: {**o, "q": 1.0}, "operand 'q' is a float"),
    "device": (lambda o: {**o, "q": o["q"].to("meta")}, "operand 'q' is on meta"),
    "sparse": (lambda o: {**o, "q": o["q"].to_sparse()}, "make it dense"),
    "dtype": (lambda o: {**o, "q": o["q"].long()}, "operand 'q' is torch.int64"),
    "scalar": (lambda o: {**o, "scale": "big"}, "scalar 'scale' is 'big'"),
    "other state": (lambda o: {**o, "state": {"h": torch.zeros(2, 2, 6, 20)}}, "gla has no state 'h'"),
    "states as a list": (lambda o: {**o, "state": [torch.zeros(2, 2, 6, 20)]}, "state is a list"),
    "reset": (lambda o: {**o, "reset": torch.zeros(2, 9)}, "reset is torch.float32"),
    "bounds": (lambda o: {**o, "cu_seqlens": torch.tensor([0, 9])}, "B = 1, but B is 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_that_is_nearly_alike_is_checked(fault: str) -> None:
    operands, _ = draw(zoo.gla, time=9, sizes=SMALL)
    kernel = rk.compile(zoo.gla)
    for _ in range(2):
        kernel(**operands)
        kernel(**operands, state={"S": torch.zeros(2, 2, 6, 20)})
    change, message = FAULTS[fault]
    with pytest.raises(ArgumentError, match=message):
        kernel(**change(operands))


def test_sequence_boundaries_are_read_in_every_call() -> None:
    operands, _ = draw(zoo.gla, batch=1, time=9, sizes=SMALL)
    bounds = torch.tensor([0, 4, 9])
    rk.compile(zoo.gla)(**operands, cu_seqlens=bounds)
    bounds[1] = 10
    with pytest.raises(ArgumentError, match="cu_seqlens falls from 10 to 9"):
        rk.compile(zoo.gla)(**operands, cu_seqlens=bounds)


def test_facts_are_checked_in_every_call() -> None:
    operands, _ = draw(zoo.hgrn, time=4)
    kernel = rk.compile(zoo.hgrn, check_facts=True)
    for _ in range(2):
        kernel(**operands)
    operands["g"][0, 0] = 1.0
    with pytest.raises(ArgumentError, match="operand 'g' reaches 1, declared at most 0"):
        kernel(**operands)


def test_steps_take_new_tensors_and_new_resets() -> None:
    operands, state = draw(zoo.gla, time=1, sizes=SMALL)
    kernel = rk.compile(zoo.gla)
    now = {n: t[:, 0] for n, t in operands.items()}
    for reset in (None, torch.tensor([True, False]), torch.tensor([False, True])):
        whole = None if reset is None else reset[:, None]
        for given in (state, {"S": 2 * state["S"]}):
            out, last = kernel.step(state=given, reset=reset, **now)
            wanted, end = kernel(state=given, reset=whole, **operands)
            assert torch.equal(only(out), only(wanted)[:, 0]) and torch.equal(last["S"], end["S"])
    with pytest.raises(ArgumentError, match="of a step has shape"):
        kernel.step(state=state, **operands)


def test_a_step_in_place_is_seen_by_autograd() -> None:
    operands, state = draw(zoo.gla, time=1, sizes=SMALL)
    weight = torch.ones((), requires_grad=True)
    product = (state["S"] * weight).sum()  # keeps the state for its gradient
    kernel = rk.compile(zoo.gla)
    for _ in range(2):
        with torch.no_grad():
            kernel.step(state=state, in_place=True, **{n: t[:, 0] for n, t in operands.items()})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_a_step_in_place_has_no_gradient() -> None:
    operands, state = draw(zoo.hgrn, time=1)
    now = {n: t[:, 0] for n, t in operands.items()}
    step = rk.compile(zoo.hgrn).step
    with torch.no_grad():
        step(state=state, in_place=True, **now)
    now["x"] = now["x"].clone().requires_grad_()
    with pytest.raises(ArgumentError, match=r"has no gradient; use torch.no_grad\(\), or in_place=False"):
        step(state=state, in_place=True, **now)


def test_a_step_in_place_writes_without_a_compiler_too() -> None:
    operands, state = draw(zoo.hgrn, time=1)
    now = {n: t[:, 0] for n, t in operands.items()}
    expected, last = rk.compile(zoo.hgrn).step(state=state, **now)
    kernel = Kernel(zoo.hgrn)
    kernel._compiler = False
    out, updated = kernel.step(state=state, in_place=True, **now)
    assert updated["h"] is state["h"]
    assert error(only(out), only(expected)) < 1e-6 and error(state["h"], last["h"]) < 1e-6


def test_an_operand_that_changes_before_the_gradient_is_noticed() -> None:
    operands, _ = draw(zoo.gla, time=4)
    operands["k"].requires_grad_()
    out, _ = rk.compile(zoo.gla)(**operands)
    operands["q"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        only(out).sum().backward()


def test_no_tensor_of_a_caller_is_kept() -> None:
    kernel = Kernel(zoo.gla)
    operands, state = draw(zoo.gla, time=4)
    leaves = {n: t.requires_grad_() for n, t in {**operands, **state}.items()}
    out, final = kernel(state={"S": leaves["S"]}, **{n: leaves[n] for n in operands})
    torch.autograd.grad(only(out).sum(), list(leaves.values()))
    left = [weakref.ref(t) for t in (*leaves.values(), only(out), *final.values())]
    del operands, state, leaves, out, final
    gc.collect()
    assert [r for r in left if r() is not None] == []


def test_as_many_kinds_are_kept_as_are_used() -> None:
    latest: Latest[int] = Latest(3)
    for n in range(3):
        latest.put((n,), n)
    assert latest.get((0,)) == 0
    latest.put((3,), 3)
    assert [latest.get((n,)) for n in range(4)] == [0, None, 2, 3]
    kernel = Kernel(zoo.hgrn)
    x = torch.rand(1, MOST_KINDS + 20, 1, 8)
    for time in range(MOST_KINDS + 20):
        kernel(x=x[:, :time], g=-x[:, :time])
    assert len(kernel._calls) == MOST_KINDS


def test_threads_may_call_at_one_time() -> None:
    """Each has its own numbers; all calls are of one kind."""
    kernel = rk.compile(zoo.gla)
    data = [draw(zoo.gla, time=40, seed=n) for n in range(4)]
    expected = [run(kernel, zoo.gla, *d) for d in data]
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(30):
            found = dict(run(kernel, zoo.gla, *data[n]).items())
            if not all(torch.equal(found[name], t) for name, t in expected[n].items()):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert wrong == []
