"""Sums over a state that the step before takes: when they are carried, and that the numbers stay the same."""

from typing import Any

import pytest
import torch

from kernel_checks import agree, draw, only
from rekern import Input, State, ir, recurrence, zoo
from rekern.api import compile
from rekern.ir import Apply
from rekern.loops.order import arrange
from rekern.loops.program import CARRIED
from rekern.math import exp, outer, rsqrt, sigmoid, square, tanh
from rekern.math import sum as total
from rekern.schedules.carry import Carried, walk_count
from rekern.schedules.programs import programs

DELTA_RULES = ("delta_rule", "gated_delta_rule", "kda", "comba", "gdn2", "iplr", "dplr", "rwkv7")
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reversed": {"reverse": True},
    "reset": {"reset": torch.arange(2 * 137).reshape(2, 137) % 31 == 5},
    "reset twice, reversed": {"reset": torch.arange(2 * 137).reshape(2, 137) % 50 < 2, "reverse": True},
}


@recurrence
def guarded(
    S=State("K", "V", init=0.5), n=State("V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input("K", at_most=0),
):
    """Keys of norm 1, two reads before anything is written, a decay that both the read and the update need."""
    key = k * rsqrt(total(square(k)) + 1e-3)
    read, other = (key * exp(g)) @ S, q @ S
    S = exp(g)[:, None] * S + outer(key, tanh(v - read) * sigmoid(other))
    n = 0.5 * n + other
    return (S, n), q @ S + n


@recurrence
def late(S=State("K", "V"), h=State("V"), q=Input("K"), k=Input("K"), v=Input("V")):
    """Its read waits for another state, which is found in the same step."""
    h = tanh(h + v)
    S = S + outer(k, v - (k @ (S * h)))
    return (S, h), q @ S


def carried_of(name: str) -> tuple[Carried | None, ...]:
    p = programs(zoo.load(name))
    return p.carried_forward, p.carried_recording, p.carried_backward


@pytest.mark.parametrize("name", DELTA_RULES)
def test_a_delta_rule_walks_its_state_once_a_step(name: str) -> None:
    for carried in carried_of(name):
        assert carried is not None
        assert walk_count(carried.step) == 1


@pytest.mark.parametrize("name", ["linear_attention", "gla", "rwkv6", "mlstm", "based", "lstm", "hgrn"])
def test_nothing_is_carried_where_that_saves_no_walk(name: str) -> None:
    assert carried_of(name) == (None, None, None)


def test_an_exponential_of_the_next_step_is_computed_once() -> None:
    carried = programs(zoo.kda).carried_forward
    assert carried is not None
    assert sorted(carried.axes) == [f"{CARRIED}exp_g", f"{CARRIED}k_g_S"]
    values = [s.value for nest in arrange(carried.step).nests for s in nest.statements]
    assert sum(isinstance(n, Apply) and n.function == "exp" for n in ir.walk(values)) == 1


@pytest.mark.parametrize("options", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("spec", [guarded, late, zoo.kda, zoo.rwkv7], ids=lambda s: s.name)
def test_numbers_are_those_of_the_equations(spec: Any, options: dict[str, Any]) -> None:
    agree(spec, *draw(spec, time=137, sizes={"K": 60, "V": 100}), **options)


@pytest.mark.parametrize("lengths", [[0, 1, 70, 66], [137], [1, 1, 2, 133]], ids=str)
def test_packed_sequences_begin_anew(lengths: list[int]) -> None:
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)])
    operands, state = draw(guarded, batch=1, time=137, sequences=len(lengths), sizes={"K": 20, "V": 60})
    agree(guarded, operands, state, cu_seqlens=ends)


def test_rows_of_any_layout() -> None:
    """Rows that are copied to be read, those of the next step too."""
    operands, state = draw(guarded, time=137, sizes={"K": 60, "V": 60})
    apart = {n: torch.stack([t, t], -1)[..., 0] for n, t in operands.items()}
    agree(guarded, apart, state)
    rounded = {n: t.bfloat16().float() for n, t in operands.items()}
    kernel = compile(guarded)
    out, last = kernel(state=state, **rounded)
    same, end = kernel(state=state, **{n: t.bfloat16() for n, t in rounded.items()})
    assert torch.equal(only(out).to(only(same).dtype), only(same))
    assert all(torch.equal(last[n], end[n]) for n in last)
