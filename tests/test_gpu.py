"""Kernels on a GPU: `pytest -m gpu`. The same functions check in Triton's interpreter what does not need one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpu_checks import data, excess, far_apart, named, steps_differ, to, unequal
from rekern import zoo
from rekern.api import compile
from test_export import run_exported
from triton_interpreter import Call, interpreter, kernel_of, spec_of

__all__ = ["interpreter"]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LENGTHS = {"D": 60, "K": 20, "V": 100, "N": 5}
SMALL = {"D": 20, "K": 5, "V": 20, "N": 3}
KINDS = ("lstm", "hgrn", "gated_delta_rule", "rwkv4", "mlstm", "rwkv6", "selective_scan")
BEYOND = 2**31 + 2**20  # numbers
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))


def kernel(name: str) -> Any:
    return compile(spec_of(name), "auto")


# -- the same functions in the interpreter


def interpreted_excess(name: str, dtype: torch.dtype, **options: Any) -> dict[str, tuple[float, float]]:
    spec = spec_of(name)
    return excess(kernel_of(spec), spec, dtype, SMALL, "cpu", **options)


def interpreted_unequal(name: str) -> list[str]:
    spec = spec_of(name)
    return unequal(kernel_of(spec), spec, torch.float32, SMALL, "cpu", batch=2, time=3, heads=2)


def interpreted_steps(name: str) -> dict[str, float]:
    spec = spec_of(name)
    return steps_differ(kernel_of(spec), spec, torch.float32, SMALL, "cpu", batch=2, time=3, heads=2)


def interpreted_far_apart() -> bool:
    x, g = (torch.randn(1, 3, 1, 20) for _ in "xg")
    return far_apart(kernel_of(spec_of("hgrn")), (x, -g.abs()), ("x", "g"), 1000, torch.empty(4000))


@pytest.mark.parametrize("name", ["lstm", "gru", "hgrn", "gated_delta_rule"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_what_is_allowed_holds_in_the_interpreter(name: str, dtype: torch.dtype, interpreter: Call) -> None:
    assert interpreter(interpreted_excess, name, dtype, time=4) == {}


def test_a_wrong_kernel_would_be_seen(interpreter: Call) -> None:
    assert set(interpreter(wrong_excess)) >= {"out", "final h"}


def wrong_excess() -> dict[str, tuple[float, float]]:
    """The kernel of another recurrence with the same operands."""
    right, wrong = spec_of("hgrn"), kernel_of(spec_of("hgrn"))
    return excess(lambda **given: wrong(reverse=True, **given), right, torch.float16, SMALL, "cpu")


@pytest.mark.parametrize("name", ["lstm", "mlstm", "hgrn"])
def test_calls_repeat_and_steps_agree_in_the_interpreter(name: str, interpreter: Call) -> None:
    assert interpreter(interpreted_unequal, name) == []
    assert max(interpreter(interpreted_steps, name).values()) <= 1e-6


def test_strided_steps_agree_in_the_interpreter(interpreter: Call) -> None:
    assert interpreter(interpreted_far_apart)


# -- numerics


@pytest.mark.gpu
@dtypes
@pytest.mark.parametrize("name", zoo.names())
def test_every_recurrence(name: str, dtype: torch.dtype) -> None:
    assert excess(kernel(name), spec_of(name), dtype, LENGTHS, "cuda", batch=3, time=37) == {}


@pytest.mark.gpu
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch, time, heads", [(1, 0, 1), (1, 1, 1), (17, 1, 1), (1, 300, 5)])
def test_any_batch_time_and_heads(name: str, batch: int, time: int, heads: int) -> None:
    found = excess(kernel(name), spec_of(name), torch.float32, SMALL, "cuda", batch, time, heads)
    assert found == {}


@pytest.mark.gpu
@dtypes
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_packed_sequences_with_restarts(name: str, reverse: bool, dtype: torch.dtype) -> None:
    boundaries = torch.tensor([0, 0, 3, 4, 90, 90])
    reset = torch.zeros(1, 90, dtype=torch.bool)
    reset[0, [1, 4, 50]] = True
    options = {"cu_seqlens": boundaries, "reset": reset, "reverse": reverse}
    found = excess(kernel(name), spec_of(name), dtype, LENGTHS, "cuda", 1, 90, 2, options, sequences=5)
    assert found == {}


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_restarts_and_both_directions(name: str, reverse: bool) -> None:
    reset = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) < 0.2
    options = {"reset": reset, "reverse": reverse}
    found = excess(kernel(name), spec_of(name), torch.float32, LENGTHS, "cuda", 2, 40, 3, options)
    assert found == {}


@pytest.mark.gpu
@dtypes
@pytest.mark.parametrize("name", zoo.names())
def test_calls_repeat_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    assert unequal(kernel(name), spec_of(name), dtype, LENGTHS, "cuda", batch=5, time=65, heads=3) == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", zoo.names())
def test_steps_in_place_agree_with_a_call(name: str) -> None:
    found = steps_differ(kernel(name), spec_of(name), torch.float32, LENGTHS, "cuda", batch=3, time=9, heads=2)
    assert max(found.values()) <= 1e-5


# -- graphs, streams, several GPUs


def on_gpu(name: str, **drawn: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    operands, state = data(spec_of(name), torch.float32, LENGTHS, **{"batch": 2, "time": 20, "heads": 2, **drawn})
    return to(operands, "cuda"), to(state, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", KINDS)
def test_a_call_is_captured_in_a_graph(name: str) -> None:
    operands, state = on_gpu(name)
    call = kernel(name)
    with torch.no_grad():
        call(state=state, **operands)  # builds the kernels, which cannot be captured
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out, last = call(state=state, **operands)
        others, other_state = on_gpu(name, seed=1)
        for given, new in ((operands, others), (state, other_state)):
            for n, t in given.items():
                t.copy_(new[n])
        graph.replay()
        wanted, wanted_last = call(state=other_state, **others)
    assert all(torch.equal(named(out)[n], t) for n, t in named(wanted).items())
    assert all(torch.equal(last[n], t) for n, t in wanted_last.items())


@pytest.mark.gpu
@pytest.mark.parametrize("name", KINDS)
def test_a_step_in_place_is_captured_in_a_graph(name: str) -> None:
    operands, state = on_gpu(name)
    inputs = {o.name for o in spec_of(name).of_kind("input")}
    given = {n: t[:, 0].contiguous() if n in inputs else t for n, t in operands.items()}
    call = kernel(name)
    with torch.no_grad():
        call.step(state={n: t.clone() for n, t in state.items()}, in_place=True, **given)
        own = {n: t.clone() for n, t in state.items()}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call.step(state=own, in_place=True, **given)
        for _ in range(3):
            graph.replay()
        for _ in range(3):
            _, state = call.step(state=state, **given)
    for n, t in state.items():  # kernels of a step in place have sizes of their own, so sums may have another order
        torch.testing.assert_close(own[n], t, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", KINDS)
def test_calls_on_many_streams_do_not_meet(name: str) -> None:
    calls = [on_gpu(name, seed=seed) for seed in range(8)]
    call = kernel(name)
    with torch.no_grad():
        wanted = [call(state=state, **operands)[1] for operands, state in calls]
        torch.cuda.synchronize()
        streams = [torch.cuda.Stream() for _ in calls]
        found = []
        for stream, (operands, state) in zip(streams, calls, strict=True):
            with torch.cuda.stream(stream):
                found.append(call(state=state, **operands)[1])
        torch.cuda.synchronize()
    for a, b in zip(found, wanted, strict=True):
        assert all(torch.equal(a[n], t) for n, t in b.items())


@pytest.mark.gpu
def test_a_call_runs_where_its_operands_are() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    operands, state = on_gpu("lstm")
    there = [{n: t.to("cuda:1") for n, t in values.items()} for values in (operands, state)]
    with torch.no_grad():
        wanted, found = kernel("lstm")(state=state, **operands)[1], kernel("lstm")(state=there[1], **there[0])[1]
    assert torch.cuda.current_device() == 0
    assert all(found[n].device.index == 1 and torch.equal(found[n].cpu(), t.cpu()) for n, t in wanted.items())


# -- large ones


def room_for(count: int) -> None:
    """Skip where there is no room for so many bytes."""
    free, _ = torch.cuda.mem_get_info()
    if free < count:
        pytest.skip(f"{count / 2**30:.0f} GiB of GPU memory wanted, {free / 2**30:.0f} GiB are free")


@pytest.mark.gpu
def test_operands_whose_steps_lie_beyond_32_bits() -> None:
    room_for(3 * BEYOND)
    buffer = torch.empty(BEYOND, dtype=torch.bfloat16, device="cuda")
    x, g = (torch.randn(1, 9, 1, 100, device="cuda").bfloat16() for _ in "xg")
    assert far_apart(kernel("hgrn"), (x, -g.abs()), ("x", "g"), (2**31 + 2**10) // 8, buffer)


@pytest.mark.gpu
def test_outputs_with_more_numbers_than_32_bits_count() -> None:
    room_for(4 * BEYOND)
    length = 2048
    steps = BEYOND // length
    x, g = (torch.randn(1, 1, 1, length, device="cuda").bfloat16() for _ in "xg")
    with torch.no_grad():
        out, last = kernel("hgrn")(x=x.expand(1, steps, 1, length), g=(-g.abs()).expand(1, steps, 1, length))
    assert isinstance(out, Tensor)
    # A scan joins segments for the last state: it may be off by a rounding.
    torch.testing.assert_close(out[:, -1], last["h"].bfloat16(), rtol=2**-7, atol=0)


# -- an exported file


@pytest.mark.gpu
@dtypes
@pytest.mark.parametrize("name", ["lstm", "gated_delta_rule", "hgrn", "mlstm"])
def test_an_exported_file(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    got, expected = run_exported(spec_of(name), tmp_path, 2, 20, 3, dtype, "cuda")
    limit = 2e-5 if dtype == torch.float32 else 4e-2
    assert got["rekern"] == [] and got["repeated"]
    for n, true in expected.outputs.items():
        assert float((got["outputs"][n].double().cpu() - true).norm() / true.norm()) <= limit
