"""Kernels on hard values and in torch: strong decays, NaN, dtypes, several outputs, partial losses, torch.compile."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from kernel_checks import SPECS, Values, agree, draw, error, exact, only, run, threads
from rekern import zoo
from rekern.api import compile
from rekern.reference import reference
from rekern.runtime.kernel import Kernel
from rekern.schedules.programs import programs
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence

each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Sizes follow from the threads; these are the same everywhere."""
    with threads(2):
        yield


# -- hard numbers --------------------------------------------------------------------------------------------

GATES = {"min_gru": "z", "min_lstm": "f", "mlstm": "f", "mlstm_sigmoid": "f", "lstm": "x", "slstm": "x"}
DECAYS = (0.0, -20.0, -1e4)
decaying = [s for s in SPECS if s.name in GATES or any(o.at_most == 0 for o in s.operands)]


@pytest.mark.parametrize("spec", decaying, ids=lambda s: s.name)
def test_strong_decays_stay_finite_and_accurate(spec: Recurrence) -> None:
    """No decay, a strong one and an absurd one, each over a stretch of time (of a parameter: for some numbers)."""
    operands, state = draw(spec, time=24, heads=3)
    for o in spec.of_kind("input", "param"):
        value = operands[o.name]
        if o.name != GATES.get(spec.name) and o.at_most != 0:
            continue
        for n, decay in enumerate(DECAYS):
            if o.kind == "input":
                value[:, 8 * n : 8 * n + 8] += decay
            else:
                value.view(-1)[n::3] += decay
    actual = agree(spec, operands, state)
    assert [n for n, t in actual.items() if not t.isfinite().all()] == []


def spoilt(operands: Values, names: list[str], where: tuple[object, ...]) -> Values:
    result = dict(operands)
    for n in names:
        result[n] = operands[n].clone()
        result[n][where] = float("nan")
    return result


@each_spec
def test_a_nan_stays_in_its_batch_row(spec: Recurrence) -> None:
    operands, state = draw(spec, batch=4, time=9)
    inputs = [o.name for o in spec.of_kind("input")]
    kernel = compile(spec)
    clean = dict(run(kernel, spec, operands, state).items())
    found = dict(run(kernel, spec, spoilt(operands, inputs, (1, 4)), state).items())
    params = {f"gradient of {o.name}" for o in spec.of_kind("param")}
    assert found["out"][1, 4:].isnan().all()
    for name in clean.keys() - params:
        assert torch.equal(found[name][[0, 2, 3]], clean[name][[0, 2, 3]]), name
    assert torch.equal(found["out"][1, :4], clean["out"][1, :4])


@each_spec
def test_a_nan_stays_in_its_packed_sequence(spec: Recurrence) -> None:
    operands, _ = draw(spec, batch=1)
    inputs = [o.name for o in spec.of_kind("input")]
    kernel = compile(spec)
    options = {"cu_seqlens": torch.tensor([0, 7, 14, 21])}
    clean = dict(run(kernel, spec, operands, {}, **options).items())
    found = dict(run(kernel, spec, spoilt(operands, inputs, (0, 9)), {}, **options).items())
    rest = [*range(7), *range(14, 21)]
    for name in clean:
        if name.startswith("final"):
            assert torch.equal(found[name][[0, 2]], clean[name][[0, 2]]), name
        elif name.removeprefix("gradient of ") in ("out", *inputs):
            assert torch.equal(found[name][:, rest], clean[name][:, rest]), name


with_lane = [(s, lane) for s in SPECS if (lane := programs(s).lane) is not None]


