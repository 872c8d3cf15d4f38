"""The schedule scan in Triton against the float64 reference, in the interpreter; compiled for several chips offline."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from rekern import zoo
from rekern.backends.triton import compile_triton
from rekern.gradient import cotangent
from rekern.hwmodels import load
from rekern.render import render_triton
from rekern.runtime.gpu.choose import choose
from rekern.runtime.gpu.launches import source_of
from rekern.schedules.gpu.call import Call as GpuCall
from rekern.schedules.gpu.ranking import problems
from rekern.schedules.programs import programs
from rekern.schedules.scan import Summary, summaries
from rekern.schedules.triton.backward import backward_pass
from rekern.schedules.triton.factors import factor, factors
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.passes import Sizes, TritonPass, Variant
from rekern.schedules.triton.scan import backward_join_pass, backward_summary_pass, join_pass, summary_pass
from rekern.schedules.triton.segments import segment_rows
from rekern.spec import Recurrence
from triton_interpreter import Call, interpreter, limited, spec_of
from triton_scan_calls import OWN, read_out, scan_errors, turned

__all__ = ["interpreter"]
LIMITS = {torch.float32: (1e-5, 5e-5), torch.float16: (2e-3, 4e-3)}
VECTORS = ("min_gru", "min_lstm", "hgrn", "rwkv4")
MATRICES = (
    *("selective_scan", "linear_attention", "retention", "simple_gla", "gla", "rwkv6", "mlstm_sigmoid"),
)  # fmt: skip
MORE = {"D": 20, "K": 3, "V": 20, "N": 3}
FEW = {"D": 5, "K": 2, "V": 7, "N": 3}
KINDS = ("min_lstm", "rwkv4", "gla", "chained")


def levels(spec: Recurrence) -> tuple[Summary, ...]:
    found = summaries(spec)
    assert isinstance(found, tuple), found
    return found


def test_these_recurrences_of_the_zoo_have_a_scan() -> None:
    assert {n for n in zoo.names() if isinstance(summaries(spec_of(n)), tuple)} == {*VECTORS, *MATRICES}


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("name", [*VECTORS, *MATRICES, *OWN])
def test_every_scan(name: str, dtype: torch.dtype, interpreter: Call) -> None:
    whole = dtype == torch.float32  # two heads and two tiles of columns
    found = interpreter(scan_errors, name, 4, dtype, heads=2 if whole else 1, lengths=MORE if whole else FEW)
    limited(found, *LIMITS[dtype])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("forward, backward", [(2, 8), (8, 2), (16, 4)])
def test_any_segment(name: str, forward: int, backward: int, interpreter: Call) -> None:
    found = interpreter(scan_errors, name, forward, backward_segment=backward, time=13, heads=1, lengths=FEW)
    limited(found, *LIMITS[torch.float32])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch, time, heads", [(1, 0, 1), (2, 1, 1), (3, 8, 1)])
def test_any_batch_time_and_heads(name: str, batch: int, time: int, heads: int, interpreter: Call) -> None:
    found = interpreter(scan_errors, name, 4, batch=batch, time=time, heads=heads, lengths=FEW)
    limited(found, *LIMITS[torch.float32])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences_with_restarts(name: str, reverse: bool, interpreter: Call) -> None:
    boundaries = torch.tensor([0, 0, 3, 4, 13, 13])
    reset = torch.zeros(1, 13, dtype=torch.bool)
    reset[0, [1, 4, 10, 12]] = True
    for restarts in ({"reset": reset}, {})[: 1 + (name == "rwkv4")]:
        found = interpreter(
            scan_errors, name, 4, backward_segment=2, time=13, heads=1, lengths=FEW, sequences=5,
            cu_seqlens=boundaries, reverse=reverse, **restarts,
        )  # fmt: skip
        limited(found, *LIMITS[torch.float32])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_restarts_and_both_directions(name: str, reverse: bool, interpreter: Call) -> None:
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, [0, 3, 8]] = reset[1, [4]] = True
    found = interpreter(scan_errors, name, 4, batch=2, time=9, heads=1, lengths=FEW, reset=reset, reverse=reverse)
    limited(found, *LIMITS[torch.float32])


@pytest.mark.parametrize("name", ["min_lstm", "rwkv4", "log_sum"])
def test_declared_first_states(name: str, interpreter: Call) -> None:
    limited(interpreter(scan_errors, name, 4, heads=1, lengths=FEW, given=False), *LIMITS[torch.float32])


@pytest.mark.parametrize("name", ["rwkv4", "gla"])
def test_without_a_gradient(name: str, interpreter: Call) -> None:
    limited(interpreter(scan_errors, name, 4, heads=1, lengths=FEW, gradients=False), *LIMITS[torch.float32])


@pytest.mark.parametrize("name", ["hgrn", "rwkv4"])
def test_long_sequences(name: str, interpreter: Call) -> None:
    found = interpreter(scan_errors, name, 16, time=300, heads=1, lengths={"D": 7})
    limited(found, *LIMITS[torch.float32])


@pytest.mark.parametrize("name, shared", [("gla", ("k", "v")), ("rwkv6", ("u", "r")), ("hgrn", ("g",))])
def test_heads_in_groups(name: str, shared: tuple[str, ...], interpreter: Call) -> None:
    limited(interpreter(scan_errors, name, 4, time=5, lengths=FEW, one_head=shared), *LIMITS[torch.float32])


@pytest.mark.parametrize("name, operand, axis", [("hgrn", "g", "D"), ("rwkv4", "w", "D"), ("gla", "g", "K")])
def test_decays_of_any_strength(name: str, operand: str, axis: str, interpreter: Call) -> None:
    """None, half of it, and such that nothing is left; for rates that change with time also a single strong one."""
    spec, length = spec_of(name), FEW[axis]
    decays = torch.tensor([0.0, -20.0, -1e4, -0.1]).repeat(length)
    if spec.operand(operand).kind == "param":
        strong = decays[: 2 * length].reshape(2, length)
    else:
        strong = decays.repeat(7).flip(0)[: 9 * 2 * length].reshape(1, 9, 2, length)
    found = interpreter(scan_errors, name, 4, time=9, lengths=FEW, change={operand: strong})
    limited(found, *LIMITS[torch.float32])


def test_operands_with_any_strides(interpreter: Call) -> None:
    x = torch.randn(2, 7, 40)[:, :, ::2].reshape(2, 7, 2, 10)
    swapped = torch.randn(2, 2, 7, 10).transpose(1, 2)
    wide = torch.randn(2, 7, 2, 30)[..., ::3].clamp(max=0)
    for change in ({"x": x}, {"x": swapped, "g": wide}, {"x": torch.randn(1, 1, 1, 10).expand(2, 7, 2, 10)}):
        found = interpreter(scan_errors, "hgrn", 4, batch=2, lengths={"D": 10}, change=change)
        limited(found, *LIMITS[torch.float32])


def test_nothing_is_multiplied_by_a_cotangent_that_is_always_0() -> None:
    spec = programs(zoo.rwkv4)
    found = factors(spec)
    pairs = {("a", "a"), ("m", "a"), ("b", "b"), ("m", "b"), ("m", "m")}
    assert found.keys() == {(factor(name, (source, ())), ()) for name, source in pairs}
    text = render_triton(backward_summary_pass(spec, sizes_of(spec.spec), Variant()))
    assert not re.search(r"(?<![\d.])0\.0 [*/]|[*/] 0\.0", text)
    for target, assign in found.items():
        assert assign.target == target and cotangent("out") not in str(assign.value)


def test_packed_sequences_take_rows_by_where_they_begin() -> None:
    """Every boundary: the rows of a sequence end before those of the next begin, and hold all of its segments."""
    segment, time = 4, 14
    for a in range(time + 1):
        for b in range(a, time + 1):
            bounds = [0, a, b, time]
            first = [bounds[n] // segment + n for n in range(4)]
            first[3] = segment_rows(3, time, segment, packed=True)
            for n in range(3):
                assert first[n + 1] - first[n] >= max(1, -(-(bounds[n + 1] - bounds[n]) // segment))


# -- which schedule


@pytest.mark.parametrize(
    "spec, reason",
    [
        (read_out, "a step multiplies a weight with a vector: sequences share the block that holds it"),
        (turned, "a step reads state 's' with its axes turned, so channels are not independent"),
        (zoo.indrnn, "state 'h' is pointwise, not linear in h: maximum(x[d] + u[d] * h[d] + b[d], 0)"),
        (zoo.mlstm, "its states have different axes, ('K', 'V') and ('K',) and ()"),
    ],
)
def test_why_there_is_no_scan(spec: Recurrence, reason: str) -> None:
    call = GpuCall.of(spec, dict.fromkeys(spec.axes, 32), load("h100_sxm"), batch=1, heads=1, time=64, dtype="float32")
    assert problems(call)[1]["scan"] == reason


def test_the_solver_cuts_time_where_channels_do_not_fill_the_chip() -> None:
    spec, machine = programs(zoo.hgrn), load("h100_sxm")
    lone = choose(machine, spec, (("D", 256),), 1, 1, 65536, "float32")[0]
    assert lone.choice.schedule == "scan"
    assert lone.forward.segment >= 16 and lone.backward.segment >= 16 and lone.step.segment == 0
    wide = choose(machine, spec, (("D", 4096),), 64, 1, 1024, "float32")[0]
    assert wide.choice.schedule == "time_loop" and wide.forward.segment == 0


# -- offline


LENGTHS = {"D": 100, "K": 20, "V": 60}
ALL = Variant(packed=True, reverse=True, reset=True)


def sizes_of(spec: Recurrence) -> Sizes:
    return Sizes(tuple((a, LENGTHS[a]) for a in spec.axes), 64, 0, 2, 4, 16, 64)


def kernels(spec: Recurrence, variant: Variant) -> list[TritonPass]:
    """All kernels of a call with its gradient."""
    own, sizes = programs(spec), sizes_of(spec)
    found = [
        k
        for level in levels(own.spec)
        for k in (summary_pass(level, own.lane, sizes, variant), join_pass(own, level, sizes, variant))
    ]
    found += [forward_pass(own, sizes, variant, record=True), backward_summary_pass(own, sizes, variant)]
    return [*found, backward_join_pass(own, sizes, variant), backward_pass(own, sizes, variant)]


@pytest.mark.parametrize(
    "name, architecture, variant",
    [
        ("hgrn", "sm_90", ALL),
        ("rwkv4", "sm_80", replace(ALL, packed=False)),
        ("rwkv4", "gfx942", ALL),
        ("gla", "sm_90", Variant(packed=True)),
    ],
)
def test_kernels_compile(name: str, architecture: str, variant: Variant) -> None:
    for kernel in kernels(zoo.load(name), variant):
        found = compile_triton(source_of(kernel), architecture, disassemble=False)
        assert found.resources.threads == (128 if architecture == "gfx942" else 64)


def test_a_join_of_large_states_keeps_little_in_flight() -> None:
    """128 rows of a column: the tiles of segments would not fit into shared memory as often as steps are in flight."""
    own = programs(zoo.gla)
    sizes = Sizes((("K", 128), ("V", 128)), 64, 0, 2, 8, 16, 64)
    join = join_pass(own, levels(own.spec)[0], sizes, Variant())
    assert join.column_tiles == 16
    assert compile_triton(source_of(join), "sm_80", disassemble=False).resources.shared_bytes <= 32768
