"""Logarithms of decays and ranges of formulas, held to sampled values."""

import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_checks import (
    ZOO,
    assert_same,
    evaluate,
    random_values,
)
from rekern import ir
from rekern.analysis.bounds import bounds, overflow_risks
from rekern.analysis.logs import Reason, log_decay
from rekern.analysis.wording import formula
from rekern.math import (
    exp,
    expm1,
    log,
    log1p,
    log_sigmoid,
    logaddexp,
    maximum,
    mean,
    minimum,
    relu,
    sigmoid,
    silu,
    softplus,
    sqrt,
    square,
    tanh,
    where,
)
from rekern.math import max as largest
from rekern.math import sum as total
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence
from rekern.trace import Array, as_array

# -- logarithms ----------------------------------------------------------------------------------------------


@recurrence
def gates(
    h=State("D"), x=Input("D"), f=Input(), g=Input(at_most=0), p=Input(at_least=0),
    u=Input(at_least=0.5, at_most=1), s=Scalar(),
):
    return h + x, f * g * p * u * s * h


def operands(spec: Recurrence) -> dict[str, Array]:
    return {o.name: Array((), {(): ir.read(o.name)}) for o in spec.operands}


F, G, P, U, S_ = (operands(gates)[n] for n in "fgpus")


@pytest.mark.parametrize(
    ("decay", "logarithm"),
    [
        (exp(G) * sigmoid(F), "g + log_sigmoid(f)"),
        (1 / (1 + exp(F)), "log_sigmoid(-f)"),
        (1 - sigmoid(F), "log_sigmoid(-f)"),
        (exp(-softplus(F)), "log_sigmoid(-f)"),
        (0.5 * (1 + tanh(F)), "log_sigmoid(2 * f)"),
        (U, "log(u)"),
        (sqrt(U) / square(exp(F)), "0.5 * log(u) - 2 * f"),
        (exp(G) / (exp(G) + exp(F)), "g - logaddexp(g, f)"),
        (maximum(exp(G), sigmoid(F)), "maximum(g, log_sigmoid(f))"),
        (where(F > 0, exp(G), 1), "where(f > 0, g, 0)"),
        (1 + P, "log1p(p)"),
        (0.5 + 0.5 * sigmoid(F), "log(0.5 + 0.5 * sigmoid(f))"),
        (2 - U, "log(2 - u)"),
    ],
)
def test_logarithms_of_positive_formulas(decay: Array, logarithm: str) -> None:
    found = log_decay(decay.cells[()], gates)
    assert not isinstance(found, Reason), str(found)
    assert formula(found) == logarithm
    for seed in range(5):
        assert_same(ir.apply("exp", found), decay.cells[()], gates, seed)


@pytest.mark.parametrize(
    ("decay", "reason"),
    [
        (F, "may be negative: 'f' has no at_least fact"),
        (S_, "may be negative: scalar 's' can have any sign"),
        (tanh(F), "may be negative: tanh(f) is in [-1, 1]"),
        (-exp(G), "it is never positive: -exp(g) is at most 0"),
        (1 - P, "may be negative: 1 - p is in (-inf, 1]"),
        (P, "may be 0, where its logarithm is not finite: p is in [0, inf)"),
        (softplus(F), "may be 0, where its logarithm is not finite: softplus(f) is in [0, inf)"),
        (exp(G) * F, "may be negative: 'f' has no at_least fact"),
        (
            where(F > 0, exp(G), 0),
            "it is 0 where a condition holds: where(f > 0, exp(g), 0); to restart, pass reset=...",
        ),
        (0 * G, "it is 0: nothing of the state is kept"),
    ],
)
def test_reasons_why_there_is_no_logarithm(decay: Array, reason: str) -> None:
    found = log_decay(decay.cells[()], gates)
    assert isinstance(found, Reason)
    assert str(found) == reason


# -- ranges --------------------------------------------------------------------------------------------------

UNARY = [exp, expm1, log, log1p, sqrt, tanh, sigmoid, log_sigmoid, softplus, relu, square, silu, abs]
BINARY = [maximum, minimum, logaddexp, operator.add, operator.sub, operator.mul, operator.truediv]


