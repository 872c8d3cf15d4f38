"""The analysis of every published recurrence: kinds, decays, reads and counts are those of the papers."""

import time

import pytest

from analysis_checks import (
    ZOO,
    affine,
    assert_rebuilt,
    assert_same,
    load,
    outline,
)
from rekern import ir
from rekern.analysis.counts import counts
from rekern.analysis.facts import facts
from rekern.analysis.kinds import Affine, Dense, independent_axes, kind
from rekern.analysis.logs import Reason
from rekern.analysis.polynomial import axis
from rekern.analysis.readout import readouts
from rekern.analysis.stages import stages
from rekern.analysis.wording import formula
from rekern.math import (
    exp,
)
from rekern.spec import Input, Recurrence, State, recurrence


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


DELTA_RULES = ("delta_rule", "gated_delta_rule", "kda", "comba", "gdn2", "gated_delta_product", "oja")


@pytest.mark.parametrize("name", DELTA_RULES)
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


# -- the summary ---------------------------------------------------------------------------------------------


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
        "S: affine, matrix, 2 micro-steps: scalar decay, rank 1 on K (after the decay); "
        "no decay, rank 1 on K; independent along V",
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
