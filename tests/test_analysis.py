"""The analysis of every published recurrence, of other spellings of them, and of random specs, held to values."""

import math
import time
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rekern import ir, zoo
from rekern.analysis.affine import transition
from rekern.analysis.bounds import bounds, overflow_risks
from rekern.analysis.counts import counts
from rekern.analysis.facts import facts
from rekern.analysis.kinds import Affine, Dense, Kind, MaxPlus, Pointwise, independent_axes, kind
from rekern.analysis.logs import Reason, log_decay
from rekern.analysis.polynomial import axis
from rekern.analysis.readout import readouts
from rekern.analysis.stages import stages
from rekern.analysis.transition import Transition
from rekern.analysis.wording import formula
from rekern.functions import FUNCTIONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.math import (
    exp,
    expm1,
    log,
    log1p,
    log_sigmoid,
    logaddexp,
    maximum,
    minimum,
    outer,
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
from rekern.spec import Input, Operand, Param, Recurrence, Scalar, State, recurrence
from rekern.trace import Array

SIZES = {"K": 3, "V": 4, "D": 5, "N": 2, "M": 3, "n": 2}
Values = Mapping[str, Tensor]


def load(name: str) -> Recurrence:
    spec = zoo.load(name)
    return spec.bind(n=2) if "n" in spec.axes else spec


ZOO = [load(name) for name in zoo.names()]


# -- values --------------------------------------------------------------------------------------------------


def evaluate(node: Node, spec: Recurrence, values: Values) -> Tensor:
    """The value of `node`: one axis for each free index, sorted."""
    done: dict[Node, Tensor] = {}

    def aligned(part: Node, order: list[Index]) -> Tensor:
        return done[part][tuple(slice(None) if i in part.free else None for i in order)]

    for n in ir.walk([node]):
        match n:
            case Number():
                done[n] = torch.tensor(n.value, dtype=torch.float64)
            case Size():
                done[n] = torch.tensor(float(SIZES[n.dim]), dtype=torch.float64)
            case Read():
                component = iter(n.component)
                dims = spec.operand(n.operand).dims
                at = tuple(next(component) if isinstance(d, int) else slice(None) for d in dims)
                order = sorted(range(len(n.indices)), key=lambda a: n.indices[a])  # noqa: B023
                done[n] = values[n.operand][at].permute(order)
            case Apply():
                order = sorted(n.free)
                done[n] = FUNCTIONS[n.function].torch(*(aligned(a, order) for a in n.arguments))
            case Reduce():
                place = sorted(n.body.free).index(n.index)
                done[n] = done[n.body].sum(place) if n.operation == "sum" else done[n.body].amax(place)
    return done[node]


def random_operand(o: Operand, generator: torch.Generator) -> Tensor:
    shape = [d if isinstance(d, int) else SIZES[d] for d in o.dims]
    value = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    if o.unit_norm:
        value = value / value.norm(dim=-1, keepdim=True)
    elif o.at_most is not None and o.at_least is not None:
        value = o.at_least + (o.at_most - o.at_least) * torch.rand(shape, generator=generator, dtype=torch.float64)
    elif o.at_most is not None:
        value = o.at_most - value.abs()
    elif o.at_least is not None:
        value = o.at_least + value.abs()
    return value


def random_values(spec: Recurrence, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {o.name: random_operand(o, generator) for o in spec.operands}


def assert_same(a: Node, b: Node, spec: Recurrence, seed: int = 0) -> None:
    values = random_values(spec, seed)
    order = sorted(a.free | b.free)  # a factor of 0 may have taken an axis away

    def spread(node: Node) -> Tensor:
        at = tuple(slice(None) if i in node.free else None for i in order)
        return evaluate(node, spec, values)[at].expand([SIZES[i.dim] for i in order])

    torch.testing.assert_close(spread(a), spread(b), rtol=1e-9, atol=1e-9, equal_nan=True)


def assert_rebuilt(spec: Recurrence) -> None:
    """Whatever the analysis took apart gives the formulas of the spec again."""
    for o in spec.states:
        found = kind(spec, o.name)
        for move in found.transitions if isinstance(found, Affine) else ():
            assert_same(move.formula(), spec.step.states[o.name][move.cell], spec)
        for run in found.running if isinstance(found, MaxPlus) else ():
            own = ir.read(o.name, run.cell, ir.canonical_axes(o.axes))
            again = ir.apply(run.join, ir.add(run.shift, own), run.floor)
            assert_same(again, spec.step.states[o.name][run.cell], spec)
    for r in readouts(spec):
        assert_same(r.formula(spec), spec.step.outputs[r.output][r.cell], spec)
    for s in stages(spec):
        assert set(independent_axes(spec, s)) <= set(SIZES)
    assert str(facts(spec))


@pytest.mark.parametrize("spec", ZOO, ids=lambda s: s.name)
def test_what_is_taken_apart_gives_the_formulas_again(spec: Recurrence) -> None:
    assert_rebuilt(spec)


def test_the_analysis_of_the_zoo_is_quick() -> None:
    for spec in ZOO:
        spec.step  # noqa: B018
    start = time.process_time()
    for spec in ZOO:
        facts(spec)
    assert time.process_time() - start < 1.0


# -- the table of recurrences.md, section 10 -----------------------------------------------------------------


def outline(spec: Recurrence, state: str) -> tuple[str, ...]:
    """Kind, what the decay runs over, and for each tick the low-rank terms."""
    found = kind(spec, state)
    if not isinstance(found, Affine):
        return (type(found).__name__,)
    decay = "+".join(d.over for d in found.transition.decay) or "none"
    mixing = [f"{term.side} {term.reads}" for term in found.transition.low_rank]
    return ("Affine", decay, *mixing)


DENSE, POINTWISE, MAX_PLUS = ("Dense",), ("Pointwise",), ("MaxPlus",)
TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    **{name: {"h": DENSE} for name in ("elman", "gru")},
    **{name: {"h": DENSE, "c": DENSE} for name in ("lstm", "lstm_peephole", "layer_norm_lstm")},
    "slstm": {"h": DENSE, "c": DENSE, "n": DENSE, "m": DENSE},
    "indrnn": {"h": POINTWISE},
    "sru": {"c": POINTWISE},
    **{name: {"h": ("Affine", "elementwise")} for name in ("hgrn", "min_gru", "min_lstm", "selective_scan")},
    "rwkv4": {"m": MAX_PLUS, "a": ("Affine", "elementwise"), "b": ("Affine", "elementwise")},
    "linear_attention": {"S": ("Affine", "none")},
    "based": {name: ("Affine", "none") for name in ("S2", "S1", "S0", "z2", "z1", "z0")},
    "retention": {"S": ("Affine", "scalar")},
    "simple_gla": {"S": ("Affine", "scalar")},
    "mlstm_sigmoid": {"C": ("Affine", "scalar")},
    "mlstm": {"m": MAX_PLUS, "C": ("Affine", "scalar"), "n": ("Affine", "scalar")},
    "gla": {"S": ("Affine", "K")},
    "rwkv6": {"S": ("Affine", "K")},
    "delta_rule": {"S": ("Affine", "none", "K before")},
    "gated_delta_rule": {"S": ("Affine", "scalar", "K after")},
    "gated_delta_product": {"S": ("Affine", "scalar", "K after", "K before")},
    "comba": {"S": ("Affine", "scalar", "K before")},
    "kda": {"S": ("Affine", "K", "K after")},
    "gdn2": {"S": ("Affine", "K", "K after")},
    "iplr": {"S": ("Affine", "none", "K before")},
    "dplr": {"S": ("Affine", "K", "K before")},
    "rwkv7": {"S": ("Affine", "K", "K before")},
    "oja": {"S": ("Affine", "V", "V after")},
}


@pytest.mark.parametrize("spec", ZOO, ids=lambda s: s.name)
def test_kinds_are_those_of_the_table(spec: Recurrence) -> None:
    assert {o.name: outline(spec, o.name) for o in spec.states} == TABLE[spec.name]


def test_stages_are_in_the_order_of_need() -> None:
    order = {s.name: [x.states for x in stages(s)] for s in ZOO}
    assert order["mlstm"] == [("m",), ("C",), ("n",)]
    assert order["rwkv4"] == [("m",), ("a",), ("b",)]
    assert order["slstm"] == [("h", "c", "n", "m")]
    assert order["lstm"] == [("h", "c")]
    assert order["based"] == [(n,) for n in ("S2", "S1", "S0", "z2", "z1", "z0")]
    assert stages(load("mlstm"))[1].needs == ("m",)


AFTER = {"out": "after"}


@pytest.mark.parametrize("spec", ZOO, ids=lambda s: s.name)
def test_outputs_read_before_or_after_the_update(spec: Recurrence) -> None:
    (found,) = readouts(spec)
    when = {found.when(o.name) for o in spec.states} - {"never"}
    assert when == {"rwkv4": {"before"}, "rwkv6": {"before"}, "sru": {"both"}}.get(spec.name, {"after"})
    assert ir.is_number(found.bonus, 0) == (spec.name != "rwkv6")


def test_every_decay_of_the_zoo_has_a_logarithm_that_never_grows() -> None:
    for spec in ZOO:
        for o in spec.states:
            found = kind(spec, o.name)
            for decay in found.transition.decay if isinstance(found, Affine) else ():
                assert not isinstance(decay.log, Reason) and decay.shrinks, f"{spec.name}: {decay}"
                assert_same(ir.apply("exp", decay.log), decay.factor, spec)


@pytest.mark.parametrize(
    ("name", "state", "logarithm"),
    [
        ("retention", "S", "log_decay"),
        ("gla", "S", "g[k]"),
        ("min_gru", "h", "log_sigmoid(-z[d])"),
        ("min_lstm", "h", "log_sigmoid(log_sigmoid(f[d]) - log_sigmoid(i[d]))"),
        ("selective_scan", "h", "delta[d] * A[d, n]"),
        ("mlstm_sigmoid", "C", "log_sigmoid(f)"),
        ("mlstm", "C", "log_sigmoid(f) + m - maximum(log_sigmoid(f) + m, i)"),
    ],
)
def test_log_decays_are_those_of_the_papers(name: str, state: str, logarithm: str) -> None:
    (decay,) = affine(load(name), state).decay
    assert not isinstance(decay.log, Reason)
    assert formula(decay.log) == logarithm
    assert decay.constant == (name == "retention")


def affine(spec: Recurrence, state: str = "S") -> Transition:
    found = kind(spec, state)
    assert isinstance(found, Affine), str(found)
    return found.transition


@pytest.mark.parametrize("name", ["delta_rule", "gated_delta_rule", "kda", "comba", "gdn2", "gated_delta_product", "oja"])
def test_delta_rules_write_where_they_erase(name: str) -> None:
    assert all(tick.rewrites_its_key for tick in affine(load(name)).ticks)


def test_dplr_writes_elsewhere_than_it_erases() -> None:
    assert not affine(load("dplr")).ticks[0].rewrites_its_key


def test_dense_cells_name_their_products() -> None:
    found = kind(load("lstm"), "c")
    assert isinstance(found, Dense)
    assert sorted(p.matrix.component for p in found.products) == [(0,), (1,), (2,), (3,)]
    assert {formula(p.vector) for p in found.products} == {"h[d']"}
    assert (found.depth, found.exchanges) == (1, ())
    normed = kind(load("layer_norm_lstm"), "h")
    assert isinstance(normed, Dense)
    assert (normed.depth, len(normed.exchanges)) == (5, 4)  # R h, its mean and variance, those of c
    assert str(found) == "dense, R mixes h along D, 4 products, 1 deep"


def test_work_can_be_cut_along_axes_that_no_update_mixes() -> None:
    cut = {s.name: independent_axes(s, stages(s)[-1]) for s in ZOO}
    assert cut["gla"] == ("K", "V")
    assert cut["kda"] == ("V",)
    assert cut["oja"] == ("K",)
    assert cut["lstm"] == ()
    assert cut["sru"] == ("D",)
    assert cut["selective_scan"] == ("D", "N")


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
    A=State("K", "M"), C=State("M", "V"), q=KEY, k=KEY, v=VALUE, s=Input("M"), g=Input("M", at_most=0), scale=Scalar()
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
    transposed: "dense, S is read at another place than it is written: S[k', k]",
    reset_before_the_product: "dense, R mixes h along D, 2 products, 2 deep",
}