@recurrence
def facts_of_all_kinds(
    h=State(), a=Input(), b=Input(at_most=0), c=Input(at_least=0),
    d=Param(at_least=-2, at_most=3), e=Param(at_least=0.1),
):
    return h + a, b * c * d * e


LEAVES = [*operands(facts_of_all_kinds).values(), *map(as_array, (-1, 0, 0.5, 2))]
FORMULAS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(UNARY), inner).map(lambda t: t[0](t[1])),
        st.tuples(st.sampled_from(BINARY), inner, inner).map(lambda t: t[0](t[1], t[2])),
    ),
    max_leaves=8,
)


@given(value=FORMULAS, seed=st.integers(0, 1000))
def test_values_lie_within_their_bounds(value: Array, seed: int) -> None:
    node = value.cells[()]
    low, high = bounds(node, facts_of_all_kinds)
    for n in range(8):
        seen = float(evaluate(node, facts_of_all_kinds, random_values(facts_of_all_kinds, seed + n)))
        slack = 1e-9 * max(1.0, abs(seen))
        assert not math.isfinite(seen) or low - slack <= seen <= high + slack


@given(value=FORMULAS, seed=st.integers(0, 1000))
def test_logarithms_that_are_given_are_logarithms(value: Array, seed: int) -> None:
    node = value.cells[()]
    found = log_decay(node, facts_of_all_kinds)
    if isinstance(found, Reason):
        return
    for n in range(4):
        values = random_values(facts_of_all_kinds, seed + n)
        exact = float(evaluate(node, facts_of_all_kinds, values))
        again = float(evaluate(ir.apply("exp", found), facts_of_all_kinds, values))
        if math.isfinite(exact) and math.isfinite(again):
            assert exact == pytest.approx(again, rel=1e-6, abs=1e-250)


M, I_, V_ = LEAVES[0], LEAVES[1], LEAVES[3]


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (M - maximum(M, I_), "(-inf, 0]"),
        (log_sigmoid(I_) + M - maximum(log_sigmoid(I_) + M, V_), "(-inf, 0]"),
        (I_ - maximum(log_sigmoid(I_) + M, I_), "(-inf, 0]"),
        (log_sigmoid(I_) + (M - maximum(M + log_sigmoid(I_), V_)), "(-inf, 0]"),
        (M - logaddexp(M, I_), "(-inf, 0]"),
        (I_ - softplus(I_), "(-inf, 0]"),
        (minimum(M, I_) - I_, "(-inf, 0]"),
        (maximum(maximum(M, I_), V_) - I_, "[0, inf)"),
        (sigmoid(I_) / (sigmoid(I_) + sigmoid(M)), "[0, 1]"),
        (1 - sigmoid(I_), "[0, 1]"),
        (exp(LEAVES[2]), "[0, 1]"),
        (tanh(I_) * tanh(M), "[-1, 1]"),
        (I_ * I_, "[0, inf)"),
    ],
)
def test_ranges_of_differences_see_what_cancels(value: Array, interval: str) -> None:
    assert str(bounds(value.cells[()], facts_of_all_kinds)) == interval


@recurrence
def vectors(S=State("K"), k=Input("K", unit_norm=True), q=Input("K", unit_norm=True), y=Input("K")):
    shifted = exp(y - largest(y, axis=0))
    return S + k, {"norm": total(k * k), "cosine": q @ k, "weights": shifted, "mean": mean(sigmoid(y))}


def test_norms_and_maxima_over_an_axis_have_bounds() -> None:
    found = {name: str(bounds(cells[()], vectors)) for name, cells in vectors.step.outputs.items()}
    assert found == {"norm": "[1, 1]", "cosine": "[-1, 1]", "weights": "[0, 1]", "mean": "[0, 1]"}


def test_exponentials_that_may_overflow_are_named() -> None:
    risks = {s.name: [formula(n) for n in overflow_risks(s)] for s in ZOO}
    assert {name for name, found in risks.items() if found} == {"mlstm"}
    assert risks["mlstm"] == ["exp(-maximum(log_sigmoid(f) + m, i))"]
