"""Products in bfloat16: rows are rounded where every operand is, sums stay float32."""


import pytest
import torch

from kernel_checks import agree, draw, errors, exact, run
from rekern import zoo
from rekern.api import compile
from rekern.runtime.kernel import Kernel
from rekern.spec import Recurrence
from test_input_products import projected

# Relative root mean squares. Rounding to 8 bits costs 1.7e-3: once for an output, and once more for what a
# product rounded, in the gradient of a first state that comes out of a product.
OUTPUT, STATE, GRADIENT = 2.2e-3, 1.2e-3, 3.5e-3


def held(spec: Recurrence, **drawn: object) -> None:
    operands, first = draw(spec, dtype=torch.bfloat16, **drawn)
    expected = run(None, spec, exact(operands), exact(first))
    found = errors(run(compile(spec), spec, operands, first), expected)
    limits = {n: STATE if n.startswith("final") else GRADIENT if n.startswith("grad") else OUTPUT for n in found}
    assert {n: e for n, e in found.items() if not e <= limits[n]} == {}


@pytest.mark.parametrize("batch", range(1, 18))
@pytest.mark.parametrize("size", [7, 20, 33, 60, 100, 256])
def test_errors_are_those_of_rounding_results(size: int, batch: int) -> None:
    held(zoo.lstm, batch=batch, time=9, heads=1, sizes={"D": size})


@pytest.mark.parametrize("time", [0, 1, 2, 40])
@pytest.mark.parametrize("spec", [zoo.gru, zoo.elman, zoo.layer_norm_lstm], ids=str)
def test_other_cells_and_few_steps(spec: Recurrence, time: int) -> None:
    held(spec, batch=3, time=time, heads=2, sizes={"D": 77})
    held(spec, batch=3, time=time, heads=2, sizes={"D": 77}, one_head=["R"])


def test_products_with_inputs() -> None:
    for batch, time in ((5, 70), (1, 150), (3, 1)):
        held(projected, batch=batch, time=time, heads=1, sizes={"D": 100, "N": 37})


def test_float32_inputs_are_not_rounded() -> None:
    operands, first = draw(zoo.lstm, heads=1, sizes={"D": 100})
    operands["R"] = operands["R"].bfloat16()
    agree(zoo.lstm, operands, first, backward=3e-3)     # the gradient of R is stored in bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_of_pairs_are_compiled_only_for_calls_that_make_them(dtype: torch.dtype) -> None:
    operands, first = draw(zoo.elman, heads=1, sizes={"D": 33}, dtype=dtype)
    kernel = Kernel(zoo.elman)
    kernel(**operands, state=first)
    assert {sizes.pairs for sizes, _ in kernel.executor.passes} == {dtype == torch.bfloat16}


def test_a_number_that_is_none_stays_in_its_row() -> None:
    operands, first = draw(zoo.elman, batch=3, time=5, heads=1, sizes={"D": 33}, dtype=torch.bfloat16)
    operands["x"][1, 2, 0, 4] = float("nan")
    out = compile(zoo.elman)(**operands, state=first)[0]
    assert isinstance(out, torch.Tensor)
    assert out[1, 3:].isnan().all() and not out[[0, 2]].isnan().any() and not out[1, :2].isnan().any()
