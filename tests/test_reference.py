"""What the reference means by time (no steps, one step, packed, reset, reversed) and by groups of heads."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from random_operands import SIZES, random_operands
from rekern import zoo
from rekern.errors import SpecError
from rekern.reference import StepFunction, reference
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence, scalar_value

SPECS = [s.bind(n=2) if "n" in s.axes else s for s in map(zoo.load, zoo.names())]
Values = dict[str, Tensor]


@recurrence
def several(s=State("D", init=0.5), h=State(2, 1, "D"), x=Input("D", 2), w=Param("D"), gain=Scalar()):
    """Axes with a size between and after named ones; several outputs."""
    s = w * s + x[:, 0]
    h = gain * h + x[:, 1]
    return (s, h), {"sum": s + h[0, 0], "both": x.T + h[:, 0]}


def steps(spec: Recurrence, operands: Values, start: int, end: int | None) -> Values:
    """The operands of the steps from `start` to before `end`."""
    return {n: t[:, start:end] if spec.operand(n).kind == "input" else t for n, t in operands.items()}


def only(out: Tensor | Values) -> Tensor:
    assert isinstance(out, Tensor)
    return out


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)


@each_spec
def test_no_steps_return_the_initial_state(spec: Recurrence) -> None:
    operands, state = random_operands(spec, time=0)
    out, final = reference(spec, operands, state)
    tail = [SIZES[d] for d in spec.step.output_dims["out"] if isinstance(d, str)]
    assert only(out).shape == (2, 0, 2, *tail)
    close(final, state)
    _, declared = reference(spec, operands)
    assert all((declared[o.name] == o.init).all() for o in spec.states)


@each_spec
def test_one_step_is_the_step_function(spec: Recurrence) -> None:
    operands, state = random_operands(spec, time=1)
    out, final = reference(spec, operands, state)
    now = {n: t[:, 0] if spec.operand(n).kind == "input" else t[None] for n, t in operands.items()}
    scalars = {o.name: scalar_value(spec, o, SIZES) for o in spec.of_kind("scalar")}
    new, outputs = StepFunction(spec, SIZES)({**now, **state}, scalars)
    close(only(out)[:, 0], outputs["out"])
    close(final, new)


@each_spec
def test_time_may_be_split(spec: Recurrence) -> None:
    operands, state = random_operands(spec)
    whole, final = reference(spec, operands, state)
    first, middle = reference(spec, steps(spec, operands, 0, 2), state)
    second, end = reference(spec, steps(spec, operands, 2, None), middle)
    close(torch.cat([only(first), only(second)], 1), whole)
    close(end, final)


@each_spec
def test_packed_sequences_are_separate_sequences(spec: Recurrence) -> None:
    operands, _ = random_operands(spec, batch=1, time=7)
    _, state = random_operands(spec, batch=4)
    bounds = [0, 3, 3, 4, 7]  # one of them is empty
    out, final = reference(spec, operands, state, cu_seqlens=torch.tensor(bounds))
    for n, (start, end) in enumerate(pairwise(bounds)):
        here = {name: value[n : n + 1] for name, value in state.items()}
        expected, last = reference(spec, steps(spec, operands, start, end), here)
        close(only(out)[:, start:end], expected)
        close({name: value[n : n + 1] for name, value in final.items()}, last)


@each_spec
def test_a_reset_starts_a_new_sequence_from_the_declared_state(spec: Recurrence) -> None:
    operands, state = random_operands(spec)
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 3] = reset[1, 0] = reset[1, 5] = True
    out, final = reference(spec, operands, state, reset=reset)
    for b, bounds in enumerate(([0, 3, 6], [0, 0, 5, 6])):
        row = {n: t[b : b + 1] if spec.operand(n).kind == "input" else t for n, t in operands.items()}
        declared = {o.name: torch.full_like(state[o.name][:1], o.init) for o in spec.states}
        for n, (start, end) in enumerate(pairwise(bounds)):
            begin = {k: v[b : b + 1] for k, v in state.items()} if n == 0 else declared
            expected, last = reference(spec, steps(spec, row, start, end), begin)
            close(only(out)[b : b + 1, start:end], expected)
        close({k: v[b : b + 1] for k, v in final.items()}, last)


@each_spec
def test_reverse_runs_the_flipped_sequence(spec: Recurrence) -> None:
    operands, state = random_operands(spec)
    flipped = {n: t.flip(1) if spec.operand(n).kind == "input" else t for n, t in operands.items()}
    out, final = reference(spec, operands, state, reverse=True)
    expected, last = reference(spec, flipped, state)
    close(only(out).flip(1), expected)
    close(final, last)


def test_each_packed_sequence_is_reversed_by_itself() -> None:
    spec = zoo.gla
    operands, _ = random_operands(spec, batch=1, time=5)
    out, final = reference(spec, operands, cu_seqlens=torch.tensor([0, 2, 5]), reverse=True)
    for n, (start, end) in enumerate([(0, 2), (2, 5)]):
        expected, last = reference(spec, steps(spec, operands, start, end), reverse=True)
        close(only(out)[:, start:end], expected)
        close(final["S"][n : n + 1], last["S"])


def test_reversed_steps_are_reset_before_they_run() -> None:
    operands, state = random_operands(zoo.hgrn)
    reset = torch.rand(2, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    flipped = {n: t.flip(1) for n, t in operands.items()}
    out, final = reference(zoo.hgrn, operands, state, reset=reset, reverse=True)
    expected, last = reference(zoo.hgrn, flipped, state, reset=reset.flip(1))
    close(only(out).flip(1), expected)
    close(final, last)


@each_spec
def test_grouped_heads_are_repeated_heads(spec: Recurrence) -> None:
    """Head j reads operand head j // (H / heads of the operand)."""
    few, _ = random_operands(spec, heads=2, seed=1)
    many, state = random_operands(spec, heads=4)
    for grouped in operands_but_one(spec):
        mixed = {**many, **{n: few[n] for n in grouped}}
        axis = {n: 2 if spec.operand(n).kind == "input" else 0 for n in grouped}
        repeated = {**many, **{n: few[n].repeat_interleave(2, axis[n]) for n in grouped}}
        close(reference(spec, mixed, state), reference(spec, repeated, state))


