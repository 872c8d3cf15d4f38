"""Specs put together at random: the analysis answers, and its answers hold."""

import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from analysis_checks import affine, assert_rebuilt
from rekern import zoo
from rekern.analysis.affine import transition
from rekern.analysis.kinds import Affine, Kind, kind
from rekern.analysis.stages import stages
from rekern.analysis.transition import Transition
from rekern.math import (
    exp,
    maximum,
    outer,
    sigmoid,
    square,
    tanh,
    where,
)
from rekern.math import max as largest
from rekern.math import sum as total
from rekern.spec import Input, Param, Recurrence, State, recurrence
from rekern.trace import Array

# -- random specs --------------------------------------------------------------------------------------------


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
        S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), w=Input("K", at_most=0), y=Input("V"),
        g=Input(at_most=0), b=Input(),
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
