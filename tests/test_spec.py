"""Specs as values: compared by meaning, bound, pickled; and what a wrong declaration or body is told."""

import math
import pickle
import sys
from types import ModuleType

import pytest

from rekern import ir, zoo
from rekern.errors import SpecError
from rekern.math import exp, outer, tanh
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence, scalar_value

# -- declarations --------------------------------------------------------------------------------------------


def test_operands_carry_what_was_declared() -> None:
    @recurrence
    def spec(
        s=State("K", 2, init=-math.inf, dtype="float64"),
        g=Input(at_most=0),
        k=Input("K", unit_norm=True, at_least=-1),
        u=Param("V"),
        scale=Scalar(default="K**-0.5"),
    ):
        """Somebody 2020.

        More.
        """
        return s, u * g * k[..., None]

    s, g, k, u, scale = spec.operands
    assert (s.kind, s.dims, s.axes, s.init, s.dtype) == ("state", ("K", 2), ("K",), -math.inf, "float64")
    assert (g.kind, g.dims, g.at_most, g.at_least, g.unit_norm) == ("input", (), 0, None, False)
    assert (k.at_least, k.unit_norm, k.init, k.dtype) == (-1, True, 0, "float32")
    assert (u.kind, scale.kind, scale.default) == ("param", "scalar", "K**-0.5")
    assert [str(o) for o in spec.operands] == [
        "s [B, H, K, 2]",
        "g [B, T, H]",
        "k [B, T, H, K]",
        "u [H, V]",
        "scale",
    ]
    assert spec.states == spec.of_kind("state") == (s,)
    assert spec.of_kind("input", "param") == (g, k, u)
    assert spec.operand("u") is u
    assert spec.axes == ("K", "V")
    assert spec.name == "spec" and spec.doc.startswith("Somebody 2020.")


def test_a_step_has_a_formula_for_each_cell() -> None:
    step = zoo.lstm.step
    assert {name: sorted(cells) for name, cells in step.states.items()} == {"h": [()], "c": [()]}
    assert step.outputs["out"][()] is step.states["h"][()]
    assert step.single_output and dict(step.output_dims) == {"out": ("D",)}
    assert ir.operands_read(step.roots()) == {"h", "c", "x", "R", "b"}


def test_several_outputs_are_a_dict_and_may_have_any_shape() -> None:
    @recurrence
    def spec(S=State("K", "V"), k=Input("K"), v=Input("V")):
        return S + outer(k, v), {"read": k @ S, "old": S.T, "one": 1}

    assert dict(spec.step.output_dims) == {"read": ("V",), "old": ("V", "K"), "one": ()}
    assert not spec.step.single_output


# -- equality ------------------------------------------------------------------------------------------------


@recurrence
def gated(S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input(at_most=0)):
    """As one person writes it."""
    S = exp(g) * S + outer(k, v)
    return S, q @ S


def body_of(**changes: object) -> Recurrence:
    """`gated` once more, with other declarations."""
    declared = {
        "S": State("K", "V"),
        "q": Input("K"),
        "k": Input("K"),
        "v": Input("V"),
        "g": Input(at_most=0),
    }
    declared |= changes

    @recurrence
    def other(S=declared["S"], q=declared["q"], k=declared["k"], v=declared["v"], g=declared["g"]):
        """As another writes it: other names, other order, loops and helpers."""

        def decay(x):
            return x * exp(g)

        state = k[:, None] * v + decay(S)
        return (state,), state.T @ q

    return other


def test_spelling_does_not_matter() -> None:
    other = body_of()
    assert other == gated and hash(other) == hash(gated) and other.meaning == gated.meaning
    assert other is not gated and other.name != gated.name
    assert len({other, gated}) == 1
    assert gated != "gated" and gated != 1


def test_a_bound_index_has_no_name() -> None:
    @recurrence
    def one(S=State("K", "K"), q=Input("K")):
        return S, q @ S

    @recurrence
    def two(S=State("K", "K"), q=Input("K")):
        return S, S.T @ q

    @recurrence
    def three(S=State("K", "K"), q=Input("K")):
        return S, S @ q

    assert one == two
    assert one != three


@pytest.mark.parametrize(
    "changes",
    [
        {"g": Input(at_most=-0.5)},
        {"g": Input()},
        {"g": Param(at_most=0)},
        {"S": State("K", "V", init=1)},
        {"S": State("K", "V", dtype="float64")},
        {"k": Input("K", unit_norm=True)},
        {"v": Input("V", at_least=0)},
    ],
    ids=str,
)
def test_facts_are_part_of_the_meaning(changes: dict[str, object]) -> None:
    assert body_of(**changes) != gated


def test_one_number_has_one_meaning() -> None:
    assert body_of(g=Input(at_most=0.0)) == gated


def test_other_computations_differ() -> None:
    def variant(factor: float, power: int, scale: float | str | None = None) -> Recurrence:
        @recurrence
        def spec(h=State("D"), x=Input("D"), y=Input("D"), scale=Scalar(default=scale)):
            h = factor * h**power + x - y
            return h, h * scale

        return spec

    assert variant(0.5, 1) == variant(0.5, 1)
    different = [variant(0.5, 1), variant(0.25, 1), variant(0.5, 2), variant(0.5, 1, 1), variant(0.5, 1, "D")]
    assert len(set(different)) == len(different)
    assert variant(0.5, 1, 1) == variant(0.5, 1, 1.0)


