"""The cost of launches and schedules: laws of the formulas, counts by hand, and orders that others have measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from rekern import zoo
from rekern.errors import PlanError
from rekern.hwmodels import Machine, load, names
from rekern.hwmodels.gpu import Gpu
from rekern.schedules.gpu import rates, work
from rekern.schedules.gpu.call import Call, Dtype
from rekern.schedules.gpu.chunk_structure import structure
from rekern.schedules.gpu.launches import Launch, priced
from rekern.schedules.gpu.ranking import SCHEDULES, problems, rank
from rekern.schedules.gpu.usual import usual_calls
from rekern.solver import Infeasible, solve
from rekern.spec import Recurrence

LENGTHS = {"K": 128, "V": 128, "D": 64, "N": 16}
H100 = load("h100_sxm")


def call_of(
    name: str,
    machine: Machine = H100,
    dtype: Dtype = "bfloat16",
    batch: int = 8,
    heads: int = 16,
    time: int = 4096,
    gradient: bool = True,
    **lengths: int,
) -> Call:
    spec = bound(name)
    sizes = {a: {**LENGTHS, **lengths}[a] for a in spec.axes}
    return Call.of(spec, sizes, machine, batch=batch, heads=heads, time=time, dtype=dtype, gradient=gradient)


def bound(name: str) -> Recurrence:
    spec = zoo.load(name)
    return spec.bind(n=2) if "n" in spec.axes else spec


def gpu_of(machine: Machine) -> Gpu:
    assert machine.gpu is not None
    return machine.gpu


# -- one launch ----------------------------------------------------------------------------------------------


@given(
    blocks=st.integers(1, 10**5),
    steps=st.integers(1, 1000),
    warps=st.sampled_from((1, 2, 4, 8, 16)),
    tile=st.integers(0, 20_000),
    shared=st.integers(0, 200_000),
    dram=st.integers(0, 10**9),
    matrix=st.integers(0, 10**12),
    flops=st.integers(0, 10**11),
    stages=st.integers(1, 5),
)
def test_a_launch_costs_what_its_formula_says(
    blocks: int, steps: int, warps: int, tile: int, shared: int, dram: int, matrix: int, flops: int, stages: int
) -> None:
    """Restated with plain numbers."""
    gpu = gpu_of(H100)
    launch = Launch(
        "x", blocks, steps, warps, "bfloat16", tile_elements=tile, shared_bytes=shared, dram_bytes=dram,
        matrix_flops=matrix, flops=flops, latency=1e-7, load_latency=5e-7, stages=stages,
    )  # fmt: skip
    threads = 32 * warps
    registers = rates.REGISTERS_BESIDE_TILES + math.ceil(tile / threads)
    fits = [32, 2048 // threads, 65536 // (registers * threads)]
    fits += [gpu.shared_bytes_per_sm // (shared + 1024)] if shared else []
    occupancy = max(1, min(fits))
    waves = math.ceil(blocks / (132 * occupancy))
    together = min(blocks, 132 * occupancy)
    on_sm = min(occupancy, math.ceil(together / 132))
    share = together / blocks / steps
    busy = min(1, on_sm * warps / 4)
    parts = [
        dram * share / (gpu.dram_bytes_per_s * gpu.dram_share),
        matrix * on_sm / blocks / steps / (gpu.bfloat16_flops_per_s * gpu.mma_share / 132 * busy),
        flops * on_sm / blocks / steps / (2 * 128 * gpu.clock_hz * busy),
        1e-7 + 5e-7 / stages,
    ]
    step = max(parts) + (sum(parts) - max(parts)) / (stages * on_sm)
    expected = waves * steps * step + gpu.launch_seconds
    found = priced(launch, gpu)
    assert float(found.seconds) == pytest.approx(expected, rel=1e-9)
    assert int(found.figures["x: blocks on an SM"]) == on_sm
    assert int(found.figures["x: registers"]) == registers


def test_blocks_that_wait_for_each_other_run_together() -> None:
    """Seven groups of 20 blocks: 132 SMs hold six of them, so there are two rounds."""
    gpu = gpu_of(H100)
    launch = Launch("x", 140, 10, 8, "bfloat16", shared_bytes=200_000, latency=1e-6, group=20)
    assert int(priced(launch, gpu).figures["x: waves"]) == 2
    assert [l.name for l in priced(replace(launch, group=140), gpu).limits] == ["x: blocks that wait for each other"]


def test_sums_lie_in_tensor_memory_where_there_is_one() -> None:
    rows = sympy.Symbol("rows", integer=True, positive=True)
    launch = Launch("x", 1, 1, 4, "bfloat16", sum_elements=rows * 256)
    hopper, blackwell = (priced(launch, gpu_of(load(n))) for n in ("h100_sxm", "b200"))
    assert "x: tensor memory" not in [l.name for l in hopper.limits]
    assert rows in hopper.figures["x: registers"].free_symbols
    assert "x: tensor memory" in [l.name for l in blackwell.limits]
    assert blackwell.figures["x: registers"] == rates.REGISTERS_BESIDE_TILES


# -- counts by hand ------------------------------------------------------------------------------------------


def test_work_of_a_step_by_hand() -> None:
    lstm = work.forward(call_of("lstm", D=64))
    assert lstm.product_flops == 8 * 64**2
    assert lstm.elements == 5 * 64
    assert work.weights(call_of("gru", D=20)).elements == 3 * 20**2
    assert work.weights(call_of("layer_norm_lstm", D=20)).chain == 5
    gla = work.forward(call_of("gla", K=60, V=100))
    assert (gla.flops, gla.special) == (5 * 60 * 100 + 100, 60)
    assert (gla.shared_elements, gla.lane_elements) == (3 * 60, 2 * 100)
    state = work.state(call_of("mlstm", K=60, V=100))
    assert (state.lane, state.elements) == ("V", 60 * 100 + 60 + 1)
    assert (state.padded_column_rows, state.padded_whole_rows) == (64, 65)
    assert work.state(call_of("delta_rule")).exchanges == 1
    assert work.state(call_of("gla")).exchanges == 0
    assert work.state(call_of("selective_scan")).lane == "D"


def test_a_gradient_does_more_than_its_forward_step() -> None:
    for name in zoo.names():
        call = call_of(name)
        there, back = work.forward(call), work.backward(call)
        assert back.flops + back.product_flops > there.product_flops, name
        assert back.elements > there.elements, name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_attention", "128 x 128, decay along nothing, erases nothing, 1 tick a step"),
        ("simple_gla", "128 x 128, decay along scalar, erases nothing, 1 tick a step"),
        ("gla", "128 x 128, decay along rows, erases nothing, 1 tick a step"),
        ("mlstm", "128 x 129, decay along scalar, erases nothing, 1 tick a step"),
        ("gated_delta_rule", "128 x 128, decay along scalar, erases its key, 1 tick a step"),
        ("kda", "128 x 128, decay along rows, erases its key, 1 tick a step"),
        ("comba", "128 x 128, decay along scalar, erases its key, 1 tick a step"),
        ("rwkv7", "128 x 128, decay along rows, erases another key, 1 tick a step"),
        ("gated_delta_product", "128 x 128, decay along scalar, erases its key, 2 ticks a step"),
    ],
)
def test_the_structure_of_a_chunk(name: str, expected: str) -> None:
    assert str(structure(call_of(name))) == expected


def test_schedules_say_why_they_do_not_apply() -> None:
    assert problems(call_of("lstm"))[1] == {
        "time_loop": "a dense state needs all of itself at every step; see one_block and persistent",
        "scan": "state 'h' is dense, R mixes h along D, 4 products, 1 deep",
        **{n: "h, c is dense, R mixes h along D, 4 products, 1 deep" for n in SCHEDULES if n.startswith("chunk")},
    }
    assert problems(call_of("selective_scan"))[1]["chunkwise"] == "every number of h has a decay of its own"
    assert problems(call_of("hgrn"))[1]["persistent"] == "no state is multiplied by a matrix"
    for name, schedule in (("gla", "chunkwise"), ("lstm", "one_block"), ("lstm", "persistent")):
        turing = problems(call_of(name, load("t4")))[1]
        assert turing[schedule] == "sm_75 has no matrix products of bfloat16"
    assert "NVIDIA only" in problems(call_of("lstm", load("mi300x")))[1]["persistent"]


def test_wrong_calls_say_what_was_expected() -> None:
    cpu = load("x86_avx512")
    with pytest.raises(PlanError, match="x86_avx512 is a cpu, expected a GPU"):
        call_of("gla", cpu)
    with pytest.raises(PlanError, match="gla: axis V has no length; give one: V=64"):
        Call.of(zoo.gla, {"K": 64}, H100, batch=1, heads=1, time=1, dtype="bfloat16")
    with pytest.raises(PlanError, match="gla has no axis 'D'; it has K, V"):
        Call.of(zoo.gla, {"K": 64, "V": 64, "D": 1}, H100, batch=1, heads=1, time=1, dtype="bfloat16")
    with pytest.raises(PlanError, match="gla: time is 0, expected at least 1"):
        call_of("gla", time=0)
    with pytest.raises(PlanError, match="there is no dtype 'int8'; expected one of bfloat16, float16, float32"):
        call_of("gla", dtype="int8")
    with pytest.raises(PlanError, match="sm_75 has no matrix products of bfloat16; use float16 or float32"):
        rates.matrix_flops_per_s(gpu_of(load("t4")), "bfloat16", 64)


# -- laws ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gla", "lstm", "hgrn", "kda"])
def test_a_better_machine_is_never_slower(name: str) -> None:
    gpu = gpu_of(H100)
    better = {
        "dram": replace(gpu, dram_bytes_per_s=1.5 * gpu.dram_bytes_per_s),
        "shared": replace(gpu, shared_bytes_per_block=2 * gpu.shared_bytes_per_block,
                          shared_bytes_per_sm=2 * gpu.shared_bytes_per_sm),
        "latency": replace(gpu, dram_latency_seconds=gpu.dram_latency_seconds / 2),
    }  # fmt: skip
    base = rank(call_of(name)).best.seconds
    for what, faster in better.items():
        assert rank(call_of(name, replace(H100, gpu=faster))).best.seconds <= base, what


def test_every_launch_takes_at_least_as_long_as_each_of_its_terms() -> None:
    for name in ("simple_gla", "slstm", "rwkv4"):
        for problem in problems(call_of(name))[0].values():
            try:
                solution = solve(problem)
            except Infeasible:
                continue
            for launch, seconds in solution.terms.items():
                for figure, value in solution.figures.items():
                    if figure.startswith(f"{launch}: ") and figure.split(": ")[1] in ("memory", "L2", "matrix"):
                        assert seconds >= value, figure


@pytest.mark.parametrize("name", zoo.names())
def test_nothing_is_predicted_to_be_faster_than_memory(name: str) -> None:
    call = usual_calls(bound(name), H100, "bfloat16")[0]
    gpu = call.gpu
    rate = gpu.dram_bytes_per_s * gpu.dram_share
    tokens = call.rows * call.time * call.element_bytes
    for choice in rank(call).choices:
        for direction, todo in (("forward", work.forward(call)), ("backward", work.backward(call))):
            spent = sum(s for launch, s in choice.solution.terms.items() if launch.startswith(direction))
            assert spent > tokens * todo.elements / rate, (choice.schedule, direction)


@pytest.mark.parametrize("machine", [n for n in names() if load(n).kind == "gpu"])
def test_something_fits_for_every_spec(machine: str) -> None:
    """The first usual call of every spec; the benchmark of the solver has all of them, in all dtypes."""
    where = load(machine)
    dtype: Dtype = "bfloat16" if rates.has_matrix(gpu_of(where), "bfloat16") else "float16"
    for name in zoo.names()[::3]:
        best = rank(usual_calls(bound(name), where, dtype)[0]).best
        assert best.solution.proven_optimal
        assert 0 < best.seconds < 1


# -- orders that others have measured ------------------------------------------------------------------------


def seconds_of(call: Call) -> dict[str, float]:
    return {c.schedule: c.seconds for c in reversed(rank(call).choices)}


def test_an_lstm_of_small_heads_needs_no_barrier_and_a_large_one_does() -> None:
    """FlashRNN's figure (arXiv:2412.07752): one block a head up to 64 units; fused before alternating at 768."""
    small = call_of("lstm", batch=16, heads=12, time=1024, D=64)
    found = seconds_of(small)
    assert max(found["one_block"], found["persistent"]) < found["alternating"] / 3
    best = next(c for c in rank(small).choices if c.schedule == "persistent").solution
    assert best.values["forward units"] == 64     # a group of one block
    large = rank(call_of("lstm", batch=16, heads=1, time=1024, D=768))
    assert [c.schedule for c in large.choices] == ["persistent", "alternating"]
    assert "one_block" in large.unfit
    assert large.unfit["one_block"].conflicts


