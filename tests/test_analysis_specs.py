"""The analysis of other spellings, of what has no parallel form, and of states that wait for one another."""

import math
from collections.abc import Callable

import pytest

from analysis_checks import (
    affine,
    assert_rebuilt,
    outline,
)
from rekern import ir
from rekern.analysis.facts import facts
from rekern.analysis.kinds import Affine, Dense, Pointwise, independent_axes, kind
from rekern.analysis.logs import Reason
from rekern.analysis.readout import readouts
from rekern.analysis.stages import stages
from rekern.analysis.wording import formula
from rekern.ir import Index
from rekern.math import (
    exp,
    log,
    logaddexp,
    maximum,
    minimum,
    outer,
    relu,
    sigmoid,
    sqrt,
    square,
    tanh,
    where,
)
from rekern.math import max as largest
from rekern.math import sum as total
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence
from rekern.trace import Array

# -- other spellings -----------------------------------------------------------------------------------------

K_GATE, GATE, KEY, VALUE = Input("K", at_most=0), Input(at_most=0), Input("K"), Input("V")


@recurrence
def spelt_out(S=State("K", "V"), k=KEY, v=VALUE, g=GATE, beta=Input()):
    S = S * exp(g) - beta * outer(k, k @ (S * exp(g))) + beta * outer(k, v)
    return S, S


@recurrence
def erased_by_hand(S=State("K", "V"), k=KEY, v=VALUE, g=K_GATE, beta=Input()):
    erased = total(k[:, None] * exp(g)[:, None] * S, axis=0)
    return exp(g)[:, None] * S + outer(beta * k, v - erased), S


@recurrence
def values_first(S=State("V", "K"), k=KEY, v=VALUE, g=GATE, beta=Input()):
    S = exp(g) * S
    S = S + beta * outer(v - S @ k, k)
    return S, S @ k


@recurrence
def decayed_after_writing(S=State("K", "V"), q=Input("K"), k=KEY, v=VALUE, g=GATE):
    S = exp(g) * (S + outer(k, v))
    return S, q @ S


@recurrence
def erased_then_decayed(S=State("K", "V"), q=Input("K"), k=KEY, v=VALUE, g=K_GATE):
    S = exp(g)[:, None] * (S + outer(k, v - k @ S))
    return S, q @ S


@recurrence
def decayed_on_both_sides(S=State("K", "V"), k=KEY, v=VALUE, g=K_GATE, w=Input("V", at_most=0)):
    return exp(g[:, None] + w) * S + outer(k, v), S


@recurrence
def decayed_by_an_outer_product(S=State("K", "V"), k=KEY, v=VALUE, g=K_GATE, w=Input("V", at_most=0)):
    return outer(exp(g), exp(w)) * S + outer(k, v), S


@recurrence
def leaky(h=State("D"), x=Input("D"), z=Input("D")):
    z = 1 / (1 + exp(-z))
    return h + z * (x - h), h


@recurrence
def two_erasures_at_once(S=State("K", "V"), a=KEY, b=KEY, k=KEY, v=VALUE):
    S = S - outer(a, a @ S) - outer(b, b @ S) + outer(k, v)
    return S, S


@recurrence
def both_sides_in_turn(S=State("K", "V"), k=KEY, v=VALUE, g=GATE):
    S = exp(g) * S
    S = S + outer(k, v - k @ S)
    S = S - outer(S @ v, v)
    return S, S


@recurrence
def householder(h=State("K"), k=KEY, x=Input("K"), beta=Input()):
    h = h - beta * k * total(k * h) + x
    return h, h


@recurrence
def without_its_mean(h=State("D"), x=Input("D"), g=Input(at_most=0)):
    h = exp(g) * h
    return h - total(h, axis=0) / 7 + x, h


@recurrence
def quotient(S=State("K", "V"), k=KEY, v=VALUE, t=Input(at_least=1)):
    return (S + outer(k, v)) / t, S


@recurrence
def switched(S=State("K", "V"), k=KEY, v=VALUE, g=GATE, flag=Input()):
    return where(flag > 0, S, exp(g) * S + outer(k, v)), S


@recurrence
def slots(
    A=State("K", "M"), C=State("M", "V"), q=KEY, k=KEY, v=VALUE, s=Input("M"), g=Input("M", at_most=0),
    scale=Scalar(),
):
    A = A * exp(g) + outer(k, s)
    y = scale * (q @ A)
    p = exp(y - largest(y, axis=0))
    C = exp(g)[:, None] * C + outer(s, v)
    return (A, C), (p / total(p, axis=0)) @ C


@recurrence
def running_softmax(S=State("K", "V"), z=State("K", init=-math.inf), q=KEY, k=KEY, v=VALUE):
    z_new = logaddexp(z, k)
    S = exp(z - z_new)[:, None] * S + outer(exp(k - z_new), v)
    return (S, z_new), q @ S