@pytest.mark.parametrize("spec", UNSTRUCTURED, ids=lambda s: s.name)
def test_the_reason_is_given_where_there_is_no_parallel_form(spec: Recurrence) -> None:
    assert str(kind(spec, spec.states[0].name)) == UNSTRUCTURED[spec]
    assert_rebuilt(spec)


def test_a_norm_over_the_state_is_dense() -> None:
    assert isinstance(kind(normed, "S"), Dense)
    assert independent_axes(normed, stages(normed)[0]) == ()


# -- states that keep nothing, run a maximum, or wait for one another ------------------------------------------


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


# -- logarithms ----------------------------------------------------------------------------------------------


@recurrence
def gates(
    h=State("D"), x=Input("D"), f=Input(), g=Input(at_most=0), p=Input(at_least=0), u=Input(at_least=0.5, at_most=1), s=Scalar()
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
        (where(F > 0, exp(G), 0), "it is 0 where a condition holds: where(f > 0, exp(g), 0); restart with reset=..., outside the step"),
        (0 * G, "it is 0: nothing of the state is kept"),
    ],
)
def test_reasons_why_there_is_no_logarithm(decay: Array, reason: str) -> None:
    found = log_decay(decay.cells[()], gates)
    assert isinstance(found, Reason)
    assert str(found) == reason