def operands_but_one(spec: Recurrence) -> list[set[str]]:
    """Two choices of operands to group that leave at least one with all heads."""
    names = [o.name for o in spec.of_kind("input", "param")]
    return [set(names[:1]), set(names[1:])] if len(names) > 1 else []


@each_spec
def test_gradients_reach_everything(spec: Recurrence) -> None:
    operands, state = random_operands(spec)
    leaves = {n: t.requires_grad_() for n, t in (operands | state).items()}
    out, final = reference(spec, operands, state)
    generator = torch.Generator().manual_seed(2)
    loss = sum((t * torch.randn(t.shape, generator=generator)).sum() for t in (only(out), *final.values()))
    loss.backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.isfinite().all(), name
        assert leaf.grad.abs().sum() > 0, name


@each_spec
def test_gradients_are_finite_from_the_declared_state(spec: Recurrence) -> None:
    operands, _ = random_operands(spec)
    leaves = {n: t.requires_grad_() for n, t in operands.items()}
    out, final = reference(spec, operands)
    (only(out).sum() + sum(t.sum() for t in final.values())).backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves.values())


def test_literal_axes_stand_where_they_were_declared() -> None:
    operands, state = random_operands(several, heads=3)
    out, final = reference(several, {**operands, "gain": 0.5}, state)
    s, h = state["s"], state["h"]
    for t in range(6):
        x = operands["x"][:, t]
        s = operands["w"] * s + x[..., 0]
        h = 0.5 * h + x[..., None, None, :, 1]
        assert isinstance(out, dict)
        close(out["sum"][:, t], s + h[:, :, 0, 0])
        close(out["both"][:, t], x.mT + h[:, :, :, 0])
    close(final, {"s": s, "h": h})


def test_a_scalar_may_be_a_tensor_and_gets_a_gradient() -> None:
    operands, _ = random_operands(zoo.gla)
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    out, _ = reference(zoo.gla, {**operands, "scale": scale})
    close(out, only(reference(zoo.gla, {**operands, "scale": 0.3})[0]))
    only(out).sum().backward()
    close(scale.grad, only(out).detach().sum() / 0.3)


def test_a_scalar_without_a_default_must_be_passed() -> None:
    operands, state = random_operands(several)
    with pytest.raises(SpecError, match=r"^several: scalar 'gain' has no default; pass gain=\.\.\.$"):
        reference(several, operands, state)


def test_the_meaning_is_float64_unless_asked_otherwise() -> None:
    operands, state = random_operands(zoo.gla, dtype=torch.float32)
    assert only(reference(zoo.gla, operands, state)[0]).dtype == torch.float64
    out, final = reference(zoo.gla, operands, state, dtype=None)
    assert only(out).dtype == final["S"].dtype == torch.float32