@recurrence
def preconditioned(S=State("K", "V"), a=State("K"), k=KEY, v=VALUE, g=GATE, beta=Input(), eps=Scalar()):
    a = exp(g) * a + beta * k * k
    write = k / (1 + abs(log(a + eps)))
    S = exp(g) * S
    return (S + beta * outer(write, v - k @ S), a), S


SPELLINGS = {
    spelt_out: ("Affine", "scalar", "K after"),
    erased_by_hand: ("Affine", "K", "K after"),
    values_first: ("Affine", "scalar", "V after"),
    decayed_after_writing: ("Affine", "scalar"),
    erased_then_decayed: ("Affine", "K", "K before"),
    decayed_on_both_sides: ("Affine", "K+V"),
    decayed_by_an_outer_product: ("Affine", "K+V"),
    leaky: ("Affine", "elementwise"),
    two_erasures_at_once: ("Affine", "none", "K before", "K before"),
    both_sides_in_turn: ("Affine", "scalar", "K after", "V before"),
    householder: ("Affine", "none", "K before"),
    without_its_mean: ("Affine", "scalar", "K after"),
    quotient: ("Affine", "scalar"),
    switched: ("Affine", "scalar"),
    slots: ("Affine", "M"),
    running_softmax: ("Affine", "K"),
    preconditioned: ("Affine", "scalar", "K after"),
}


@pytest.mark.parametrize("spec", SPELLINGS, ids=lambda s: s.name)
def test_other_spellings_are_understood(spec: Recurrence) -> None:
    assert outline(spec, spec.states[0].name) == SPELLINGS[spec]
    assert_rebuilt(spec)


def test_log_decays_of_other_spellings() -> None:
    logs = {s.name: [str(d.log) if isinstance(d.log, Reason) else formula(d.log) for d in affine(s, o).decay]
            for s in SPELLINGS for o in [s.states[0].name]}  # fmt: skip
    assert logs["leaky"] == ["log_sigmoid(-z[d])"]
    assert logs["decayed_on_both_sides"] == logs["decayed_by_an_outer_product"] == ["g[k]", "w[v]"]
    assert logs["quotient"] == ["-log(t)"]
    assert logs["switched"] == ["where(flag > 0, 0, g)"]
    assert logs["running_softmax"] == ["z[k] - logaddexp(z[k], k[k])"]
    assert all(d.shrinks for s in SPELLINGS for d in affine(s, s.states[0].name).decay)


def test_a_read_before_the_last_scaling_is_found() -> None:
    (found,) = readouts(decayed_after_writing)
    assert (found.when("S"), str(found.epilogue)) == ("after", str(ir.read("@0", (), (Index("V"),))))


def test_a_cascade_reads_through_an_epilogue() -> None:
    (found,) = readouts(slots)
    assert [r.state for r in found.reads] == ["A", "C"]
    assert not found.is_linear


# -- what has no parallel form -------------------------------------------------------------------------------


@recurrence
def hidden_nonlinearity(h=State("D"), x=Input("D"), g=Input(at_most=0)):
    h = exp(g) * h + x
    h = h * sigmoid(h)
    return h, h


@recurrence
def rotation(re=State("D"), im=State("D"), x=Input("D"), a=Param("D"), b=Param("D")):
    return (a * re - b * im + x, a * im + b * re), re


@recurrence
def rotation_of_cells(h=State(2, "D"), x=Input("D"), R=Param(2, 2)):
    return R @ h + x, h


@recurrence
def full_matrix(h=State("D"), x=Input("D"), R=Param("D", "D")):
    return R @ h + x, h


@recurrence
def weighed_by_column(S=State("K", "V"), k=KEY, v=VALUE, beta=Input("V")):
    return S + outer(k, beta * (v - k @ S)), S


@recurrence
def transposed(S=State("K", "K"), k=KEY):
    return S + S.T + outer(k, k), S


@recurrence
def transposed_product(S=State("D", "D"), R=Param("D", "D"), x=Input("D")):
    return S + R @ S.T + outer(x, x), S


@recurrence
def square_softmax(S=State("K", "K"), k=KEY):
    p = exp(S - largest(S, axis=0)) + exp(S.T - largest(S, axis=1)[:, None])
    return p + outer(k, k), S


@recurrence
def normed(S=State("K", "V"), k=KEY, v=VALUE):
    S = S + outer(k, v)
    return S / sqrt(total(square(S), axis=(0, 1)) + 1), S


@recurrence
def reset_before_the_product(h=State("D"), x=Input(2, "D"), R=Param(2, "D", "D")):
    r = sigmoid(x[0] + R[0] @ h)
    h = tanh(x[1] + R[1] @ (r * h))
    return h, h