# -- ranges --------------------------------------------------------------------------------------------------

UNARY = [exp, expm1, log, log1p, sqrt, tanh, sigmoid, log_sigmoid, softplus, relu, square, silu, abs]
BINARY = [maximum, minimum, logaddexp, lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b]


@recurrence
def facts_of_all_kinds(
    h=State(), a=Input(), b=Input(at_most=0), c=Input(at_least=0), d=Param(at_least=-2, at_most=3), e=Param(at_least=0.1)
):
    return h + a, b * c * d * e


LEAVES = [v for n, v in operands(facts_of_all_kinds).items()] + [Array((), {(): ir.number(x)}) for x in (-1, 0, 0.5, 2)]
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
        exact, again = (float(evaluate(x, facts_of_all_kinds, values)) for x in (node, ir.apply("exp", found)))
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
def vectors(S=State("K", "V"), k=Input("K", unit_norm=True), q=Input("K", unit_norm=True), y=Input("K"), v=VALUE):
    shifted = exp(y - largest(y, axis=0))
    return S + outer(k, v), {"norm": total(k * k), "cosine": q @ k, "weights": shifted, "mean": total(sigmoid(y)) / 3}


def test_norms_and_maxima_over_an_axis_have_bounds() -> None:
    found = {name: str(bounds(cells[()], vectors)) for name, cells in vectors.step.outputs.items()}
    assert found == {"norm": "[1, 1]", "cosine": "[-1, 1]", "weights": "[0, 1]", "mean": "[0, inf)"}


