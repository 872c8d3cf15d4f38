"""Eager calls go past torch's dispatcher only where nobody would notice: modes, subclasses, views that wait, traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import rekern as rk
from kernel_checks import draw, error, only
from rekern import zoo


def data(requires_grad: bool = False) -> dict[str, Tensor]:
    operands, _ = draw(zoo.hgrn, time=6)
    return {n: t.requires_grad_(requires_grad) for n, t in operands.items()}


def call(operands: Mapping[str, Tensor]) -> Tensor:
    return only(rk.compile(zoo.hgrn)(**operands)[0])


class Seen(TorchDispatchMode):
    """Notes every operator."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_mode_sees_one_operator_each_way() -> None:
    operands = data(requires_grad=True)
    for _ in range(2):
        call(operands)
        with Seen() as seen:
            out = call(operands)
            torch.autograd.grad(out.sum(), list(operands.values()))
        assert [n for n in seen.names if "rekern" in n] == ["rekern.forward.default", "rekern.backward.default"]


def test_a_mode_sees_the_way_back_of_a_call_before_it() -> None:
    operands = data(requires_grad=True)
    out = call(operands).sum()
    expected = torch.autograd.grad(out, list(operands.values()), retain_graph=True)
    with Seen() as seen:
        found = torch.autograd.grad(out, list(operands.values()))
    assert "rekern.backward.default" in seen.names
    assert all(map(torch.equal, found, expected))


def test_results_that_no_loss_looks_at_have_zeros_for_the_operator_too() -> None:
    operands, state = draw(zoo.lstm, time=3)
    leaves = {n: t.requires_grad_() for n, t in {**operands, **state}.items()}
    out, final = rk.compile(zoo.lstm)(state={n: leaves[n] for n in state}, **{n: leaves[n] for n in operands})
    for loss in (only(out).sum(), final["c"].sum()):
        expected = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
        with Seen():
            found = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
        assert all(map(torch.equal, found, expected))


def test_a_profile_shows_the_operator() -> None:
    operands = data()
    call(operands)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call(operands)
    assert "rekern::forward" in {e.key for e in profile.key_averages()}


def test_another_default_device_changes_nothing() -> None:
    operands = data(requires_grad=True)
    expected = call(operands)
    gradients = torch.autograd.grad(expected.sum(), list(operands.values()))
    for _ in range(2):
        with torch.device("meta"):
            out = call(operands)
            found = torch.autograd.grad(out, list(operands.values()), torch.ones_like(out))
        assert torch.equal(out, expected) and all(map(torch.equal, found, gradients))


def test_fake_tensors_give_shapes() -> None:
    real = data()
    call(real)
    with FakeTensorMode() as mode:
        out, final = rk.compile(zoo.hgrn)(**{n: mode.from_tensor(t) for n, t in real.items()})
    assert only(out).shape == real["x"].shape and final["h"].shape == real["x"][:, 0].shape
    assert type(only(out)) is not Tensor


class Marked(Tensor):
    """A subclass without a meaning of its own."""


def test_a_subclass_is_left_to_torch() -> None:
    operands = data()
    expected = call(operands)
    found = call({n: t.as_subclass(Marked) for n, t in operands.items()})
    assert torch.equal(found.as_subclass(Tensor), expected)


def test_a_negation_that_waits_is_done() -> None:
    operands = data()
    expected = call(operands)
    waiting = {n: torch._neg_view(-t) for n, t in operands.items()}
    assert all(t.is_neg() for t in waiting.values())
    assert torch.equal(call(waiting), expected)
    state = {"h": torch.randn_like(operands["x"][:, 0])}
    now = {n: t[:, 0] for n, t in operands.items()}
    step = rk.compile(zoo.hgrn).step
    wanted, _ = step(state=state, **now)
    found, _ = step(state={"h": torch._neg_view(-state["h"])}, **{n: t[:, 0] for n, t in waiting.items()})
    assert torch.equal(only(found), only(wanted))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("time", [4, 4096])
