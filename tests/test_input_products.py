"""Products of inputs with weights, which are made for some steps at once: what the equations say, in every order."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernel_checks import agree, draw
from rekern import zoo
from rekern.hwmodels import detect
from rekern.math import sigmoid, sum, tanh
from rekern.schedules.cpu.choose import plan
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import programs
from rekern.spec import Input, Param, State, recurrence


@recurrence
def projected(h=State("D"), x=Input("N"), W=Param(2, "D", "N"), U=Param("D", "N"), R=Param("D", "D")):
    """An input that is read as it is too, and a product that only the output reads."""
    a, b = W @ x
    h = sigmoid(a) * h + (1 - sigmoid(a)) * tanh(b + R @ h)
    return h, h * sum(x) + U @ x


CASES: Mapping[str, dict[str, Any]] = {
    "one row": {"batch": 1, "time": 150},
    "rows": {"batch": 5, "time": 67},
    "more rows than a task": {"batch": 37, "time": 9},
    "one step": {"batch": 3, "time": 1},
    "no step": {"batch": 2, "time": 0},
    "heads": {"batch": 2, "time": 40, "heads": 3},
    "wide": {"batch": 2, "time": 20, "sizes": {"D": 100, "N": 60}},
}
OPTIONS: Mapping[str, dict[str, Any]] = {
    "forwards": {},
    "reverse": {"reverse": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_products_of_inputs(case: dict[str, Any], options: dict[str, Any]) -> None:
    agree(projected, *draw(projected, **case), **options)


def test_products_of_packed_sequences() -> None:
    bounds = torch.tensor([0, 50, 50, 51, 130])
    agree(projected, *draw(projected, batch=1, time=130, sequences=4), cu_seqlens=bounds)


def test_few_rows_make_their_products_for_many_steps() -> None:
    """Else a single sequence reads the weights of its inputs at every step."""
    shape = Shape.of({"D": 256, "N": 256}, 1, 1, 1, False)
    run = plan(programs(projected), shape, detect()).run
    assert run.rows == 1 and run.ahead >= 16
    assert plan(programs(zoo.lstm), replace(shape, lengths=(("D", 256),)), detect()).run.ahead == 1