def test_exponentials_that_may_overflow_are_named() -> None:
    risks = {s.name: [formula(n) for n in overflow_risks(s)] for s in ZOO}
    assert {name for name, found in risks.items() if found} == {"mlstm"}
    assert risks["mlstm"] == ["exp(-maximum(log_sigmoid(f) + m, i))"]


# -- counts --------------------------------------------------------------------------------------------------


def test_counts_of_a_dense_cell() -> None:
    d, found = axis("D"), counts(load("lstm"))
    assert found.contraction_flops == 8 * d * d
    assert found.param_elements == 4 * d * d + 4 * d
    assert found.state_bytes == 8 * d
    assert found.special == {"sigmoid": 3 * d, "tanh": 2 * d}
    assert found.operand_bytes(2)(D=64) == 2 * 5 * 64
    assert found.serial_flops(D=64) <= found.flops(D=64)


def test_counts_share_what_differs_only_in_the_names_of_indices() -> None:
    k, v = axis("K"), axis("V")
    # decay, k @ S, v - ., outer, times beta, added to S, q @ S: 8 K V, as published time loops count
    found = counts(load("kda"))
    assert found.flops == 8 * k * v + 2 * v
    assert found.special == {"exp": k}


def test_counts_are_expressions_for_whoever_solves_for_sizes() -> None:
    expression = counts(load("simple_gla")).flops.to_sympy()
    assert expression.subs({"K": 8, "V": 4}) == counts(load("simple_gla")).flops(K=8, V=4)


# -- random specs --------------------------------------------------------------------------------------------


def keep(S: Array, **_: Array) -> Array:
    return S


