"""Every recurrence of the zoo as a kernel, held to the equations: outputs, final states and all gradients, for odd
lengths, groups of heads, any strides, hand-over of states, packed and reset sequences, single steps, threads, dtypes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from kernel_checks import SPECS, Run, Values, agree, close, cotangents, draw, error, exact, only, run, threads
from rekern import zoo
from rekern.api import compile
from rekern.reference import reference
from rekern.spec import Recurrence

each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Sizes follow from the threads; these are the same everywhere."""
    with threads(2):
        yield


# -- lengths -------------------------------------------------------------------------------------------------

LENGTHS = {
    "tall": dict(batch=3, time=63, heads=1, sizes={"K": 128, "V": 1, "D": 1, "N": 20}),
    "flat": dict(batch=2, time=257, heads=2, sizes={"K": 1, "V": 60, "D": 100, "N": 1}),
    "one step": dict(batch=1, time=1, heads=4, sizes={"K": 100, "V": 60, "D": 128, "N": 5}),
    "two tasks a row": dict(batch=1, time=257, heads=1, sizes={"K": 60, "V": 20, "D": 20, "N": 60}),
}
WIDE = {
    "one tile": dict(batch=1, time=63, heads=2, sizes={"K": 20, "V": 128, "D": 128, "N": 20}),
    "a tile and a rest": dict(batch=3, time=63, heads=1, sizes={"K": 60, "V": 100, "D": 100, "N": 5}),
}


def lengths_of(spec: Recurrence, lengths: Mapping[str, Any]) -> dict[str, Any]:
    """A state with K * K * V numbers gets by with a shorter K."""
    sizes = dict(lengths["sizes"])
    if any(o.axes.count("K") > 1 for o in spec.states):
        sizes["K"] = min(20, sizes["K"])
    return {**lengths, "sizes": sizes}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@each_spec
def test_a_kernel_agrees_with_its_equations(spec: Recurrence, lengths: Mapping[str, Any]) -> None:
    agree(spec, *draw(spec, **lengths_of(spec, lengths)))


@pytest.mark.parametrize("lengths", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("spec", [zoo.gla, zoo.gated_delta_rule, zoo.mlstm], ids=lambda s: s.name)
def test_a_kernel_agrees_with_its_equations_on_wide_states(
    spec: Recurrence, lengths: Mapping[str, Any]
) -> None:
    agree(spec, *draw(spec, **lengths))


@each_spec
def test_no_steps_return_the_initial_state_and_its_cotangent(spec: Recurrence) -> None:
    operands, state = draw(spec, time=0)
    actual = agree(spec, operands, state)
    for name, tensor in state.items():
        assert torch.equal(actual.final[name], tensor)
    for o in spec.of_kind("input", "param"):
        assert not actual.gradients[o.name].any()
    _, declared = compile(spec)(**operands)
    assert all((declared[o.name] == o.init).all() for o in spec.states)


@each_spec
def test_heads_may_share_operands(spec: Recurrence) -> None:
    names = [o.name for o in spec.of_kind("input", "param")]
    for shared in (names[:1], names[1:]):
        agree(spec, *draw(spec, heads=4, time=5, one_head=shared, sizes={"D": 60, "K": 3, "V": 60, "N": 2}))


# -- strides -------------------------------------------------------------------------------------------------


def heads_first(t: Tensor, lead: int) -> Tensor:
    """The same numbers with heads outside time, and the last axis outside the one before it."""
    if t.ndim - lead > 1:
        t = t.mT.contiguous().mT
    return t.transpose(1, 2).contiguous().transpose(1, 2) if lead == 3 and t.ndim == 3 else t


def every_other(t: Tensor, lead: int) -> Tensor:
    """The same numbers with a gap after each, and a start in the middle."""
    if t.ndim == lead:
        return torch.stack([t, t], -1)[..., 1]
    wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1] + 1), float("nan"))
    wide[..., 1::2] = t
    return wide[..., 1::2]


def one_row(t: Tensor, lead: int) -> Tensor:
    """The first row or head for all of them, without a copy."""
    return t[:1].expand_as(t)


@pytest.mark.parametrize("strided", [heads_first, every_other, one_row])
@each_spec
def test_operands_may_have_any_strides(spec: Recurrence, strided: Callable[[Tensor, int], Tensor]) -> None:
    operands, state = draw(spec, time=7)
    lead = {"input": 3, "param": 1, "state": 2}
    views, first = (
        {n: strided(t, lead[spec.operand(n).kind]) for n, t in given.items()} for given in (operands, state)
    )
    agree(spec, views, first)


