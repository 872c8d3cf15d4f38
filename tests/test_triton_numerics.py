"""Triton kernels against the float64 reference, in Triton's interpreter: forward and gradient of every spec."""

import os

import pytest
import torch

import triton_random
from rekern import zoo
from triton_interpreter import Call, errors_of, errors_with_default, interpreter, limited

__all__ = ["interpreter"]
LIMITS = {torch.float32: (1e-5, 5e-5), torch.float16: (2e-3, 4e-3)}
MANY = ("lstm", "gru", "layer_norm_lstm", "hgrn", "rwkv4", "gated_delta_rule", "mlstm", "retention", "selective_scan")
KINDS = ("lstm", "hgrn", "gated_delta_rule", "rwkv4", "mlstm", "rwkv6")


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("name", zoo.names())
def test_every_recurrence(name: str, dtype: torch.dtype, interpreter: Call) -> None:
    limited(interpreter(errors_of, name, dtype), *LIMITS[dtype])


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("batch, time, heads", [(1, 0, 1), (1, 1, 1), (17, 1, 1), (2, 5, 1)])
def test_any_batch_time_and_heads(name: str, batch: int, time: int, heads: int, interpreter: Call) -> None:
    limited(interpreter(errors_of, name, batch=batch, time=time, heads=heads), *LIMITS[torch.float32])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences_with_restarts(name: str, reverse: bool, interpreter: Call) -> None:
    boundaries = torch.tensor([0, 0, 3, 4, 9, 9])
    reset = torch.zeros(1, 9, dtype=torch.bool)
    reset[0, [1, 4, 8]] = True
    found = interpreter(errors_of, name, time=9, sequences=5, cu_seqlens=boundaries, reset=reset, reverse=reverse)
    limited(found, *LIMITS[torch.float32])


def test_boundaries_that_do_not_lie_dense(interpreter: Call) -> None:
    boundaries = torch.tensor([[0, 9], [3, 9], [9, 0]])[:, 0]
    found = interpreter(errors_of, "gated_delta_rule", time=9, sequences=2, cu_seqlens=boundaries)
    limited(found, *LIMITS[torch.float32])


@pytest.mark.parametrize("name", ["lstm", "gated_delta_rule"])
def test_memory_of_kernels_is_float32_whatever_torch_makes_by_default(name: str, interpreter: Call) -> None:
    limited(interpreter(errors_with_default, name, torch.bfloat16), *LIMITS[torch.float32])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_restarts_and_both_directions(name: str, reverse: bool, interpreter: Call) -> None:
    reset = torch.tensor([[True, False, False, True, False], [False, False, True, False, True]])
    limited(interpreter(errors_of, name, batch=2, time=5, reset=reset, reverse=reverse), *LIMITS[torch.float32])


@pytest.mark.parametrize(
    "name, shared", [("gated_delta_rule", ("k", "v")), ("lstm", ("R", "b")), ("rwkv6", ("u", "r"))]
)
def test_heads_in_groups(name: str, shared: tuple[str, ...], interpreter: Call) -> None:
    limited(interpreter(errors_of, name, batch=2, time=4, one_head=shared), *LIMITS[torch.float32])


@pytest.mark.parametrize("name", ["oja", "lstm", "layer_norm_lstm"])
def test_kernels_that_are_short_of_registers(name: str, interpreter: Call) -> None:
    reset = torch.tensor([[True, False, False, True, False], [False, False, True, False, True]])
    limited(interpreter(errors_of, name, batch=2, time=5, reset=reset, crowded=True), *LIMITS[torch.float32])


def test_this_process_compiles(interpreter: Call) -> None:
    assert os.environ.get("TRITON_INTERPRET") != "1"
    assert interpreter(os.getenv, "TRITON_INTERPRET") == "1"


def test_random_recurrences(interpreter: Call) -> None:
    interpreter(triton_random.check_many)
