"""Dense cells that the zoo does not have: weights that are used twice, states that are one number, heads in groups."""

import re

import pytest
import torch

from kernel_checks import agree, draw, threads
from rekern import Input, Param, State, compile, recurrence, zoo
from rekern.math import sigmoid, sum, tanh
from rekern.reference import reference
from rekern.runtime.kernel import Kernel
from rekern.spec import Recurrence


@recurrence
def gated_twice(h=State("D"), x=Input("N"), V=Param("D", "N"), R=Param("D", "D")):
    """The gradient of V has two terms with one right side: what x is multiplied with."""
    g = sigmoid(V @ x)
    h = g * tanh(R @ (g * h))
    return h, h


@recurrence
def two_layers(h=State("D"), c=State("D"), x=Input("D"), R=Param("D", "D"), Q=Param("D", "D")):
    h = tanh(x + R @ h)
    c = sigmoid(Q @ h) * c
    return (h, c), h


@recurrence
def weight_twice(h=State("D"), x=Input("D"), R=Param("D", "D")):
    """The gradient of R has two terms with different right sides."""
    h = tanh(x + R @ h) + tanh(R @ sigmoid(x))
    return h, h


@recurrence
def with_a_number(n=State(), h=State("D"), x=Input("D"), R=Param("D", "D")):
    total = sum(x * h) * 1.5
    h = tanh(x + R @ h + 0.1 * n * x)
    return (total, h), h * n


@recurrence
def two_weights(h=State("D"), x=Input("D"), A=Param("D", "D"), B=Param("D", "D")):
    h = tanh(x + A @ h) + tanh(B @ h)
    return h, h


SPECS = (gated_twice, two_layers, weight_twice, with_a_number, two_weights)
SIZES = {"D": 20, "N": 7}


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 1), (2, 9), (17, 4)])
@pytest.mark.parametrize("count", [1, 2])
def test_kernels_and_gradients(spec: Recurrence, batch: int, time: int, count: int) -> None:
    with threads(count):
        agree(spec, *draw(spec, batch=batch, time=time, heads=2, sizes=SIZES))


@pytest.mark.parametrize("size", [8, 100])
def test_weights_of_one_product_may_have_different_heads(size: int) -> None:
    """Six heads: three of A and two of B, so that only single heads share both."""
    torch.manual_seed(0)
    weights = {"A": torch.randn(3, size, size) / size**0.5, "B": torch.randn(2, size, size) / size**0.5}
    operands = {"x": torch.randn(2, 5, 6, size), **weights}
    out, _ = compile(two_weights)(**operands)
    true, _ = reference(two_weights, operands)
    assert isinstance(out, torch.Tensor) and isinstance(true, torch.Tensor)
    assert float((out - true).norm() / true.norm()) < 1e-5


@pytest.mark.parametrize(
    ("name", "calls"),
    [("lstm", (5, 5, 1)), ("gru", (3, 3, 1)), ("slstm", (5, 5, 4)), ("layer_norm_lstm", (11, 11, 14))],
)
def test_no_function_is_computed_twice(name: str, calls: tuple[int, int, int]) -> None:
    """Wherever chains of functions are cut: forward, recording, backward."""
    found = [
        len(re.findall(r"rk_(tanh|sigmoid|exp|log\w*|rsqrt)\(", text[text.index("void run_task") :]))
        for text in Kernel(zoo.load(name)).sources().values()
    ]
    assert tuple(found) == calls
