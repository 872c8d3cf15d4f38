"""Arrays of a step mean what NumPy means: against torch on real data, against NumPy on random programs.

And what they refuse, in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import rekern.math as rm
from conftest import Golden
from random_operands import SIZES, random_operands
from rekern import zoo
from rekern.errors import SpecError
from rekern.math import outer
from rekern.reference import reference
from rekern.spec import Input, Operand, Param, Recurrence, Scalar, State, recurrence, scalar_value
from rekern.trace import Array, operand
from wrong_specs import catalogue, wrong

# -- a body on real data -------------------------------------------------------------------------------------


@recurrence
def lesser_used(
    s=State("D"), A=State(2, "K", "V"), x=Input("D"), k=Input("K"), W=Param("D", "D"), eps=Scalar(default=0.1)
):
    """What no published recurrence here uses."""
    top = rm.max(x, axis=0)
    p = rm.exp(x - top)
    s = rm.where(x > 0, W.T @ s, rm.minimum(s, 2) - eps) * p / rm.sum(p, axis=0)
    A = A * rm.mean(A, axis=(0, -1), keepdims=True) + rm.tanh(k)[:, None] ** 3
    y = rm.logaddexp(s, abs(x)) + rm.rsqrt(rm.square(x) + eps) ** 2 - rm.silu(-x) / 2
    n = rm.sum(A, axis=(0, 1)) + ((s[None] >= 0) * x)[0] @ x
    return (s, A), {"y": y, "z": A[-1] + A[0, :, None, :][..., 0, :], "n": n}


def by_hand(
    spec: Recurrence, operands: dict[str, Tensor], state: dict[str, Tensor]
) -> tuple[Any, dict[str, Tensor]]:
    """The body itself, step by step, on tensors without batch and heads."""
    scalars = {o.name: scalar_value(spec, o, SIZES) for o in spec.of_kind("scalar")}

    def body(
        state: dict[str, Tensor], now: dict[str, Tensor], params: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Any]:
        new, out = spec.function(**state, **now, **params, **scalars)
        return dict(zip(state, new if isinstance(new, tuple) else (new,), strict=True)), out

    step = torch.vmap(torch.vmap(body), in_dims=(0, 0, None))
    inputs = [o.name for o in spec.of_kind("input")]
    params = {n: t for n, t in operands.items() if n not in inputs}
    outs = []
    for t in range(operands[inputs[0]].shape[1]):
        state, out = step(state, {n: operands[n][:, t] for n in inputs}, params)
        outs.append(out)
    if isinstance(outs[0], dict):
        return {n: torch.stack([o[n] for o in outs], 1) for n in outs[0]}, state
    return torch.stack(outs, 1), state


SPECS = [s.bind(n=2) if "n" in s.axes else s for s in map(zoo.load, zoo.names())]


@pytest.mark.parametrize("spec", [*SPECS, lesser_used], ids=lambda s: s.name)
def test_formulas_mean_what_the_body_does_to_tensors(spec: Recurrence) -> None:
    operands, state = random_operands(spec, time=3)
    torch.testing.assert_close(
        reference(spec, operands, state), by_hand(spec, operands, state), rtol=1e-12, atol=1e-12
    )


# -- random programs against NumPy ---------------------------------------------------------------------------

LENGTHS = {"K": 4, "V": 5}  # no two axes that differ have one length, so NumPy refuses what we must refuse
OPERANDS = {
    "a": ("K",),
    "b": (2, "K"),
    "c": ("K", 3, "V"),
    "d": (3,),
    "e": ("V", "K"),
    "f": (),
    "g": (3, 1, "K"),
}
OPERANDS |= {"h": ("K", "K"), "i": (2, "V", 2)}


@dataclass
class Pair:
    """One value, both ways."""

    array: Array
    numpy: np.ndarray[Any, Any]


Both = tuple[Callable[..., Array], Callable[..., Any]]
ELEMENTWISE: dict[str, tuple[int, Both]] = {
    "+": (2, (lambda a, b: a + b, np.add)),
    "-": (2, (lambda a, b: a - b, np.subtract)),
    "*": (2, (lambda a, b: a * b, np.multiply)),
    "/": (2, (lambda a, b: a / (1 + b * b), lambda a, b: a / (1 + b * b))),
    "<": (2, (lambda a, b: a < b, np.less)),
    ">=": (2, (lambda a, b: a >= b, np.greater_equal)),
    "!=": (2, (lambda a, b: a != b, np.not_equal)),
    "==": (2, (lambda a, b: a == b, np.equal)),
    "maximum": (2, (rm.maximum, np.maximum)),
    "minimum": (2, (rm.minimum, np.minimum)),
    "where": (3, (lambda c, a, b: rm.where(c > 0, a, b), lambda c, a, b: np.where(c > 0, a, b))),
    "neg": (1, (lambda a: -a, np.negative)),
    "abs": (1, (abs, np.abs)),
    "tanh": (1, (rm.tanh, np.tanh)),
    "square": (1, (lambda a: a**2, np.square)),
    "reflected": (1, (lambda a: 2 - 3 * a + 1 / (2 + a * a), lambda a: 2 - 3 * a + 1 / (2 + a * a))),
}
REDUCTIONS: dict[str, Both] = {"sum": (rm.sum, np.sum), "max": (rm.max, np.max), "mean": (rm.mean, np.mean)}


@dataclass
class Program:
    """A pool of values that grows by one with each operation."""

    pool: list[Pair]
    text: list[str] = field(default_factory=list)

    def grow(
        self, text: str, ours: Callable[..., Array], theirs: Callable[..., Any], *arguments: Pair
    ) -> None:
        """Both do it, or both refuse."""
        self.text.append(text)
        try:
            array = ours(*(p.array for p in arguments))
        except SpecError as error:
            if "unrolls into" in str(error):
                return
            with pytest.raises((ValueError, IndexError)):
                theirs(*(p.numpy for p in arguments))
        else:
            self.pool.append(Pair(array, np.asarray(theirs(*(p.numpy for p in arguments)), dtype=np.float64)))


def pick(data: st.DataObject, program: Program) -> Pair:
    return data.draw(st.sampled_from(program.pool[::-1]))


def key_for(data: st.DataObject, array: Array) -> tuple[Any, ...]:
    """Numbers on literal axes, ':' on any, None in between, now and then '...'."""
    key: list[Any] = []
    for dim in array.dims:
        key += [None] * data.draw(st.integers(0, 1))
        whole = st.just(slice(None))
        key.append(data.draw(st.integers(-dim, dim - 1) | whole if isinstance(dim, int) else whole))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(key)))
        rest = data.draw(st.integers(at, len(key)))
        if all(k == slice(None) for k in key[at:rest]):
            key[at:rest] = [...]
    return tuple(key)


def operation(data: st.DataObject, program: Program) -> None:
    kind = data.draw(
        st.sampled_from(["elementwise", "elementwise", "index", "T", "@", "@", "reduce", "outer", "unpack"])
    )
    first = pick(data, program)
    match kind:
        case "elementwise":
            name = data.draw(st.sampled_from(sorted(ELEMENTWISE)))
            arity, (ours, theirs) = ELEMENTWISE[name]
            program.grow(name, ours, theirs, first, *(pick(data, program) for _ in range(arity - 1)))
        case "index":
            key = key_for(data, first.array)
            program.grow(f"[{key}]", lambda a: a[key], lambda a: a[key], first)
        case "T":
            program.grow("T", lambda a: a.T, lambda a: a.T, first)
        case "@":
            program.grow("@", lambda a, b: a @ b, np.matmul, first, pick(data, program))
        case "reduce" if first.array.ndim:  # NumPy lets axis 0 of a number pass
            name = data.draw(st.sampled_from(sorted(REDUCTIONS)))
            ours, theirs = REDUCTIONS[name]
            choice = st.integers(-3, 2)
            axis = data.draw(choice | st.tuples(choice) | st.tuples(choice, choice))
            keep = data.draw(st.booleans())
            program.grow(
                f"{name}({axis}, {keep})",
                lambda a: ours(a, axis=axis, keepdims=keep),
                lambda a: theirs(a, axis=axis, keepdims=keep),
                first,
            )
        case "outer":
            if first.array.ndim == 1 and (second := pick(data, program)).array.ndim == 1:
                program.grow("outer", rm.outer, np.outer, first, second)
        case "unpack":
            if first.array.ndim and isinstance(first.array.dims[0], int):
                program.grow("unpack", lambda a: [*a][-1] + len(a), lambda a: [*a][-1] + len(a), first)


@given(st.data())
def test_random_programs_mean_what_they_mean_in_numpy(data: st.DataObject) -> None:
    generator = np.random.default_rng(0)
    values = {n: generator.normal(size=[LENGTHS.get(d, d) for d in dims]) for n, dims in OPERANDS.items()}
    program = Program([Pair(operand(n, dims), np.asarray(values[n])) for n, dims in OPERANDS.items()])
    for _ in range(data.draw(st.integers(1, 6))):
        operation(data, program)
    result = program.pool[-1]
    declared = [Operand(n, "input", dims) for n, dims in OPERANDS.items()]
    spec = Recurrence("program", (Operand("s", "state"), *declared), lambda s, **_: (s, result.array))
    tensors = {n: torch.as_tensor(v)[None, None, None] for n, v in values.items()}
    out, _ = reference(spec, tensors)
    assert isinstance(out, Tensor)
    assert out.shape[3:] == result.numpy.shape, program.text
    largest = max(np.abs(p.numpy).max() for p in program.pool)
    np.testing.assert_allclose(
        out[0, 0, 0], result.numpy, rtol=1e-9, atol=1e-12 * (1 + largest), err_msg=str(program.text)
    )


# -- what is refused -----------------------------------------------------------------------------------------


@wrong
def axes_do_not_meet(h=State("D"), S=State("K", "V"), k=Input("K"), x=Input("D")):
    h = h + x
    S = S + h * (k + 1)
    return (h, S), h


@wrong
def a_matrix_meets_the_wrong_side(S=State("K", "V"), v=Input("V")):
    return S, v @ S


@wrong
def a_vector_is_of_another_axis(S=State("K", "V"), k=Input("K")):
    return S, S @ k


@wrong
def a_matrix_product_with_a_number(h=State("D"), g=Input()):
    return h, g @ h


@wrong
def outer_of_a_matrix(S=State("K", "V"), k=Input("K")):
    return outer(k, S), k


@wrong
def a_named_axis_is_unpacked(h=State("D"), x=Input("G", "D")):
    i, f = x
    return i * h + f, h


@wrong
def a_number_is_unpacked(h=State(), x=Input()):
    for part in x:
        h = h + part
    return h, h


@wrong
def a_named_axis_is_indexed(h=State("D"), x=Input("D")):
    first = x[0]
    return h + first, h


@wrong
def an_index_is_too_large(h=State("D"), x=Input(3, "D")):
    return h + x[0] * x[3], h


@wrong
def too_many_indices(h=State("D"), x=Input(3, "D")):
    return h, x[0, :, :]


@wrong
def a_slice(h=State("D"), x=Input(3, "D")):
    return h, x[:2]


@wrong
def an_index_that_is_none_of_these(h=State("D"), x=Input(3, "D")):
    return h, x["first"]


@wrong
def an_index_that_is_a_truth_value(h=State("D"), x=Input(3, "D")):
    return h, x[True]


@wrong
def two_ellipses(h=State("D"), x=Input(3, "D")):
    return h, x[..., ...]


@wrong
def an_axis_that_is_not_there(h=State("D"), x=Input("D")):
    return h, rm.mean(x, axis=(0, 1))


@wrong
def an_axis_given_twice(h=State("D"), x=Input(3, "D")):
    return h, rm.mean(x, axis=(0, -2))


@wrong
def a_branch_on_data(h=State("D"), x=Input("D"), g=Input()):
    if g > 0:
        h = h + x
    return h, h


@wrong
def a_condition_chain(h=State("D"), x=Input("D")):
    return h, rm.where(0 < x < 1, x, h)


@wrong
def the_maths_of_python(h=State("D"), g=Input()):
    h = h * math.exp(g)
    return h, h


@wrong
def the_maths_of_numpy(h=State("D"), g=Input("D")):
    return h, h * np.exp(g)


@wrong
def the_maths_of_torch(h=State("D"), g=Input("D")):
    return h, h * torch.exp(g)


@wrong
def an_assignment_to_a_part(h=State(2, "D"), x=Input("D")):
    h[0] = x
    return h, x


@wrong
def a_word(h=State("D"), x=Input("D")):
    return h, h + "x"


@wrong
def an_odd_exponent(h=State("D"), x=Input("D")):
    return h, (1 + x * x) ** 1.5


@wrong
def a_long_literal_axis(h=State(16, 8)):
    return h, h


@wrong
def letters_of_the_paper(h=State("D"), α=Input("D"), β=Input(2)):
    γ = α + β + "δ"
    return h, γ


@wrong
def an_expression_over_several_lines(h=State("D"), x=Input("D")):
    total = (
        h
        + x
        + x[0]
    )  # fmt: skip
    return h, total


@wrong
def a_function_of_the_users(h=State("D"), x=Input("D")):
    return gate(h, x), h


def gate(h: Array, x: Array) -> Array:
    return h * x[0]


def test_messages(golden: Golden) -> None:
    golden(catalogue(__name__))
