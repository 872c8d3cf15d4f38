"""Elementwise steps, whose rows are streamed: any length, alignment, direction and way of the results, one meaning."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import rekern as rk
from rekern import Input, State, zoo
from rekern.math import exp, sum
from rekern.reference import reference
from rekern.runtime import execute
from rekern.runtime.kernel import Kernel
from rekern.schedules.cpu.choose import plan
from rekern.schedules.programs import SAVED, programs
from rekern.spec import Recurrence


@rk.recurrence
def shared_gate(h=State("D"), x=Input("D"), g=Input(at_most=0)):
    """The gradient of g is a sum along the row: nothing behind the row may get into it."""
    h = exp(g) * h + x
    return h, h


@rk.recurrence
def normalised(h=State("D"), s=State(), x=Input("D")):
    """A sum of the step along the row, and a state that is one number."""
    size = sum(h * h)
    s = 0.9 * s + size
    h = h / (1 + size) + x
    return (h, s), {"y": h, "size": s}


SPECS = (zoo.hgrn, zoo.indrnn, zoo.sru, zoo.rwkv4, shared_gate, normalised)


@pytest.fixture(params=[True, False], ids=["past-caches", "through-caches"])
def past_caches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Calls of a test are small; here their results go the way that those of large calls go."""

    def forced(*arguments):
        found = plan(*arguments)
        return replace(found, run=replace(found.run, past_caches=request.param))

    monkeypatch.setattr(execute, "plan", forced)
    yield request.param


def operands(spec: Recurrence, length: int, dtype: torch.dtype = torch.float32, shift: int = 0) -> dict[str, Tensor]:
    """Numbers of a call with 2 sequences of 5 steps. `shift`: rows begin so many numbers behind an aligned place."""
    made = {}
    for o in spec.of_kind("input", "param"):
        shape = [*([2, 5, 1] if o.kind == "input" else [1]), *(length if d == "D" else d for d in o.dims)]
        values = torch.randn(shape, generator=torch.Generator().manual_seed(len(made))) / 2
        values = (-values.abs() if o.at_most == 0 else values).to(dtype)
        if shift and o.dims:
            values = torch.cat([values, values], -1)[..., shift : shift + length].copy_(values)
        made[o.name] = values.requires_grad_()
    return made


def check(spec: Recurrence, given: dict[str, Tensor], tolerance: float, **options: object) -> None:
    """Outputs, final states and gradients against the reference in float64."""

    def results(run, values):
        out, last = run(values)
        outs = [out] if isinstance(out, Tensor) else [*out.values()]
        generator = torch.Generator().manual_seed(7)
        cotangents = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outs]
        return [*outs, *last.values(), *torch.autograd.grad(outs, list(values.values()), cotangents)]

    kernel = Kernel(spec)
    got = results(lambda values: kernel(**values, **options), given)
    exact = {n: t.detach().double().requires_grad_() for n, t in given.items()}
    want = results(lambda values: reference(spec, values, {}, dtype=torch.float64, **options), exact)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * (1 + b.abs().max().item()))


@pytest.mark.parametrize("length", (1, 20, 60, 64, 100, 513, 1000))
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_rows_of_any_length(spec: Recurrence, length: int, past_caches: bool) -> None:
    check(spec, operands(spec, length), 2e-5)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_rows_that_are_not_aligned(spec: Recurrence, past_caches: bool) -> None:
    check(spec, operands(spec, 64, shift=3), 2e-5)


@pytest.mark.parametrize("options", ({"reverse": True}, {"reset": torch.arange(10).reshape(2, 5) % 3 == 1}), ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_both_directions_and_resets(spec: Recurrence, options: dict[str, object], past_caches: bool) -> None:
    for length in (32, 33):
        check(spec, operands(spec, length), 2e-5, **options)


@pytest.mark.parametrize("dtype, tolerance", ((torch.float64, 1e-12), (torch.bfloat16, 3e-2)), ids=str)
def test_other_dtypes(dtype: torch.dtype, tolerance: float, past_caches: bool) -> None:
    check(zoo.hgrn, operands(zoo.hgrn, 60, dtype), tolerance)


def test_nothing_is_written_behind_a_row(past_caches: bool) -> None:
    """Sequences lie side by side: what one wrote too far would be in another."""
    given = {n: t.detach() for n, t in operands(zoo.hgrn, 20).items()}
    together = Kernel(zoo.hgrn)(**given)[0]
    for n in range(2):
        alone = Kernel(zoo.hgrn)(**{name: t[n : n + 1] for name, t in given.items()})[0]
        assert torch.equal(together[n : n + 1], alone)


@pytest.mark.parametrize("state", (False, True), ids=("from-zero", "from-a-state"))
@pytest.mark.parametrize("spec", (zoo.hgrn, zoo.indrnn, zoo.rwkv4), ids=lambda spec: spec.name)
def test_heads_are_columns_where_they_lie_side_by_side(spec: Recurrence, state: bool) -> None:
    """Three heads at once, and one by one: the same numbers, states and gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = {o.name: [2, 5, 3, 20] if o.kind == "input" else [3, 20] for o in spec.of_kind("input", "param")}
    given = {n: -torch.rand(shape, generator=generator) for n, shape in shapes.items()}
    first = {o.name: torch.rand(2, 3, 20, generator=generator) for o in spec.states} if state else {}

    kernel = Kernel(spec)

    def results(heads: slice) -> list[Tensor]:
        mine = {n: t[..., heads, :].clone().requires_grad_() for n, t in given.items()}
        begin = {n: t[:, heads].clone().requires_grad_() for n, t in first.items()}
        out, last = kernel(**mine, state=begin)
        assert isinstance(out, Tensor)
        grads = torch.autograd.grad(out.square().sum(), [*mine.values(), *begin.values()])
        return [out, *last.values(), *grads]

    together = results(slice(0, 3))
    for head in range(3):
        for all_heads, alone in zip(together, results(slice(head, head + 1)), strict=True):
            assert torch.equal(all_heads[..., head : head + 1, :], alone)


def test_only_what_the_gradient_reads_is_saved() -> None:
    @rk.recurrence
    def smoothed(h=State("D"), x=Input("D")):
        h = 0.9 * h + x
        return h, h

    assert programs(smoothed).saved == {}
    assert list(programs(zoo.hgrn).saved) == [(SAVED + "h", ())]
    check(smoothed, operands(smoothed, 33), 2e-5)