def test_cotangents_may_have_any_strides() -> None:
    operands, state = draw(zoo.gla)
    leaves = {n: t.requires_grad_() for n, t in operands.items()}
    out, _ = compile(zoo.gla)(**leaves, state=state)
    assert isinstance(out, Tensor)
    found = torch.autograd.grad(out.sum(), list(leaves.values()), retain_graph=True)  # expanded, stride 0
    expected = torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out))
    assert all(map(torch.equal, found, expected))


# -- time ----------------------------------------------------------------------------------------------------


def steps(spec: Recurrence, operands: Values, start: int, end: int | None) -> Values:
    """The operands of the steps from `start` to before `end`."""
    return {n: t[:, start:end] if spec.operand(n).kind == "input" else t for n, t in operands.items()}


@each_spec
def test_time_may_be_split(spec: Recurrence) -> None:
    """The state, and its cotangent, are handed over from call to call."""
    operands, state = draw(spec, time=40)
    kernel = compile(spec)
    whole = run(kernel, spec, operands, state)
    leaves = {n: t.clone().requires_grad_() for n, t in {**operands, **state}.items()}
    given = {n: leaves[n] for n in operands}
    here = {n: leaves[n] for n in state}
    outs = []
    for start, end in ((0, 17), (17, 18), (18, 40)):
        out, here = kernel(state=here, **steps(spec, given, start, end))
        outs.append(only(out))
    joined = [torch.cat(outs, 1), *here.values()]
    grads = torch.autograd.grad(joined, list(leaves.values()), cotangents(joined))
    pieces = Run({"out": joined[0].detach()}, here, dict(zip(leaves, grads, strict=True)))
    close(pieces, whole, forward=1e-6, backward=1e-5)


def resets(batch: int, time: int) -> Tensor:
    """Before the first step, twice in a row, before the last step."""
    reset = torch.zeros(batch, time, dtype=torch.bool)
    reset[0, 0] = reset[0, 5:7] = reset[-1, time - 1] = reset[-1, 16] = True
    return reset


TIMES: dict[str, tuple[dict[str, int], dict[str, object]]] = {
    "reversed": ({}, {"reverse": True}),
    "packed": (
        {"batch": 1, "sequences": 5},
        {"cu_seqlens": torch.tensor([0, 0, 3, 3, 20, 21], dtype=torch.int32)},
    ),
    "packed and reversed": (
        {"batch": 1, "sequences": 3, "heads": 4},
        {"cu_seqlens": torch.tensor([0, 9, 18, 21]), "reverse": True},
    ),
    "reset": ({}, {"reset": resets(2, 21)}),
    "reset and reversed": ({"batch": 3}, {"reset": resets(3, 21), "reverse": True}),
    "packed and reset": (
        {"batch": 1, "sequences": 2},
        {"cu_seqlens": torch.tensor([0, 8, 21]), "reset": resets(1, 21)},
    ),
    "several blocks, reset": ({"time": 150}, {"reset": resets(2, 150).roll(70, 1)}),
}


@pytest.mark.parametrize("case", TIMES)
@each_spec
def test_time_is_walked_as_asked(spec: Recurrence, case: str) -> None:
    shape, options = TIMES[case]
    agree(spec, *draw(spec, **shape), **options)


@each_spec
def test_sequences_start_from_the_declared_state(spec: Recurrence) -> None:
    operands, state = draw(spec, time=5)
    agree(spec, operands, {})
    some = dict(list(state.items())[1:])
    if some:
        agree(spec, operands, some)


@each_spec
def test_packed_sequences_are_separate_sequences(spec: Recurrence) -> None:
    operands, _ = draw(spec, batch=1)
    _, state = draw(spec, batch=3)
    bounds = [0, 5, 18, 21]
    kernel = compile(spec)
    packed = run(kernel, spec, operands, state, gradients=False, cu_seqlens=torch.tensor(bounds))
    for n in range(3):
        start, end = bounds[n : n + 2]
        here = {name: value[n : n + 1] for name, value in state.items()}
        alone = run(kernel, spec, steps(spec, operands, start, end), here, gradients=False)
        assert error(packed.outputs["out"][:, start:end], alone.outputs["out"]) <= 1e-6
        for name, value in alone.final.items():
            assert error(packed.final[name][n : n + 1], value) <= 1e-6


