"""Two steps in one walk: which steps go in pairs, and that a call's numbers do not depend on where pairs begin."""

from typing import Any

import pytest
import torch

from kernel_checks import agree, draw, only
from rekern import Input, State, recurrence, zoo
from rekern.api import compile
from rekern.math import exp, outer, tanh
from rekern.schedules.carry import walk_count
from rekern.schedules.programs import programs

ONE_WALK = ("linear_attention", "retention", "simple_gla", "gla", "rwkv6", "mlstm", "mlstm_sigmoid", "selective_scan")
TIME = 137


@recurrence
def two_outputs(
    S=State("K", "V", init=0.5), n=State("V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input("K", at_most=0),
):
    """A second state without rows, which the matrix state reads, and two outputs."""
    n = tanh(n + v)
    S = exp(g)[:, None] * S + outer(k, v * n)
    return (S, n), {"read": q @ S, "other": n + k @ S}


@pytest.mark.parametrize("name", ONE_WALK)
def test_two_steps_that_wait_for_no_sum_share_a_walk(name: str) -> None:
    both = programs(zoo.load(name)).forward_pair
    assert both is not None
    assert walk_count(both) == 1


@pytest.mark.parametrize("name", ["gated_delta_rule", "rwkv7", "based", "lstm", "hgrn", "oja"])
def test_other_steps_go_one_by_one(name: str) -> None:
    assert programs(zoo.load(name)).forward_pair is None


def resets(*steps: int) -> torch.Tensor:
    reset = torch.zeros(2, TIME, dtype=torch.bool)
    reset[0, list(steps)] = True
    return reset


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [(), (1,), (0, 3, 64), (63, 65, 66, 136)], ids=str)
@pytest.mark.parametrize("spec", [two_outputs, zoo.gla, zoo.mlstm], ids=lambda s: s.name)
def test_pairs_end_where_a_state_is_reset_or_kept(spec: Any, steps: tuple[int, ...], reverse: bool) -> None:
    """After a reset at an odd step, blocks of steps end within a pair."""
    operands, state = draw(spec, time=TIME, sizes={"K": 20, "V": 100})
    agree(spec, operands, state, reset=resets(*steps), reverse=reverse)


@pytest.mark.parametrize("lengths", [[0, 1, 70, 66], [2, 3, 132]], ids=str)
def test_packed_sequences_of_odd_lengths(lengths: list[int]) -> None:
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)])
    operands, state = draw(two_outputs, batch=1, time=TIME, sequences=len(lengths), sizes={"K": 60, "V": 60})
    agree(two_outputs, operands, state, cu_seqlens=ends)


def test_rows_that_are_copied_to_be_read_and_written() -> None:
    """Two steps need room for the rows of both."""
    operands, state = draw(zoo.gla, time=TIME, sizes={"K": 20, "V": 100})
    rounded = {n: t.bfloat16() for n, t in operands.items()}
    kernel = compile(zoo.gla)
    out, last = kernel(state=state, **{n: t.float() for n, t in rounded.items()})
    same, end = kernel(state=state, **rounded)
    assert torch.equal(only(out).to(only(same).dtype), only(same))
    assert torch.equal(last["S"], end["S"])