Op = Callable[..., Array]
AFFINE_OPS: dict[str, Op] = {
    "decay": lambda S, g, **_: exp(g) * S,
    "decay on K": lambda S, w, **_: exp(w)[:, None] * S,
    "decay on V": lambda S, y, **_: S * sigmoid(y),
    "any decay": lambda S, b, **_: b * S,
    "elementwise decay": lambda S, w, y, **_: tanh(w[:, None] + y) * S,
    "constant decay": lambda S, **_: 0.9 * S,
    "write": lambda S, k, v, **_: S + outer(k, v),
    "gated write": lambda S, k, v, b, **_: (1 - b) * S + b * outer(k, v),
    "odd write": lambda S, k, v, **_: S + tanh(k[:, None] + v),
    "delta": lambda S, k, v, b, **_: S + b * outer(k, v - k @ S),
    "delta with other keys": lambda S, k, q, v, **_: S + outer(q, v - (k * q) @ S),
    "delta on V": lambda S, k, v, b, **_: S + b * outer(k - S @ v, v),
    "switch": lambda S, g, b, **_: where(b > 0, S, exp(g) * S),
    "quotient": lambda S, b, **_: S / (1 + square(b)),
    "leak": lambda S, b, k, v, **_: S + sigmoid(b) * (outer(k, v) - S),
}
OTHER_OPS: dict[str, Op] = {
    "tanh": lambda S, **_: tanh(S),
    "own gate": lambda S, **_: S * sigmoid(S),
    "row sums": lambda S, **_: S - total(S, axis=1)[:, None],
    "norm": lambda S, **_: S / (1 + total(S * S, axis=(0, 1))),
    "softmax": lambda S, **_: exp(S - largest(S, axis=0)),
    "anew": lambda S, k, v, **_: outer(k, v),
    "per column": lambda S, k, v, **_: S + outer(k, v * (k @ S)),
    "all of it": lambda S, k, v, **_: S + outer(k, v) * total(S, axis=(0, 1)),
    "zero": lambda S, **_: 0 * S,
    "maximum": lambda S, k, v, **_: maximum(S, outer(k, v)),
}


def spec_of(ops: list[Op]) -> Recurrence:
    def made(
        S=State("K", "V"), q=Input("K"), k=KEY, v=VALUE, w=K_GATE, y=VALUE, g=GATE, b=Input()
    ):
        for op in ops:
            S = op(S, q=q, k=k, v=v, w=w, y=y, g=g, b=b)
        return S, {"out": q @ S, "norm": total(S, axis=(0, 1)), "gated": sigmoid(v) * (k @ S)}

    return recurrence(made)


@given(ops=st.lists(st.sampled_from(sorted(AFFINE_OPS)), min_size=1, max_size=4))
def test_any_sequence_of_affine_steps_is_affine(ops: list[str]) -> None:
    spec = spec_of([AFFINE_OPS[name] for name in ops])
    assert isinstance(kind(spec, "S"), Affine), str(kind(spec, "S"))
    if not {"elementwise decay", "decay on V", "delta on V"} & set(ops):  # what passes through a term on K
        assert len(affine(spec).ticks) <= max(1, sum(name.startswith("delta") for name in ops))
    assert_rebuilt(spec)


@given(ops=st.lists(st.sampled_from(sorted(AFFINE_OPS | OTHER_OPS)), min_size=1, max_size=4))
def test_every_spec_gets_an_answer_that_holds(ops: list[str]) -> None:
    spec = spec_of([(AFFINE_OPS | OTHER_OPS)[name] for name in ops])
    found: Kind = kind(spec, "S")
    assert str(found)
    assert_rebuilt(spec)


def test_many_micro_steps_are_found_quickly() -> None:
    spec = zoo.load("gated_delta_product").bind(n=8)
    spec.step  # noqa: B018
    start = time.process_time()
    found = transition(spec, "S")
    assert time.process_time() - start < 1.0
    assert isinstance(found, Transition) and len(found.ticks) == 8


@recurrence
def two_heads(h=State(2, "D"), c=State(), x=Input(2, "D"), g=Input(2, at_most=0), unused=Input("K")):
    h = exp(g)[:, None] * h + x
    c = c + total(x, axis=(0, 1))
    return (h, c), {"both": h, "first": h[0] + c}


