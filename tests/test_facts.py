"""Facts that a spec declares are compared with the values of a call where that was asked for."""

from __future__ import annotations

import pytest
import torch

import rekern as rk
from rekern import Input, State


@rk.recurrence
def unit(h=State("D"), x=Input("D", unit_norm=True), a=Input(at_least=0)):
    h = h + a * x
    return h, h


X = torch.nn.functional.normalize(torch.randn(1, 3, 1, 6), dim=-1)
A = torch.rand(1, 3, 1)


def test_values_that_keep_the_facts_pass() -> None:
    out, _ = rk.compile(unit, check_facts=True)(x=X, a=A)
    assert torch.equal(out, rk.compile(unit)(x=X, a=A)[0])


def test_a_broken_fact_is_named() -> None:
    kernel = rk.compile(unit, check_facts=True)
    with pytest.raises(rk.RekernError, match=r"operand 'a' falls to -1, declared at least 0"):
        kernel(x=X, a=-torch.ones(1, 3, 1))
    with pytest.raises(rk.RekernError, match=r"'x' is declared to have unit norm[\s\S]*normalise it"):
        kernel(x=2 * X, a=A)
    gate = torch.full((1, 3, 1, 6), 0.5)
    with pytest.raises(rk.RekernError, match=r"operand 'g' reaches 0.5, declared at most 0"):
        rk.compile(rk.zoo.hgrn, check_facts=True)(x=gate, g=gate)


def test_without_asking_nothing_is_read() -> None:
    rk.compile(unit)(x=2 * X, a=-A)