def test_chunks_beat_a_time_loop_on_long_sequences_and_lose_on_one_step() -> None:
    long, short = seconds_of(call_of("gla")), seconds_of(call_of("gla", time=1, gradient=False))
    assert min(v for n, v in long.items() if n.startswith("chunk")) < long["time_loop"] / 4
    assert short["time_loop"] < min(v for n, v in short.items() if n.startswith("chunk"))


def test_one_pass_wants_enough_heads_and_segments_do_not() -> None:
    """TFLA and FLA cut long single sequences: a pass over all of it would leave most SMs idle."""
    few = seconds_of(call_of("simple_gla", batch=1, heads=1, time=65536, gradient=False))
    many = seconds_of(call_of("simple_gla", batch=16, heads=32, time=2048, gradient=False))
    assert min(few, key=few.__getitem__) != "chunkwise_one_pass"
    assert min(many, key=many.__getitem__) == "chunkwise_one_pass"


def test_time_is_cut_where_channels_do_not_fill_the_chip() -> None:
    lone = seconds_of(call_of("hgrn", batch=1, heads=1, time=65536, D=256))
    wide = seconds_of(call_of("hgrn", batch=64, heads=1, time=1024, D=4096))
    assert lone["scan"] < lone["time_loop"]
    assert wide["time_loop"] < wide["scan"]
