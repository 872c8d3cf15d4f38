"""The schedule `scan`: segments of time in parallel give what the time loop gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch

import rekern as rk
from rekern.analysis.logs import Reason
from rekern.runtime.execute import CpuExecutor
from rekern.schedules.scan import segment_count, summaries

Values = dict[str, torch.Tensor]
Run = Callable[[Values, Values], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
SIZES = {"D": 7, "N": 5, "K": 12, "V": 20}
STEPS = 400


@pytest.fixture(autouse=True)
def many_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def operands(spec: rk.Recurrence) -> dict[str, torch.Tensor]:
    """Operands of one sequence and head, float64, tame."""
    torch.manual_seed(0)
    lead = {"input": [1, STEPS, 1], "param": [1], "state": [1, 1]}
    found = {}
    for o in spec.of_kind("input", "param", "state"):
        tensor = torch.randn([*lead[o.kind], *(SIZES[str(d)] for d in o.dims)], dtype=torch.float64) * 0.5
        found[o.name] = -tensor.abs() if o.at_most == 0 else tensor.abs() if o.at_least == 0 else tensor
    return found


CASES = {
    "whole": {},
    "reversed": {"reverse": True},
    "reset": {"reset": torch.arange(STEPS)[None] % 150 == 50},
    "packed": {"cu_seqlens": torch.tensor([0, STEPS])},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["hgrn", "min_lstm", "rwkv4", "selective_scan", "gla"])
def test_segments_give_what_the_reference_gives(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = rk.zoo.load(name)
    data = operands(spec)
    used = []
    count = CpuExecutor.segments
    monkeypatch.setattr(CpuExecutor, "segments", lambda self, a, n: used.append(count(self, a, n)) or used[-1])

    def results(run: Run, tensors: Values) -> list[torch.Tensor]:
        leaves = {n: t.clone().requires_grad_() for n, t in tensors.items()}
        state = {o.name: leaves[o.name] for o in spec.states}
        out, final = run({n: t for n, t in leaves.items() if n not in state}, state)
        loss = (out * out).sum() + sum((t * t).sum() for t in final.values())
        return [out, *final.values(), *torch.autograd.grad(loss, list(leaves.values()))]

    options = CASES[case]
    got = results(lambda o, s: rk.compile(spec)(state=s, **o, **options), data)
    wanted = results(lambda o, s: rk.reference(spec, o, s, **options), data)
    assert used and min(used) > 1, "the call was not cut"
    for mine, true in zip(got, wanted, strict=True):
        assert (mine - true).norm() <= 1e-11 * true.norm()


def test_what_a_segment_cannot_be_summed_up_for_has_a_reason() -> None:
    assert "dense" in str(summaries(rk.zoo.lstm))
    assert "nonlinear" in str(summaries(rk.zoo.indrnn)) or "pointwise" in str(summaries(rk.zoo.indrnn))
    assert isinstance(summaries(rk.zoo.gated_delta_rule), Reason)
    assert len(summaries(rk.zoo.rwkv4)) == 2  # the running maximum, then the two sums


def test_a_call_is_cut_only_where_that_saves_time() -> None:
    assert segment_count(levels=1, tasks=1, threads=2, steps=10_000) == 1
    assert segment_count(levels=1, tasks=1, threads=16, steps=10_000) == 16
    assert segment_count(levels=1, tasks=64, threads=16, steps=10_000) == 1
    assert segment_count(levels=1, tasks=1, threads=16, steps=100) == 1


def test_the_gradient_does_not_ask_how_many_threads_there_are_now() -> None:
    spec = rk.zoo.hgrn
    data = {n: t.requires_grad_() for n, t in operands(spec).items() if n != "h"}
    out, _ = rk.compile(spec)(**data)
    torch.set_num_threads(1)
    got = torch.autograd.grad(out.sum(), list(data.values()))
    wanted = torch.autograd.grad(rk.reference(spec, data)[0].sum(), list(data.values()))
    for mine, true in zip(got, wanted, strict=True):
        assert (mine - true).norm() <= 1e-11 * true.norm()