UNSTRUCTURED = {
    hidden_nonlinearity: "pointwise, not linear in h: silu(exp(g) * h[d] + x[d])",
    rotation: "pointwise, re and im are linear in each other, so a scan would carry 2 x 2 transitions",
    rotation_of_cells: "pointwise, the cells of h need each other",
    full_matrix: "dense, R mixes h along D, 1 product, 1 deep",
    weighed_by_column: "dense, S mixed along K; the low-rank term differs along V: beta[v]",
    transposed: "dense, S is read transposed, S[k', k]",
    transposed_product: "dense, R mixes S along D, 1 product, 1 deep",
    reset_before_the_product: "dense, R mixes h along D, 2 products, 2 deep",
}


@pytest.mark.parametrize("spec", UNSTRUCTURED, ids=lambda s: s.name)
def test_the_reason_is_given_where_there_is_no_parallel_form(spec: Recurrence) -> None:
    assert str(kind(spec, spec.states[0].name)) == UNSTRUCTURED[spec]
    assert_rebuilt(spec)


def test_a_square_state_may_be_normalised_along_both_of_its_axes() -> None:
    assert isinstance(kind(square_softmax, "S"), Dense)
    assert_rebuilt(square_softmax)


def test_a_norm_over_the_state_is_dense() -> None:
    assert isinstance(kind(normed, "S"), Dense)
    assert independent_axes(normed, stages(normed)[0]) == ()


# -- states that keep nothing, run a maximum, or wait for one another ----------------------------------------


@recurrence
def token_shift(h=State("D"), last=State("D"), x=Input("D"), g=Input(at_most=0)):
    return (exp(g) * h + (x + last) / 2, x), h


@recurrence
def momentum(h=State("D"), speed=State("D"), x=Input("D"), mu=Param(at_most=1, at_least=0.5)):
    speed = mu * speed + x
    return (h + speed, speed), h


def test_a_state_that_is_computed_anew_keeps_nothing() -> None:
    assert str(kind(token_shift, "last")) == "affine, elementwise, keeps nothing"
    assert not affine(token_shift, "last").ticks[0].keeps
    assert [s.states for s in stages(token_shift)] == [("last",), ("h",)]
    assert_rebuilt(token_shift)


def test_momentum_comes_before_what_it_moves() -> None:
    assert [s.states for s in stages(momentum)] == [("speed",), ("h",)]
    assert outline(momentum, "h") == ("Affine", "none")
    (decay,) = affine(momentum, "speed").decay
    assert not isinstance(decay.log, Reason)
    assert (formula(decay.log), decay.constant, decay.shrinks) == ("log(mu)", True, True)


def running(step: Callable[[Array, Array, Array], Array]) -> Recurrence:
    def running_state(m=State("D"), a=Input("D"), b=Input("D")):
        m = step(m, a, b)
        return m, m

    return recurrence(running_state)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (lambda m, a, b: maximum(m + a, b), "maximum(a[d] + state, b[d])"),
        (lambda m, a, b: maximum(b, maximum(m - a, a + m)), "maximum(maximum(-a[d], a[d]) + state, b[d])"),
        (lambda m, a, b: maximum(m, b) + a, "maximum(a[d] + state, b[d] + a[d])"),
        (lambda m, a, b: minimum(m, b), "minimum(0 + state, b[d])"),
        (lambda m, a, b: logaddexp(m + a, b), "logaddexp(a[d] + state, b[d])"),
        (lambda m, a, b: relu(m + a), "maximum(a[d] + state, 0)"),
    ],
)
def test_running_maxima_are_max_plus_affine(step: Callable[[Array, Array, Array], Array], text: str) -> None:
    spec = running(step)
    assert str(kind(spec, "m")) == f"max-plus affine, {text}"
    assert_rebuilt(spec)


@pytest.mark.parametrize(
    "step",
    [
        lambda m, a, b: maximum(2 * m, b),
        lambda m, a, b: maximum(m, minimum(m + a, b)),
        lambda m, a, b: maximum(a - m, b),
        lambda m, a, b: maximum(m + tanh(m), b),
    ],
)
def test_other_maxima_are_pointwise(step: Callable[[Array, Array, Array], Array]) -> None:
    assert isinstance(kind(running(step), "m"), Pointwise)


@recurrence
def two_heads(h=State(2, "D"), c=State(), x=Input(2, "D"), g=Input(2, at_most=0), unused=Input("K")):
    h = exp(g)[:, None] * h + x
    c = c + total(x, axis=(0, 1))
    return (h, c), {"both": h, "first": h[0] + c}


def test_literal_cells_have_a_transition_each() -> None:
    found = kind(two_heads, "h")
    assert isinstance(found, Affine)
    assert [t.cell for t in found.transitions] == [(0,), (1,)]
    assert [formula(t.decay[0].factor) for t in found.transitions] == ["exp(g[0])", "exp(g[1])"]
    assert [r.output + str(r.cell) for r in readouts(two_heads)] == ["both(0,)", "both(1,)", "first()"]
    assert "unused is never read" in facts(two_heads).warnings
    assert_rebuilt(two_heads)