@pytest.mark.parametrize("operator", [False, True])
def test_results_may_be_changed_in_place(heads: int, time: int, operator: bool) -> None:
    """However they were made: large ones, and heads that were columns, are no views in the eyes of autograd."""
    x = torch.rand(1, time, heads, 64, requires_grad=True)
    with Seen() if operator else nullcontext():
        out, final = rk.compile(zoo.hgrn)(x=x, g=-torch.rand_like(x))
    only(out).mul_(2)
    final["h"].mul_(2)
    (only(out).sum() + final["h"].sum()).backward()
    assert x.grad is not None and not only(out)._is_view()


def test_a_cotangent_may_wait_for_its_negation() -> None:
    operands = data(requires_grad=True)
    out = call(operands)
    cotangent = torch.randn_like(out)
    expected = torch.autograd.grad(out, list(operands.values()), cotangent, retain_graph=True)
    found = torch.autograd.grad(out, list(operands.values()), torch._neg_view(-cotangent), retain_graph=True)
    assert all(map(torch.equal, found, expected))
    nothing = torch.autograd.grad(out, list(operands.values()), torch._efficientzerotensor(out.shape))
    assert not any(t.any() for t in nothing)


@pytest.mark.parametrize("first", [torch.inference_mode, nullcontext])
def test_inference_mode_and_autograd_may_alternate(first: Any) -> None:
    kernel = rk.compile(rk.zoo.hgrn) if first is nullcontext else rk.runtime.kernel.Kernel(zoo.hgrn)
    operands = data(requires_grad=True)
    expected = only(rk.compile(zoo.hgrn)(**operands)[0]).detach()
    with first():
        kernel(**operands)
    with torch.inference_mode():
        out, final = kernel(**operands)
        assert only(out).is_inference() and final["h"].is_inference()
        now = {n: t[:, 0] for n, t in operands.items()}
        kernel.step(state=final, in_place=True, **now)
    assert torch.equal(only(out), expected)
    out, _ = kernel(**operands)
    assert not only(out).is_inference() and only(out).requires_grad
    only(out).sum().backward()
    with torch.no_grad():
        assert not only(kernel(**operands)[0]).requires_grad


def test_an_inference_tensor_has_no_place_in_a_gradient() -> None:
    operands = data(requires_grad=True)
    with torch.inference_mode():
        operands["g"] = operands["g"].clone()
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        call(operands)


def test_autocast_changes_only_what_it_hands_over() -> None:
    operands, _ = draw(zoo.lstm, time=4, sizes={"D": 16})
    expected, _ = rk.compile(zoo.lstm)(**operands)
    layer = torch.nn.Linear(16, 16)
    for _ in range(2):
        leaves = {n: t.detach().requires_grad_() for n, t in operands.items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, final = rk.compile(zoo.lstm)(**leaves)
            assert only(out).dtype == final["c"].dtype == torch.float32
            assert torch.equal(only(out), only(expected))
            mixed, _ = rk.compile(zoo.lstm)(**{**leaves, "x": layer(leaves["x"])})
            assert only(mixed).dtype == torch.bfloat16
        only(mixed).float().sum().backward()
        assert leaves["R"].grad is not None and leaves["R"].grad.dtype == torch.float32


def test_what_is_kept_for_the_gradient_passes_the_hooks() -> None:
    operands = data(requires_grad=True)
    packed: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        packed.append(t)
        return t.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = call(operands)
    assert len(packed) == 3  # the operands, and what the forward pass wrote down
    found = torch.autograd.grad(out.sum(), list(operands.values()))
    expected = torch.autograd.grad(call(operands).sum(), list(operands.values()))
    assert all(map(torch.equal, found, expected))


def test_checkpoints_run_it_again() -> None:
    operands = data(requires_grad=True)
    out = torch.utils.checkpoint.checkpoint(lambda o: call(o), operands, use_reentrant=False)
    found = torch.autograd.grad(out.sum(), list(operands.values()))
    expected = torch.autograd.grad(call(operands).sum(), list(operands.values()))
    assert all(map(torch.equal, found, expected))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:DeprecationWarning")
def test_a_trace_has_the_operator() -> None:
    operands = data()
    call(operands)
    traced = torch.jit.trace(lambda x, g: call({"x": x, "g": g}), (operands["x"], operands["g"]))
    assert "rekern::forward" in str(traced.graph)
    other = {n: t.flip(1) for n, t in operands.items()}
    assert error(traced(other["x"], other["g"]), call(other)) == 0