@pytest.mark.parametrize(("spec", "lane"), with_lane, ids=[f"{s.name}-{lane}" for s, lane in with_lane])
def test_a_nan_stays_in_its_column(spec: Recurrence, lane: str) -> None:
    operands, state = draw(spec, batch=1, heads=1, time=9, sizes={"K": 12, "V": 20, "D": 20, "N": 5})
    inputs = [o.name for o in spec.of_kind("input") if o.axes[-1:] == (lane,)]
    kernel = compile(spec)
    clean = dict(run(kernel, spec, operands, state).items())
    found = dict(run(kernel, spec, spoilt(operands, inputs, (..., 3)), state).items())
    rest = [n for n in range(20) if n != 3]
    names = {"out", *(f"gradient of {n}" for n in inputs)}
    for o in spec.states:
        if o.axes[-1:] == (lane,):
            names |= {f"final {o.name}", f"gradient of {o.name}"}
    assert found["out"][..., 3].isnan().all()
    for name in names:
        assert torch.equal(found[name][..., rest], clean[name][..., rest]), name


# -- dtypes --------------------------------------------------------------------------------------------------

TYPED = [zoo.lstm, zoo.hgrn, zoo.gla, zoo.mlstm, zoo.gated_delta_rule, zoo.based]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("spec", TYPED, ids=lambda s: s.name)
def test_a_kernel_takes_every_dtype(spec: Recurrence, dtype: torch.dtype) -> None:
    operands, state = draw(spec, dtype=dtype)
    if dtype == torch.float64:
        agree(spec, operands, state, forward=1e-12, backward=1e-12)
        return
    actual = run(compile(spec), spec, operands, state)
    expected = dict(run(None, spec, exact(operands), exact(state)).items())
    for name, tensor in actual.items():
        assert tensor.dtype == (torch.float32 if name.startswith("final") else dtype), name
        one_rounding = error(expected[name].to(tensor.dtype), expected[name])
        # Products of bfloat16 weights round their rows too, about as much as a result.
        in_pairs = 2.5e-3 if dtype == torch.bfloat16 and programs(spec).rows else 0.0
        assert error(tensor, expected[name]) <= math.hypot(one_rounding, in_pairs) + 1e-5, name


def test_dtypes_may_be_mixed() -> None:
    operands, state = draw(zoo.gated_delta_rule)
    for name in ("q", "k", "v"):
        operands[name] = operands[name].bfloat16()
    actual = run(compile(zoo.gated_delta_rule), zoo.gated_delta_rule, operands, state)
    expected = dict(run(None, zoo.gated_delta_rule, exact(operands), exact(state)).items())
    dtypes = {n: t.dtype for n, t in actual.items()}
    assert {n for n, d in dtypes.items() if d == torch.bfloat16} == {
        "out", "gradient of q", "gradient of k", "gradient of v"
    }  # fmt: skip
    for name, tensor in actual.items():
        one_rounding = error(expected[name].to(tensor.dtype), expected[name])
        assert error(tensor, expected[name]) <= one_rounding + 1e-5, name


def test_one_operand_in_float64_makes_arithmetic_and_states_float64() -> None:
    operands, state = draw(zoo.hgrn)
    operands["g"] = operands["g"].double()
    actual = run(compile(zoo.hgrn), zoo.hgrn, operands, state)
    assert actual.outputs["out"].dtype == torch.float32
    assert actual.final["h"].dtype == torch.float64
    assert actual.gradients["g"].dtype == torch.float64
    assert error(actual.final["h"], reference(zoo.hgrn, operands, state)[1]["h"]) <= 1e-12


# -- what is asked for ---------------------------------------------------------------------------------------


@recurrence
def several(
    s=State("D", init=0.5), h=State(2, "D", dtype="float64"), x=Input("D", 2), w=Param("D"), gain=Scalar()
):
    """Axes with a size after named ones; several outputs; a state in float64; a scalar without a default."""
    s = w * s + x[:, 0]
    h = gain * h + x[:, 1]
    return (s, h), {"sum": s + h[0], "both": x.T + h, "unused": s * 0}


def test_several_outputs_come_by_name() -> None:
    operands, state = draw(several)
    state["h"] = state["h"].double()
    out, final = compile(several)(state=state, gain=torch.tensor(0.5), **operands)
    expected, last = reference(several, {**operands, "gain": 0.5}, state)
    assert isinstance(out, dict) and isinstance(expected, dict)
    assert {n: list(t.shape) for n, t in out.items()} == {n: list(t.shape) for n, t in expected.items()}
    assert all(error(out[n], t) <= 1e-6 for n, t in expected.items())
    assert all(final[n].dtype == torch.float64 and error(final[n], t) <= 1e-12 for n, t in last.items())


