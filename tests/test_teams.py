"""Several threads on one task: bit for bit what one thread finds, whatever the sizes, and the analysis behind it.

A team is forced where the sizes of a call would not ask for one, so that its members are many and their parts small;
two cores are enough, because members that wait let others run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kernel_checks import Run, agree, draw, run, threads
from rekern import zoo
from rekern.hwmodels import Machine, detect
from rekern.loops.order import arrange
from rekern.loops.team import Sharing, sharing
from rekern.math import sigmoid, sum, tanh
from rekern.runtime import execute
from rekern.runtime.kernel import Kernel
from rekern.schedules.cpu.choose import plan
from rekern.schedules.cpu.shape import CpuPlan, Shape
from rekern.schedules.programs import Programs, programs
from rekern.schedules.team import shared, why_no_team
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence


@recurrence
def projected(h=State("D"), x=Input("N"), W=Param(2, "D", "N"), R=Param("D", "D")):
    """Two axes: products with inputs, which are made ahead of the steps, and an input that is read as a whole."""
    a, b = W @ x
    h = sigmoid(a) * h + (1 - sigmoid(a)) * tanh(b + R @ h)
    return h, h * sum(x)


@recurrence
def two_layers(
    h=State("D"), s=State("N"), m=State(), x=Input("D"), g=Input(), A=Param("N", "D"), B=Param("D", "N"),
    p=Param("D"), w=Param(), scale=Scalar(default=0.5),
):  # fmt: skip
    """States along two axes and one without; sums over old and new states; an output without an axis."""
    s = tanh(A @ h + scale * s)
    h_new = tanh(x + B @ s + p * h)
    m = sigmoid(g) * m + w * sum(h * h_new)
    return (h_new, s, m), {"out": h_new + tanh(m), "energy": sum(s) + m}


@recurrence
def no_product_with_a_state(c=State("D"), x=Input("N"), W=Param(2, "D", "N")):
    """Only products with inputs: the steps themselves need no other member."""
    a, b = W @ x
    c = sigmoid(a) * c + b
    return c, c


DENSE = ("elman", "lstm", "gru", "slstm", "lstm_peephole", "layer_norm_lstm")
SPECS = [*map(zoo.load, DENSE), projected, two_layers, no_product_with_a_state]
RESET = torch.rand(4, 9, generator=torch.Generator().manual_seed(3)) < 0.3
CALLS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one sequence": ({"batch": 1, "time": 13, "heads": 1}, {}),
    "heads, reversed": ({"batch": 3, "time": 7, "heads": 2}, {"reverse": True}),
    "shared weights": ({"batch": 1, "time": 6, "heads": 4, "one_head": ("R", "A", "W")}, {}),
    "packed": (
        {"batch": 1, "time": 40, "sequences": 5, "heads": 1},
        {"cu_seqlens": torch.tensor([0, 12, 12, 13, 33, 40])},
    ),
    "resets": ({"batch": 4, "time": 9, "heads": 1}, {"reset": RESET}),
    "one step": ({"batch": 2, "time": 1, "heads": 1}, {}),
    "no step": ({"batch": 2, "time": 0, "heads": 1}, {}),
}


@contextmanager
def sizes_with(members: int, rows: int) -> Iterator[None]:
    """All calls are given teams of `members` and tasks of `rows`."""

    def chosen(made: Programs, shape: Shape, machine: Machine) -> CpuPlan:
        found = plan(made, shape, machine)
        return replace(found, run=replace(found.run, team=members, rows=rows))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "plan", chosen)
        yield


def results(spec: Recurrence, case: str, members: int, of: int, rows: int, sizes: Mapping[str, int]) -> list[Run]:
    """What a kernel that no other test has called gives, with and without gradients."""
    given, options = CALLS[case]
    operands, state = draw(spec, sizes=sizes, **given)
    kernel = Kernel(spec)
    with threads(of), sizes_with(members, rows):
        return [run(kernel, spec, operands, state, gradients=g, **options) for g in (True, False)]


def same_bits(found: Run, expected: Run) -> None:
    for (name, a), (_, b) in zip(found.items(), expected.items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_team_finds_what_one_thread_finds(spec: Recurrence, case: str) -> None:
    for dim in (20, 100, 256) if case == "one sequence" else (60,):
        sizes = {"D": dim, "N": 37}
        for members, of, rows in ((2, 2, 16), (3, 5, 1), (8, 8, 2)):
            expected = results(spec, case, 1, 1, rows, sizes)
            for found, wanted in zip(results(spec, case, members, of, rows, sizes), expected, strict=True):
                same_bits(found, wanted)


@pytest.mark.parametrize("spec", [zoo.lstm, zoo.layer_norm_lstm, projected, two_layers], ids=lambda spec: spec.name)
def test_a_team_finds_what_the_equations_say(spec: Recurrence) -> None:
    for case in ("one sequence", "packed", "resets"):
        given, options = CALLS[case]
        operands, state = draw(spec, sizes={"D": 100, "N": 60}, **given)
        with threads(3), sizes_with(3, 4):
            agree(spec, operands, state, **options)


def test_a_team_in_float64() -> None:
    operands, state = draw(zoo.gru, batch=1, time=20, heads=1, sizes={"D": 100}, dtype=torch.float64)
    with threads(3), sizes_with(3, 4):
        agree(zoo.gru, operands, state)


def test_one_token_at_a_time() -> None:
    spec = zoo.lstm
    operands, state = draw(spec, batch=2, time=5, heads=1, sizes={"D": 100})

    def steps(members: int) -> list[Tensor]:
        kernel = Kernel(spec)
        now, outputs = state, []
        with threads(members), sizes_with(members, 2):
            for t in range(5):
                out, now = kernel.step(state=now, **{**operands, "x": operands["x"][:, t]})
                outputs.append(out)
        return [*outputs, *now.values()]

    for a, b in zip(steps(3), steps(1), strict=True):
        assert torch.equal(a, b)


def test_many_more_members_than_cores_come_to_an_end() -> None:
    operands, state = draw(zoo.lstm, batch=1, time=200, heads=1, sizes={"D": 256})
    with threads(8), sizes_with(8, 1):
        agree(zoo.lstm, operands, state)


# -- the analysis


def shared_step(spec: Recurrence, name: str = "forward") -> Sharing:
    found = shared(programs(spec), getattr(programs(spec), name))
    assert found is not None
    return found


@pytest.mark.parametrize("spec", [zoo.elman, zoo.lstm, zoo.gru, zoo.slstm, zoo.lstm_peephole], ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["forward", "recording", "backward"])
def test_a_gated_cell_waits_once_in_a_step(spec: Recurrence, name: str) -> None:
    assert shared_step(spec, name).waits_in_step() == 1


def test_what_a_product_reads_is_there_twice() -> None:
    """Else a fast member would overwrite what a slow one still multiplies."""
    assert shared_step(zoo.lstm).turning == {("h", ())}
    assert not shared_step(zoo.lstm, "recording").turning  # every step has states of its own


def test_products_with_inputs_wait_for_their_factors() -> None:
    assert "products" in shared_step(projected).waits


def test_only_products_with_inputs_wait_where_steps_need_no_other_member() -> None:
    assert shared_step(no_product_with_a_state).waits == {"factors", "products"}


def test_a_sum_is_formed_by_every_member() -> None:
    """Added up from parts it would depend on how many there are."""
    step = shared_step(zoo.layer_norm_lstm)
    nests = arrange(programs(zoo.layer_norm_lstm).forward).nests
    sums = {n for n, nest in enumerate(nests) for s in nest.statements if s.reduce and s.matrix is None}
    assert sums and sums <= step.whole
    assert {s.target[0] for n in sums for s in nests[n].statements if s.reduce} <= step.private


def test_a_state_that_is_summed_while_others_overwrite_it_is_there_twice() -> None:
    assert ("c", ()) in shared_step(zoo.layer_norm_lstm).turning


def test_why_there_is_no_team() -> None:
    @recurrence
    def matrix(S=State("D", "D"), h=State("D"), x=Input("D"), R=Param("D", "D")):
        S = S + x[:, None] * h
        h = tanh(R @ h + S @ x)
        return (S, h), h

    assert "no weight" in str(why_no_team(programs(zoo.gla)))
    assert "more than one axis" in str(why_no_team(programs(matrix)))
    assert why_no_team(programs(zoo.lstm)) is None


def test_a_step_along_two_axes_is_not_shared() -> None:
    @recurrence
    def both(h=State("D"), x=Input("D"), y=Input("N"), R=Param("D", "D")):
        h = tanh(R @ h + x * sum(tanh(x[:, None] * y), axis=1))
        return h, h

    found = sharing(arrange(programs(both).forward), early=True, back=False)
    assert isinstance(found, str) and "N x D" in found


# -- sizes


@pytest.mark.parametrize(
    ("dim", "sequences", "count", "members"),
    [(256, 1, 2, 2), (256, 1, 1, 1), (256, 8, 2, 1), (20, 1, 2, 1), (1024, 1, 8, 8), (512, 2, 4, 4)],
)
def test_who_gets_a_team(dim: int, sequences: int, count: int, members: int) -> None:
    """Few sequences, many threads, steps that are long beside a wait."""
    machine = replace(detect(), cpu=replace(detect().cpu, barrier_seconds=2.4e-7))
    shape = Shape.of({"D": dim}, sequences, 1, count, False)
    assert plan(programs(zoo.lstm), shape, machine).run.team == members
