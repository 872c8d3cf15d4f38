"""The zoo: its acceptance list, and every recurrence against a restatement that shares no code with it."""

import pickle

import pytest
import torch
from torch import Tensor

from random_operands import random_operands
from rekern import zoo
from rekern.errors import SpecError
from rekern.reference import reference
from rekern.spec import Operand, Recurrence
from restatements import MICRO_STEPS, RESTATED

# name: operands in order, with axes, facts and defaults; what code outside this project relies on
ACCEPTANCE = {
    "elman": "state h(D) input x(D) param R(D D) b(D)",
    "lstm": "state h(D) c(D) input x(4 D) param R(4 D D) b(4 D)",
    "slstm": "state h(D) c(D) n(D) m(D)=-inf input x(4 D) param R(4 D D) b(4 D)",
    "gru": "state h(D) input x(3 D) param R(3 D D) b(3 D) b_n(D)",
    "lstm_peephole": "state h(D) c(D) input x(4 D) param R(4 D D) b(4 D) p(3 D)",
    "layer_norm_lstm": "state h(D) c(D) input x(4 D) param R(4 D D) b(4 D) gain(4 D) c_gain(D) c_bias(D)"
    " scalar eps=1e-05",
    "indrnn": "state h(D) input x(D) param u(D) b(D)",
    "min_gru": "state h(D) input x(D) z(D)",
    "min_lstm": "state h(D) input x(D) i(D) f(D)",
    "sru": "state c(D) input x(3 D) skip(D) param v(2 D) b(2 D)",
    "linear_attention": "state S(K V) input q(K) k(K) v(V) scalar scale=K**-0.5",
    "retention": "state S(K V) input q(K) k(K) v(V) param log_decay()<=0 scalar scale=K**-0.5",
    "simple_gla": "state S(K V) input q(K) k(K) v(V) g()<=0 scalar scale=K**-0.5",
    "gla": "state S(K V) input q(K) k(K) v(V) g(K)<=0 scalar scale=K**-0.5",
    "hgrn": "state h(D) input x(D) g(D)<=0",
    "rwkv4": "state a(D) b(D) m(D)=-inf input k(D) v(D) param w(D)<=0 u(D)",
    "rwkv6": "state S(K V) input r(K) k(K) v(V) w(K)<=0 param u(K) scalar scale=1",
    "rwkv7": "state S(K V) input r(K) w(K)<=0 k(K) v(V) a(K) b(K) scalar scale=1",
    "mlstm": "state C(K V) n(K) m() input q(K) k(K) v(V) i() f() scalar scale=K**-0.5 eps=1e-06",
    "mlstm_sigmoid": "state C(K V) input q(K) k(K) v(V) i() f() scalar scale=K**-0.5",
    "delta_rule": "state S(K V) input q(K) k(K) v(V) beta() scalar scale=K**-0.5",
    "gated_delta_rule": "state S(K V) input q(K) k(K) v(V) g()<=0 beta() scalar scale=K**-0.5",
    "kda": "state S(K V) input q(K) k(K) v(V) g(K)<=0 beta() scalar scale=K**-0.5",
    "gated_delta_product": "state S(K V) input q(K) k(n K) v(n V) g()<=0 beta(n) scalar scale=K**-0.5",
    "comba": "state S(K V) input q(K) k(K) v(V) p(K) g()<=0 beta() scalar scale=K**-0.5",
    "gdn2": "state S(K V) input q(K) k(K) v(V) g(K)<=0 b(K) w(V) scalar scale=K**-0.5",
    "oja": "state S(K V) input q(K) k(K) v(V) g(V)<=0 beta() scalar scale=K**-0.5",
    "iplr": "state S(K V) input q(K) k(K) v(V) a(K) b(K) scalar scale=K**-0.5",
    "dplr": "state S(K V) input q(K) k(K) v(V) a(K) b(K) g(K)<=0 scalar scale=K**-0.5",
    "selective_scan": "state h(D N) input x(D) delta(D)>=0 B(N) C(N) param A(D N)<=0",
    "based": "state S2(K K V) S1(K V) S0(V) z2(K K) z1(K) z0() input q(K) k(K) v(V)"
    " scalar scale=K**-0.5 eps=1e-06",
}


def described(spec: Recurrence) -> str:
    def one(o: Operand) -> str:
        axes = "" if o.kind == "scalar" else f"({' '.join(map(str, o.dims))})"
        facts = f"<={o.at_most:g}" if o.at_most is not None else ""
        facts += f">={o.at_least:g}" if o.at_least is not None else ""
        default = f"{o.default:g}" if isinstance(o.default, float) else o.default
        value = f"={default}" if o.kind == "scalar" else f"={o.init:g}" if o.init else ""
        return o.name + axes + facts + value

    words: list[str] = []
    for o in spec.operands:
        words += [one(o)] if o.kind in words else [o.kind, one(o)]
    return " ".join(words)


def small(name: str) -> Recurrence:
    spec = zoo.load(name)
    return spec.bind(n=MICRO_STEPS) if "n" in spec.axes else spec


@pytest.mark.parametrize("name", zoo.names())
def test_reference_agrees_with_a_restatement(name: str) -> None:
    spec = small(name)
    operands, state = random_operands(spec)
    out, final = reference(spec, operands, state)
    expected_out, expected_final = RESTATED[name](operands, state)
    assert isinstance(out, Tensor)
    torch.testing.assert_close(out, expected_out, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(final, expected_final, rtol=1e-10, atol=1e-12)


def test_the_acceptance_list_is_complete() -> None:
    assert {name: described(zoo.load(name)) for name in zoo.names()} == ACCEPTANCE


def test_outputs_have_the_shape_of_the_value_or_the_unit() -> None:
    for name in zoo.names():
        spec = small(name)
        assert spec.step.single_output
        assert spec.step.output_dims["out"] == (("V",) if "V" in spec.axes else ("D",)), name


@pytest.mark.parametrize("name", zoo.names())
def test_each_spec_is_short_and_cites_its_source(name: str) -> None:
    spec = zoo.load(name)
    code = spec.function.__code__
    lines = {line for *_, line in code.co_lines() if line is not None and line != code.co_firstlineno}
    assert len(lines) <= 15
    assert any(mark in spec.doc for mark in ("arXiv:", " 19", "FLA"))


def test_specs_are_found_by_themselves_and_are_attributes() -> None:
    assert all(getattr(zoo, name) is zoo.load(name) and zoo.load(name).name == name for name in zoo.names())
    assert set(zoo.names()) < set(zoo.__all__)


def test_other_names_of_the_literature_are_understood() -> None:
    assert {alias: zoo.load(alias).name for alias in zoo.ALIASES} == zoo.ALIASES
    assert not set(zoo.ALIASES) & set(zoo.names())


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(
        SpecError, match=r"^the zoo has no 'glaa'; did you mean 'gla'\?\nit has elman, lstm, "
    ):
        zoo.load("glaa")
    with pytest.raises(SpecError, match=r"^the zoo has no 'zzzzzz'; it has elman, lstm, "):
        zoo.load("zzzzzz")
    with pytest.raises(AttributeError, match=r"'rekern.zoo' has no attribute 'lsmt'; did you mean 'lstm'\?"):
        zoo.lsmt  # noqa: B018


@pytest.mark.parametrize("name", zoo.names())
def test_specs_are_pickled_by_reference(name: str) -> None:
    assert pickle.loads(pickle.dumps(zoo.load(name))) is zoo.load(name)
    assert len(pickle.dumps(zoo.load(name))) < 200
    assert pickle.loads(pickle.dumps(small(name))) == small(name)