@pytest.mark.parametrize("wanted", ["out", "final"])
@pytest.mark.parametrize("spec", [zoo.gla, zoo.lstm, zoo.mlstm], ids=lambda s: s.name)
def test_a_loss_may_look_at_one_result(spec: Recurrence, wanted: str) -> None:
    operands, state = draw(spec)
    leaves = {n: t.requires_grad_() for n, t in {**operands, **state}.items()}

    def gradients(call: Callable[..., tuple[Tensor | Values, Values]]) -> tuple[Tensor | None, ...]:
        out, final = call()
        loss = only(out).square().sum() if wanted == "out" else next(iter(final.values())).square().sum()
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)

    given, first = {n: leaves[n] for n in operands}, {n: leaves[n] for n in state}
    found = gradients(lambda: compile(spec)(state=first, **given))
    expected = gradients(lambda: reference(spec, given, first))
    for n, a, b in zip(leaves, found, expected, strict=True):
        assert error(torch.zeros(()) if a is None else a, torch.zeros_like(leaves[n]) if b is None else b) <= 5e-5


def test_gradients_go_only_where_they_are_asked_for() -> None:
    operands, state = draw(zoo.gla)
    operands["k"].requires_grad_()
    out, _ = compile(zoo.gla)(state=state, **operands)
    only(out).sum().backward()
    assert operands["k"].grad is not None
    assert operands["q"].grad is None and state["S"].grad is None
    with torch.no_grad():
        out, final = compile(zoo.gla)(state=state, **operands)
    assert not only(out).requires_grad and not final["S"].requires_grad


def test_a_scalar_overrides_its_default() -> None:
    operands, state = draw(zoo.gla)
    kernel = compile(zoo.gla)
    half, _ = kernel(state=state, scale=0.5, **operands)
    whole, _ = kernel(state=state, scale=torch.tensor(1.0), **operands)
    assert torch.equal(2 * only(half), only(whole))


# -- torch ---------------------------------------------------------------------------------------------------


class Layer(torch.nn.Module):
    """Projections around a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.project = torch.nn.Linear(8, 3 * 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 6)).unbind(2)
        out, final = self.kernel(q=q, k=k, v=v, g=-torch.nn.functional.softplus(k))
        return only(out).flatten(2) + final["S"].sum()


def test_torch_compile_sees_one_node_and_gives_the_same() -> None:
    torch.manual_seed(0)
    layer = Layer(compile(zoo.gla))
    x = torch.randn(2, 5, 8)
    traced = torch.compile(layer, fullgraph=True, backend="aot_eager")
    results = []
    for call in (layer, traced):
        layer.zero_grad()
        out = call(x)
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)])
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
def test_torch_compile_takes_a_step(in_place: bool) -> None:
    operands, state = draw(zoo.gla, time=1)
    kernel = compile(zoo.gla)
    now = {n: t[:, 0].contiguous() for n, t in operands.items()}
    expected, last = kernel.step(state=state, **now)

    def step(first: Tensor, now: Values) -> tuple[Tensor | Values, Values]:
        return kernel.step(state={"S": first}, in_place=in_place, **now)

    here = state["S"].clone()
    out, final = torch.compile(step, fullgraph=True, backend="aot_eager")(here, now)
    assert torch.equal(only(out), only(expected)) and torch.equal(final["S"], last["S"])
    assert torch.equal(here, last["S"] if in_place else state["S"])


def test_the_operator_keeps_the_rules_of_torch() -> None:
    operands, state = draw(zoo.gla, time=3)
    kernel = compile(zoo.gla)
    tensors = [operands[n].requires_grad_() for n in kernel.tensor_names]
    arguments = (kernel.name, tensors, "S", [state["S"]], "", [], None, None, False)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.rekern.forward.default, (*arguments, True), test_utils=tests)