def test_literal_cells_have_a_transition_each() -> None:
    found = kind(two_heads, "h")
    assert isinstance(found, Affine)
    assert [(t.cell, formula(t.decay[0].factor)) for t in found.transitions] == [((0,), "exp(g[0])"), ((1,), "exp(g[1])")]
    assert [(r.output, r.cell) for r in readouts(two_heads)] == [("both", (0,)), ("both", (1,)), ("first", ())]
    assert "unused is never read" in facts(two_heads).warnings
    assert_rebuilt(two_heads)


VECTOR_OPS: dict[str, Callable[[Array, Array, Array, Array], tuple[Array, Array]]] = {
    "gate h": lambda h, c, x, R: (sigmoid(x) * h + x, c),
    "h from c": lambda h, c, x, R: (sigmoid(x) * h + tanh(c), c),
    "c from h": lambda h, c, x, R: (h, c + h * x),
    "dense": lambda h, c, x, R: (tanh(R @ h + x), c),
    "dense c": lambda h, c, x, R: (h, sigmoid(R @ x) * c),
    "swap": lambda h, c, x, R: (c, h),
    "mean": lambda h, c, x, R: (h - total(c, axis=0) * x, c),
    "running": lambda h, c, x, R: (h, maximum(c + x, h)),
    "anew": lambda h, c, x, R: (x, c),
}


@given(ops=st.lists(st.sampled_from(sorted(VECTOR_OPS)), min_size=1, max_size=5))
def test_every_pair_of_states_gets_an_answer_that_holds(ops: list[str]) -> None:
    def made(h=State("D"), c=State("D"), x=Input("D"), R=Param("D", "D")):
        for name in ops:
            h, c = VECTOR_OPS[name](h, c, x, R)
        return (h, c), {"out": h * c, "sum": R @ c}

    spec = recurrence(made)
    order = [s for stage in stages(spec) for s in stage.states]
    assert sorted(order) == ["c", "h"]
    assert_rebuilt(spec)


def test_facts_read_as_a_summary() -> None:
    assert str(facts(load("mlstm"))) == """\
mlstm
m: max-plus affine, maximum(log_sigmoid(f) + state, i)
C (after m): affine, matrix, scalar decay; independent along K and V
    keeps  scalar exp(log_sigmoid(f) + m - m_new); log-decay log_sigmoid(f) + m - m_new
    writes exp(i - m_new) x k[k] x v[v]
n (after m): affine, elementwise, scalar decay; independent along K
    keeps  scalar exp(log_sigmoid(f) + m - m_new); log-decay log_sigmoid(f) + m - m_new
    writes exp(i - m_new) x k[k]
out reads C, n and m after the update, through an epilogue
per step and head
    flops            6*K*V + 5*K + V + 8 (in contractions 2*K*V + 2*K)
    special          div V, exp 3, log_sigmoid 1
    operands         2*K + V + 2 read, V written a step, in elements
    state            4*K*V + 4*K + 4 bytes
note: exp(-maximum(log_sigmoid(f) + m, i)) overflows where its argument exceeds 88"""


def test_facts_of_micro_steps_are_told_one_by_one() -> None:
    assert str(facts(load("gated_delta_product"))).splitlines()[1:8] == [
        "S: affine, matrix, 2 micro-steps: scalar decay, rank 1 on K (after the decay); no decay, rank 1 on K; "
        "independent along V",
        "    micro-step 1",
        "    keeps  scalar exp(g); log-decay g",
        "    mixes  -beta[0] x k[0, k], reading k[0, k] of the decayed state",
        "    writes beta[0] x k[0, k] x v[0, v]",
        "    micro-step 2",
        "    mixes  -beta[1] x k[1, k], reading k[1, k] of the old state",
    ]


def test_what_a_user_should_look_at_twice_is_a_warning() -> None:
    @recurrence
    def doubtful(h=State("D"), x=Input("D"), f=Input("D"), g=Input("D")):
        return f * h + exp(g) * x, h

    @recurrence
    def growing(h=State("D"), x=Input("D"), g=Input("D")):
        return exp(g) * h + x, h

    assert facts(doubtful).warnings == (
        "the decay f[d] has no log-decay: may be negative: 'f' has no at_least fact",
        "exp(g[d]) overflows where its argument exceeds 88",
    )
    assert facts(growing).warnings[0] == "the decay exp(g[d]) may exceed 1; if it does not, declare at_most"