@each_spec
def test_a_reset_starts_a_new_sequence(spec: Recurrence) -> None:
    """Packed and reset are one mechanism: both give the same numbers."""
    operands, _ = draw(spec, batch=1)
    kernel = compile(spec)
    reset = torch.zeros(1, 21, dtype=torch.bool)
    reset[0, 8] = True
    one = run(kernel, spec, operands, {}, reset=reset)
    two = run(kernel, spec, operands, {}, cu_seqlens=torch.tensor([0, 8, 21]))
    assert error(one.outputs["out"], two.outputs["out"]) <= 1e-6
    for name, value in one.final.items():
        assert error(value, two.final[name][1:]) <= 1e-6


# -- single steps --------------------------------------------------------------------------------------------


@each_spec
def test_steps_are_the_sequence(spec: Recurrence) -> None:
    operands, state = draw(spec, time=6)
    reset = resets(2, 20)[:, :6]
    kernel = compile(spec)
    expected, last = reference(spec, exact(operands), exact(state), reset=reset)
    kept = {n: t.clone() for n, t in state.items()}
    here, mine = state, {n: t.clone() for n, t in state.items()}
    for t in range(6):
        now = {n: x[:, t] if spec.operand(n).kind == "input" else x for n, x in operands.items()}
        out, here = kernel.step(state=here, reset=reset[:, t], **now)
        same, updated = kernel.step(state=mine, reset=reset[:, t], in_place=True, **now)
        assert all(updated[n] is mine[n] for n in mine)
        assert torch.equal(only(out), only(same))
        assert all(torch.equal(here[n], mine[n]) for n in mine)
        assert error(only(out), only(expected)[:, t]) <= 1e-5
    assert {n: e for n in here if (e := error(here[n], last[n])) > 1e-5} == {}
    assert all(torch.equal(state[n], kept[n]) for n in state), "the states of the caller have changed"


@each_spec
def test_a_step_has_the_gradient_of_a_sequence_of_one(spec: Recurrence) -> None:
    operands, state = draw(spec, time=1)
    leaves = {n: t.requires_grad_() for n, t in {**operands, **state}.items()}
    now = {n: leaves[n][:, 0] if spec.operand(n).kind == "input" else leaves[n] for n in operands}
    out, final = compile(spec).step(state={n: leaves[n] for n in state}, **now)
    whole, end = compile(spec)(state={n: leaves[n] for n in state}, **{n: leaves[n] for n in operands})
    results = ([only(out), *final.values()], [only(whole)[:, 0], *end.values()])
    found, expected = (torch.autograd.grad([r.sum() for r in rs], list(leaves.values())) for rs in results)
    assert all(map(torch.equal, found, expected))


# -- threads -------------------------------------------------------------------------------------------------


@each_spec
def test_repeated_runs_are_equal_to_the_bit_and_threads_change_nothing_else(spec: Recurrence) -> None:
    operands, state = draw(spec, batch=3, heads=2, time=9)
    kernel = compile(spec)
    first, again = (dict(run(kernel, spec, operands, state).items()) for _ in range(2))
    assert [n for n, t in first.items() if not torch.equal(t, again[n])] == []
    with threads(1):
        alone = run(kernel, spec, operands, state)
    assert {n: e for n, t in alone.items() if (e := error(first[n], t)) > 2e-6} == {}


@pytest.mark.parametrize("spec", [zoo.gla, zoo.lstm, zoo.hgrn, zoo.mlstm], ids=lambda s: s.name)
@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (1, 5), (5, 1)], ids=str)
def test_the_number_of_threads_may_change_before_the_gradient(
    spec: Recurrence, counts: tuple[int, int]
) -> None:
    operands, state = draw(spec, batch=1, heads=1, time=70, sizes={"K": 12, "V": 20, "D": 60})
    leaves = {n: t.requires_grad_() for n, t in {**operands, **state}.items()}
    given = {n: leaves[n] for n in operands}
    first = {n: leaves[n] for n in state}
    with threads(counts[0]):
        out, _ = compile(spec)(state=first, **given)
    with threads(counts[1]):
        found = torch.autograd.grad(only(out).sum(), list(leaves.values()), allow_unused=True)
    expected = torch.autograd.grad(
        only(reference(spec, given, first)[0]).sum(), list(leaves.values()), allow_unused=True
    )
    for a, b in zip(found, expected, strict=True):
        assert a is not None and b is not None and error(a, b) <= 5e-5
