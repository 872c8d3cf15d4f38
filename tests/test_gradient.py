"""The gradient of a step: its formulas by value against autograd, slopes of every function, ties, what is kept."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from kernel_checks import SPECS, Values, agree, cotangents, draw, error, threads
from rekern import ir, zoo
from rekern.api import compile
from rekern.errors import DoubleBackwardError
from rekern.functions import FUNCTIONS, Function
from rekern.gradient import cotangent, gradient
from rekern.ir import Apply, Node, Number, Read
from rekern.reference import StepFunction, axis_lengths, reference
from rekern.runtime.arguments import check
from rekern.runtime.signature import Options
from rekern.spec import Input, Operand, Recurrence, State, Step, derived, recurrence, scalar_value
from rekern.trace import Cell

SMALL = {"D": 5, "K": 4, "V": 3, "N": 2}

# -- slopes --------------------------------------------------------------------------------------------------

GRID = [-1e4, -90.0, -20.0, -1.5, -1.0, -0.5, -1e-6, 0.0, 1e-6, 0.5, 1.0, 1.5, 20.0, 90.0, 1e4]
DOMAIN = {"log": 0.0, "sqrt": 0.0, "rsqrt": 0.0, "log1p": -1.0}  # arguments above this


def value_of(node: Node, values: Mapping[str, Tensor]) -> Tensor:
    match node:
        case Number():
            return torch.tensor(node.value, dtype=torch.float64)
        case Read():
            return values[node.operand]
        case Apply():
            arguments = torch.broadcast_tensors(*(value_of(a, values) for a in node.arguments))
            return FUNCTIONS[node.function].torch(*arguments)
        case _:
            raise AssertionError(f"{node} is no formula of numbers")


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_slopes_are_those_of_torch(function: Function) -> None:
    """At edges and ties too."""
    lowest = DOMAIN.get(function.name, -math.inf)
    points = torch.tensor([x for x in GRID if x > lowest], dtype=torch.float64)
    arguments = torch.cartesian_prod(*[points] * function.arity).view(-1, function.arity).unbind(1)
    leaves = [a.clone().requires_grad_() for a in arguments]
    result = function.torch(*leaves)
    expected: tuple[Tensor | None, ...] = (None,) * function.arity
    if result.requires_grad:
        expected = torch.autograd.grad(result.sum(), leaves, allow_unused=True)
    names = [f"a{n}" for n in range(function.arity)]
    values = dict(zip(names, arguments, strict=True)) | {"y": result.detach()}
    slopes = function.partials(ir.read("y"), *map(ir.read, names))
    assert len(slopes) == function.arity
    for slope, wanted in zip(slopes, expected, strict=True):
        found = torch.zeros(()) if slope is None else value_of(slope, values)
        wanted = torch.zeros(()) if wanted is None else wanted
        torch.testing.assert_close(
            *torch.broadcast_tensors(found.double(), wanted.double()), rtol=1e-9, atol=1e-300, equal_nan=True
        )


# -- formulas of a whole step --------------------------------------------------------------------------------


def evaluated(
    spec: Recurrence,
    values: Values,
    formulas: Mapping[str, tuple[tuple[int | str, ...], Mapping[Cell, Node]]],
    extra: Mapping[str, tuple[int | str, ...]],
) -> Values:
    """Arrays of formulas [B, H, *dims] in the operands of `spec` and in further arrays (`extra`: their dims)."""
    states = {
        o.name: {cell: ir.read(o.name, cell, ir.canonical_axes(o.axes)) for cell in spec.step.states[o.name]}
        for o in spec.states
    }
    operands = (*spec.operands, *(Operand(name, "input", dims) for name, dims in extra.items()))
    outputs = {name: dict(cells) for name, (_, cells) in formulas.items()}
    step = Step(states, outputs, {name: dims for name, (dims, _) in formulas.items()}, single_output=False)
    sizes = axis_lengths(spec, values)
    scalars = {o.name: scalar_value(spec, o, sizes) for o in spec.of_kind("scalar")}
    return StepFunction(derived("formulas", operands, step), sizes)(values, scalars)[1]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_the_formulas_of_the_gradient_are_those_of_autograd(spec: Recurrence) -> None:
    operands, state = draw(spec, time=1, sizes=SMALL, dtype=torch.float64)
    leaves = {n: t.clone().requires_grad_() for n, t in {**operands, **state}.items()}
    out, final = reference(spec, {n: leaves[n] for n in operands}, {n: leaves[n] for n in state})
    outputs = {"out": out} if isinstance(out, Tensor) else out
    given = cotangents([*outputs.values(), *final.values()])
    expected = torch.autograd.grad([*outputs.values(), *final.values()], list(leaves.values()), given)

    back = gradient(spec)
    inputs = {o.name for o in spec.of_kind("input")}
    values = {n: t[:, 0] if n in inputs else t if n in state else t[None] for n, t in (operands | state).items()}
    kept_dims = {k.name: tuple(i.dim for i in k.axes) for k in back.kept}
    values |= evaluated(spec, values, {k.name: (kept_dims[k.name], {(): k.value}) for k in back.kept}, {})
    names = [*spec.step.output_dims, *final]
    values |= {
        cotangent(n): t[:, 0] if n in outputs else t for n, t in zip(names, given, strict=True)
    }
    extra = kept_dims | {cotangent(n): d for n, d in spec.step.output_dims.items()}
    extra |= {cotangent(o.name): o.dims for o in spec.states}
    groups = back.states | back.inputs | back.params
    formulas = {f"of {n}": (spec.operand(n).dims, cells) for n, cells in groups.items()}
    found = evaluated(spec, values, formulas, extra)
    for name, wanted in zip(leaves, expected, strict=True):
        mine = found[f"of {name}"]
        mine = mine[:, None] if name in inputs else mine if name in state else mine.sum(0)
        assert error(mine, wanted) <= 1e-13, name


# -- ties ----------------------------------------------------------------------------------------------------


@recurrence
def ties(s=State("D"), m=State(), x=Input("D"), y=Input("D")):
    """Maxima of equal numbers: of two, of a row, and of a row of computed numbers."""
    from rekern.math import max, maximum, minimum

    s = maximum(0.5 * s, 0.5 * x) + minimum(x, y)
    return (s, max(x, axis=0) + 0.25 * m), {"a": max(x * y + 1, axis=0), "b": maximum(max(y, axis=0), m)}


def test_equal_numbers_share_the_gradient_of_a_maximum() -> None:
    """In halves for two numbers, in equal parts for a row, as torch has it."""
    operands, state = draw(ties, sizes={"D": 20})
    operands["x"][:, :3] = 0.5
    operands["y"][:, :5] = operands["x"][:, :5]
    operands["x"][:, 6, :, 3::4] = 2.0
    operands["y"][:, 6, :, 3::4] = -1.0
    state["s"] = operands["x"][:, 0].clone()
    state["m"] = operands["y"][:, 0].amax(-1)
    agree(ties, operands, state)


# -- twice, and by differences -------------------------------------------------------------------------------


def test_a_second_derivative_is_refused() -> None:
    operands, _ = draw(zoo.gla, time=3)
    leaves = {n: t.requires_grad_() for n, t in operands.items()}
    out, _ = compile(zoo.gla)(**leaves)
    assert isinstance(out, Tensor)
    (first,) = torch.autograd.grad(out.square().sum(), leaves["q"], create_graph=True)
    with pytest.raises(DoubleBackwardError) as caught:
        torch.autograd.grad(first.sum(), leaves["q"])
    assert str(caught.value) == (
        "the gradient of a rekern kernel is not differentiable again\n"
        "leave out create_graph=True, or take second derivatives through rekern.reference"
    )


@pytest.mark.parametrize("spec", [zoo.lstm, zoo.gla, zoo.mlstm], ids=lambda s: s.name)
def test_the_gradient_is_the_limit_of_differences(spec: Recurrence) -> None:
    operands, state = draw(spec, batch=1, time=5, sizes={"D": 60, "K": 2, "V": 60}, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (operands | state).values()]
    kernel = compile(spec)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip([*operands, *state], tensors, strict=True))
        out, final = kernel(state={n: given[n] for n in state}, **{n: given[n] for n in operands})
        assert isinstance(out, Tensor)
        return (out, *final.values())

    with threads(2):
        assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


# -- memory --------------------------------------------------------------------------------------------------


def kept_numbers(spec: Recurrence, time: int, sizes: Mapping[str, int]) -> int:
    """What the forward pass of one sequence and head leaves for the gradient."""
    operands, state = draw(spec, batch=1, heads=1, time=time, sizes=sizes)
    kernel = compile(spec)
    arguments = check(spec, operands, state)
    with threads(2):
        options = Options(False, 2, True, False, False, tuple(False for _ in spec.of_kind("scalar")))
        saved = kernel.executor.forward_loop(arguments, None, options).saved
    assert saved is not None
    return saved.shape[0]


matrix_states = [s for s in SPECS if any(len(o.axes) > 1 for o in s.states)]


@pytest.mark.parametrize("spec", matrix_states, ids=lambda s: s.name)
def test_matrix_states_are_kept_once_a_block(spec: Recurrence) -> None:
    sizes = {"D": 20, "K": 16, "V": 20, "N": 16}
    lane = 32  # 20 columns in whole vectors of 16; a single number takes a vector too
    one = sum(max(16, math.prod(lane if d in ("V", "D") else 16 for d in o.axes)) for o in spec.states)
    short, long = (kept_numbers(spec, time, sizes) for time in (128, 256))
    assert long - short <= 128 / 4 * one, "more than one state for every four steps"


@pytest.mark.parametrize("spec", [zoo.lstm, zoo.gru, zoo.layer_norm_lstm], ids=lambda s: s.name)
def test_dense_recurrences_keep_rows(spec: Recurrence) -> None:
    """The states and the sums of every step: no larger than the inputs."""
    kept = kept_numbers(spec, 64, {"D": 128})
    rows = sum(o.dims[0] if isinstance(o.dims[0], int) else 1 for o in (*spec.of_kind("input"), *spec.states))
    assert kept <= 65 * (rows + 2) * 128