def test_the_two_sides_of_a_difference_are_not_the_same() -> None:
    @recurrence
    def one(h=State("D"), x=Input("D"), y=Input("D")):
        return h, x - y

    @recurrence
    def two(h=State("D"), x=Input("D"), y=Input("D")):
        return h, y - x

    assert one != two


def test_names_of_operands_and_outputs_are_part_of_the_meaning() -> None:
    @recurrence
    def one(h=State("D"), x=Input("D")):
        return h, {"y": x}

    @recurrence
    def two(h=State("D"), x=Input("D")):
        return h, {"z": x}

    @recurrence
    def three(h=State("D"), z=Input("D")):
        return h, {"y": z}

    assert len({one, two, three}) == 3


def test_a_spec_that_waits_for_a_bind_is_compared_by_its_function() -> None:
    unbound = zoo.gated_delta_product
    with pytest.raises(SpecError, match="axis 'n' has no fixed size"):
        _ = unbound.meaning
    again = pickle.loads(pickle.dumps(unbound.bind(V=8)))
    assert again is not unbound.bind(V=8)
    assert again == unbound.bind(V=8) and hash(again) == hash(unbound.bind(V=8))
    assert len({unbound, unbound.bind(V=8), unbound.bind(n=2), gated}) == 4


def test_the_zoo_has_no_two_of_a_kind() -> None:
    specs = [s.bind(n=2) if "n" in s.axes else s for s in map(zoo.load, zoo.names())]
    assert len(set(specs)) == len(specs)


# -- bind, pickle, print -------------------------------------------------------------------------------------


def test_bind_makes_an_axis_literal() -> None:
    two = zoo.gated_delta_product.bind(n=2)
    assert two.operand("k").dims == (2, "K") and two.bindings == (("n", 2),)
    assert two.axes == ("K", "V") and two.name == "gated_delta_product"
    assert two == zoo.gated_delta_product.bind(n=2) != zoo.gated_delta_product.bind(n=3)
    assert two.bind(V=3).bindings == (("V", 3), ("n", 2))
    assert zoo.gated_delta_product.axes == ("K", "V", "n"), "the original stays as it was"
    assert scalar_value(two.bind(K=16), two.operand("scale"), {}) == 0.25


def test_one_micro_step_is_the_gated_delta_rule() -> None:
    one = zoo.gated_delta_product.bind(n=1)

    @recurrence
    def by_hand(
        S=State("K", "V"), q=Input("K"), k=Input(1, "K"), v=Input(1, "V"), g=Input(at_most=0), beta=Input(1),
        scale=Scalar(default="K**-0.5"),
    ):  # fmt: skip
        S = exp(g) * S
        S = S + beta[0] * outer(k[0], v[0] - k[0] @ S)
        return S, scale * (q @ S)

    assert one == by_hand


def test_pickles_name_the_spec() -> None:
    for spec in (gated, zoo.lstm):
        assert pickle.loads(pickle.dumps(spec)) is spec
    bound = zoo.gated_delta_product.bind(n=2)
    again = pickle.loads(pickle.dumps(bound))
    assert again == bound and again.bindings == bound.bindings and b"outer" not in pickle.dumps(bound)


def test_a_pickle_of_what_is_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("module_of_a_spec")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("from rekern.spec import *\n@recurrence\ndef gone(h=State('D')): return h, h", vars(module))
    text = pickle.dumps(module.gone)
    assert pickle.loads(text) is module.gone
    module.gone = 3
    with pytest.raises(SpecError, match=r"^module_of_a_spec\.gone is not a recurrence any more$"):
        pickle.loads(text)


def test_str_shows_the_equations() -> None:
    assert str(gated).splitlines()[-2:] == [
        "  S[k,v] = exp(g) * S(t-1)[k,v] + k[k] * v[v]",
        "  out[v] = sum_k q[k] * S[k,v]",
    ]
    assert "Recurrence(name='gated'" in repr(gated) and "function" not in repr(gated)
    assert gated._repr_latex_().startswith(r"$$\begin{aligned}")


def test_the_body_runs_once_and_only_when_asked() -> None:
    runs = []

    @recurrence
    def spec(h=State("D"), x=Input("D")):
        runs.append(1)
        return h, tanh(x)

    assert runs == []
    assert spec.step is spec.step and spec == spec
    assert runs == [1]


@pytest.mark.parametrize(
    ("default", "value"), [(2, 2.0), ("K**-0.5", 0.5), ("sqrt(K) * V", 6.0), ("log(exp(1)) + pi / pi", 2.0)]
)
def test_scalars_may_depend_on_axis_lengths(default: str | float, value: float) -> None:
    @recurrence
    def spec(S=State("K", "V"), a=Scalar(default=default)):
        return a * S, S

    assert scalar_value(spec, spec.operand("a"), {"K": 4, "V": 3}) == pytest.approx(value)
