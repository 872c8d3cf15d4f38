"""Kernels of the zoo, compiled for GPUs that are not there: nothing spills, nothing exceeds shared memory."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from rekern import zoo
from rekern.backends.offline import Resources
from rekern.errors import BuildError, PlanError
from rekern.gate.verdicts import Accepted, Excess, Failed, Rejected
from rekern.hwmodels import load
from rekern.runtime.gpu import fits
from rekern.runtime.gpu.choose import choose
from rekern.runtime.gpu.fits import Option, ask, first_that_fits
from rekern.runtime.gpu.launches import source_of
from rekern.runtime.gpu.variants import plain_variant
from rekern.runtime.gpu.views import PASSES, Views
from rekern.schedules.gpu.call import DTYPES, Call
from rekern.schedules.gpu.usual import usual_calls
from rekern.schedules.programs import programs
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.order import few_at_once
from rekern.schedules.triton.passes import Sizes, TritonPass
from rekern.spec import Recurrence

MACHINES = ("a100_sxm_80gb", "a10g", "l40s", "h100_sxm", "b200", "rtx5090", "mi300x")
RESOURCES = Resources(1024, 255, 8, 8, 0, 128, ())


def spec_of(name: str) -> Recurrence:
    spec = zoo.load(name)
    return spec.bind(n=2) if "n" in spec.axes else spec


def sample() -> list[tuple[str, str, str, str]]:
    """Every spec once; machines, dtypes and passes in turn, with steps that have no factor in common."""
    turns = zip(zoo.names(), itertools.cycle(MACHINES), itertools.cycle(DTYPES), itertools.count(), strict=False)
    return [(name, machine, dtype, PASSES[(n + n // 4) % 4]) for name, machine, dtype, n in turns]


@pytest.mark.parametrize("name, machine, dtype, kernel", sample(), ids=lambda v: v)
def test_kernels_neither_spill_nor_exceed_the_machine(name: str, machine: str, dtype: str, kernel: str) -> None:
    call = usual_calls(spec_of(name), load(machine), dtype)[-1]  # type: ignore[arg-type]  # names of parameters are plain text
    views = Views(call).of(kernel)  # type: ignore[arg-type]  # likewise
    assert views
    for view in views:
        verdict = ask(source_of(view), call.machine)
        assert isinstance(verdict, Accepted)
        assert verdict.resources.spill_bytes == 0
        assert verdict.resources.shared_bytes <= (call.gpu.shared_bytes_per_block or 0)


def test_the_sample_has_every_architecture_dtype_and_pass_several_times() -> None:
    for place, values in ((1, MACHINES), (2, DTYPES), (3, PASSES)):
        found = [case[place] for case in sample()]
        assert min(found.count(value) for value in values) >= 4


def test_a_state_that_no_block_can_hold_is_refused_with_the_limit_and_the_way_out() -> None:
    call = Call.of(
        spec_of("oja"), {"K": 512, "V": 512}, load("h100_sxm"), batch=1, heads=1, time=16, dtype="bfloat16"
    )
    with pytest.raises(PlanError, match=r"(?s)no kernel for oja K=512 V=512.*tiles in registers.*try: a smaller K"):
        Views(call).of("forward")


# -- the list of sizes, with a compiler that says what a test wants


def options(*taken: tuple[int, int, int]) -> list[Option]:
    """Options by warps, registers and shared bytes; stages count down."""
    return [
        Option(Sizes((("D", 64),), 0, 16, warps, 9 - n), registers, shared)
        for n, (warps, registers, shared) in enumerate(taken)
    ]


def tried(monkeypatch: pytest.MonkeyPatch, given: list[Option], says: list[object]) -> list[int]:
    """The warps of the kernels that were compiled, in order."""
    seen: list[int] = []
    answers = iter(says)
    monkeypatch.setattr(fits, "source_of", lambda view: view)
    monkeypatch.setattr(fits, "ask", lambda source, machine: next(answers))

    def make(sizes: Sizes) -> TritonPass:
        seen.append(sizes.warps)
        return sizes  # type: ignore[return-value]  # it stands for a kernel

    first_that_fits("forward of a test", given, make, load("h100_sxm"), "a smaller D")
    return seen


def rejected(limit: str) -> Rejected:
    return Rejected(RESOURCES, (Excess(limit, 8, 0, f"too much {limit}"),))


ACCEPTED = Accepted(RESOURCES)


def test_after_a_spill_only_sizes_with_fewer_registers_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options((1, 200, 10), (2, 200, 5), (4, 100, 20), (8, 50, 30))
    assert tried(monkeypatch, given, [rejected("spills"), ACCEPTED]) == [1, 4]


def test_after_too_much_shared_memory_only_sizes_with_less_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options((1, 200, 10), (2, 200, 10), (4, 300, 5))
    assert tried(monkeypatch, given, [rejected("shared_memory"), ACCEPTED]) == [1, 4]


def test_without_sizes_with_fewer_registers_fewer_loads_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(*((warps, 200, 10) for warps in (1, 2, 4, 8, 16, 32)))  # 9 to 4 stages
    assert tried(monkeypatch, given, [rejected("spills"), ACCEPTED]) == [1, 32]


def test_if_nothing_fits_the_message_has_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        r"no sizes fit: forward of a test\n    rows=16, warps=1, stages=9: rejected: spills: too much spills\n"
        r"    rows=16, warps=2, stages=8: rejected: spills: too much spills\ntry: a smaller D"
    )
    with pytest.raises(PlanError, match=said):
        tried(monkeypatch, options((1, 200, 10), (2, 100, 10)), [rejected("spills")] * 2)


def test_what_no_compiler_accepts_is_a_fault_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="bad kernel"):
        tried(monkeypatch, options((1, 200, 10), (2, 100, 10)), [Failed("bad kernel")] * 2)


def test_the_compiler_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    spec, machine = spec_of("min_gru"), load("h100_sxm")
    variant = plain_variant(spec, {"D": 32}, "float32", machine)
    view = forward_pass(programs(spec), Sizes((("D", 32),), 32, 0, 1, 1), variant, False)
    first, second = (ask(source_of(view), machine) for _ in range(2))
    assert isinstance(first, Accepted) and second == replace(first, remembered=True)


def test_a_step_of_a_dense_cell_is_its_forward_kernel() -> None:
    call = usual_calls(spec_of("lstm"), load("h100_sxm"), "bfloat16")[0]
    chosen = choose(call.machine, programs(call.spec), call.lengths, call.batch, call.heads, call.time, call.dtype)[0]
    assert chosen.step == chosen.forward


# -- the order of lines


def test_an_order_never_reads_a_state_after_its_new_value_has_taken_its_place() -> None:
    lines = ["new = S * k", "tl.store(p, S)", "S = new", "tl.store(q, S)"]
    found = few_at_once(lines, {"S": 16, "new": 16})
    assert found.index("tl.store(p, S)") < found.index("S = new") < found.index("tl.store(q, S)")


def test_an_order_that_holds_no_less_is_not_taken() -> None:
    lines = ["a = x + y", "b = a + x"]
    assert few_at_once(lines, {"a": 1, "b": 1, "x": 1, "y": 1}) == lines
