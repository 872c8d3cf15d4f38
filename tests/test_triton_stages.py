"""A step in stages: which products there are, when they are made, and where there are no kernels."""

from __future__ import annotations

import pytest

from rekern import Input, Param, State, recurrence, zoo
from rekern.errors import PlanError
from rekern.hwmodels import load
from rekern.math import outer, tanh
from rekern.runtime.gpu.choose import choose
from rekern.schedules.programs import programs
from rekern.schedules.triton.alternating import AlternatingPass, alternating_pass, sizes_of
from rekern.schedules.triton.passes import PassName, Variant
from rekern.spec import Recurrence
from staged_cells import early, swapped
from test_dense_cells import two_weights

MACHINE = load("h100_sxm")


def made(spec: Recurrence, name: PassName) -> AlternatingPass:
    sizes = sizes_of(tuple((a, 300) for a in spec.axes))
    return alternating_pass(programs(spec), name, sizes, Variant(), lambda weight: None)


@pytest.mark.parametrize("name", ["lstm", "slstm", "lstm_peephole", "layer_norm_lstm"])
def test_the_gates_of_a_cell_are_one_product_in_each_direction(name: str) -> None:
    forward, backward = (made(zoo.load(name), way) for way in ("forward", "backward"))
    (gates,), (back,) = forward.stages.multiplies, backward.stages.multiplies
    cells = [(("R", (n,)), True) for n in range(4)]
    assert (len(gates.vectors), list(gates.weights)) == (1, cells)
    assert (len(back.vectors), list(back.weights)) == (4, [(place, False) for place, _ in cells])
    assert [k.part for k in forward.kernels] == ["begin", "step"]
    assert [k.part for k in backward.kernels] == ["begin", "step"]


def test_weights_of_one_vector_are_one_product() -> None:
    (product,) = made(two_weights, "forward").stages.multiplies
    assert [place for (place, _), _ in product.weights] == ["A", "B"]


def test_products_that_wait_for_each_other_are_stages() -> None:
    found = made(swapped, "forward")
    assert [m.depth for m in found.stages.multiplies] == [1, 2, 3]
    assert [k.part for k in found.kernels] == ["begin", "part", "part", "step"]


def test_products_of_inputs_are_made_before_the_loop() -> None:
    found = made(early, "forward")
    before = [m for m in found.stages.multiplies if m.early]
    assert sorted(m.depth for m in before) == [1, 1, 2]
    assert found.stages.depth == 1
    assert [k.part for k in found.kernels] == ["inputs", "inputs", "begin", "step"]
    assert any(m.vectors == (("x", (0,)),) for m in before), "what is an input is not written again"


def test_tiles_share_out_the_columns_unless_a_row_is_summed_over() -> None:
    assert {k.column_tiles for k in made(zoo.load("lstm"), "backward").kernels} == {3}
    assert {k.column_tiles for k in made(zoo.load("layer_norm_lstm"), "backward").kernels} == {1}


def test_a_kernel_declares_what_it_reads() -> None:
    begin = made(zoo.load("lstm"), "forward").kernels[0]
    assert [a.name for a in begin.arguments] == ["h_state", "vector_0", "t", "sequences", "time", "heads"]


@recurrence
def matrix_and_cell(S=State("D", "D"), h=State("D"), x=Input("D"), R=Param("D", "D")):
    h = tanh(x + R @ h)
    return (S + outer(h, x), h), S @ h


@recurrence
def matrix_input(h=State("D"), x=Input("D", "N"), w=Input("N"), R=Param("D", "D")):
    h = tanh(x @ w + R @ h)
    return h, h


@pytest.mark.parametrize(
    "spec, reason",
    [
        (matrix_and_cell, "alternating: state 'S' has more than one named axis"),
        (matrix_input, "alternating: the gradient of 'x' has more than one named axis at every step"),
        (zoo.load("gla"), "alternating: no state is multiplied by a matrix"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_has_no_kernels_says_why(spec: Recurrence, reason: str) -> None:
    lengths = tuple((a, 32) for a in spec.axes)
    with pytest.raises(PlanError, match=reason):
        choose(MACHINE, programs(spec), lengths, 8, 2, 64, "float32", among=("alternating",))


def test_a_weight_that_no_block_can_hold_is_left_to_products() -> None:
    found = choose(MACHINE, programs(zoo.load("lstm")), (("D", 1024),), 16, 1, 512, "bfloat16")[0]
    assert found.choice.schedule == "alternating"
    assert found.forward.columns * found.forward.rows == 128
