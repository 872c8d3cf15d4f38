"""GPUs: their files agree with each other and with what is known; wrong ones are refused with a reason."""

import dataclasses
from collections import defaultdict

import pytest

from rekern.hwmodels import Gpu, MachineError, load, names
from rekern.hwmodels.files import FOLDER
from rekern.hwmodels.parse import parse

H100 = (FOLDER / "h100_sxm.toml").read_text()
GPUS = tuple(name for name in names() if load(name).kind == "gpu")
EXPECTED = "a100_sxm_80gb a10g b200 h100_sxm h200_sxm l40s mi300x rtx3090 rtx4090 rtx5090 rx7900xtx t4"

# What the compute capability fixes, and the chip does not.
FIXED_BY_ARCHITECTURE = (
    "warp_threads", "threads_per_block", "threads_per_sm", "blocks_per_sm", "registers_per_sm",
    "registers_per_thread", "register_granule", "shared_bytes_per_sm", "shared_bytes_per_block",
    "shared_bytes_reserved", "shared_bytes_per_cycle", "float32_lanes", "special_per_cycle", "mma_m", "mma_n",
    "mma_k_bytes", "warpgroup_mma", "tensor_memory_columns", "cluster_blocks",
)  # fmt: skip


def gpu_of(name: str) -> Gpu:
    gpu = load(name).gpu
    assert gpu is not None
    return gpu


def message(text: str) -> str:
    with pytest.raises(MachineError) as caught:
        parse(text, "mine.toml")
    return str(caught.value).removeprefix("mine.toml: ")


def changed(old: str, new: str, text: str = H100) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


# ---------------------------------------------------------------- files


def test_every_gpu_of_the_acceptance_list_is_there() -> None:
    assert tuple(EXPECTED.split()) == GPUS


def test_chips_of_one_architecture_agree_in_what_it_fixes() -> None:
    chips: dict[str, list[str]] = defaultdict(list)
    for name in GPUS:
        chips[gpu_of(name).architecture].append(name)
    assert chips["sm_86"] == ["a10g", "rtx3090"] and chips["sm_89"] == ["l40s", "rtx4090"]
    assert chips["sm_90"] == ["h100_sxm", "h200_sxm"]
    for same in chips.values():
        for field in FIXED_BY_ARCHITECTURE:
            assert len({getattr(gpu_of(name), field) for name in same}) == 1, (same, field)


@pytest.mark.parametrize("name", GPUS)
def test_rates_make_sense_together(name: str) -> None:
    gpu = gpu_of(name)
    if gpu.float16_flops_per_s is not None:
        per_cycle = gpu.float16_flops_per_s / (2 * gpu.sms * gpu.clock_hz)     # multiply-adds of an SM
        assert 250 < per_cycle < 4800, "from 256 of an SM with halved sums to 4096 of Blackwell"
    if gpu.tfloat32_flops_per_s is not None and gpu.float16_flops_per_s is not None:
        assert gpu.tfloat32_flops_per_s * 2 == pytest.approx(gpu.float16_flops_per_s, rel=0.02)
    kept = gpu.registers_per_sm * 4 + gpu.shared_bytes_per_sm
    assert kept * gpu.sms > gpu.l2_bytes / 3, "on-chip memory of all SMs against L2: a slip of 1024 would show"
    assert gpu.shared_bytes_per_cycle * gpu.sms * gpu.clock_hz > gpu.l2_bytes_per_s


def test_known_results_of_an_h100_hold() -> None:
    gpu = gpu_of("h100_sxm")
    assert gpu.bfloat16_flops_per_s is not None
    assert 600e12 <= gpu.bfloat16_flops_per_s * gpu.mma_share <= 700e12
    assert 0.90 <= gpu.dram_share <= 0.93
    assert gpu.float32_flops_per_s == pytest.approx(59.3e12, rel=0.01)     # 66.9 at 1.98 GHz
    assert gpu.shared_bytes_per_block == 232_448


def test_a_t4_has_float16_products_only() -> None:
    gpu = gpu_of("t4")
    assert gpu.float16_flops_per_s and gpu.bfloat16_flops_per_s is None and gpu.tfloat32_flops_per_s is None
    vector = dict(load("t4").resource_vector())
    assert vector["gpu.sms"] == 40 and "gpu.bfloat16_flops_per_s" not in vector


def test_resource_vectors_of_different_chips_differ() -> None:
    assert len({load(name).resource_vector() for name in names()}) == len(names())


# ---------------------------------------------------------------- units, sources, laws


@pytest.mark.parametrize(
    "old, new, expected",
    [
        (
            "= 3.35e12",
            "= 3350",
            "[gpu] dram_bytes_per_s = 3350, expected 1e9 to 1e14 bytes per second; is it in GB/s?",
        ),
        (
            "= 3.35e12",
            "= 3.35",
            "[gpu] dram_bytes_per_s = 3.35, expected 1e9 to 1e14 bytes per second; is it in GB/s or TB/s?",
        ),
        ("= 1.755e9", "= 1755", "[gpu] clock_hz = 1755, expected 2e8 to 1e10 hertz; is it in MHz?"),
        ("= 0.92 ", "= 92 ", "[gpu] dram_share = 92, expected 0.01 to 1 of the peak; is it in percent?"),
        ("= 2.5e-6", "= 2.5", "[gpu] launch_seconds = 2.5, expected 1e-10 to 0.01 seconds; is it in us or ns?"),
        ("= 52_428_800", "= 50", "[gpu] l2_bytes = 50, expected 4096 to 1e10 bytes; is it in MiB or KiB?"),
        ("= 232_448", "= 227", "[gpu] shared_bytes_per_block = 227, expected 8192 to 4e6 bytes; is it in KiB?"),
        (
            "bfloat16_flops_per_s = 9.894e14",
            "bfloat16_flops_per_s = 989",
            "[gpu] bfloat16_flops_per_s = 989, expected 1e11 to 1e17 operations per second; is it in TFLOP/s?",
        ),
        ("= 132\n", "= 1e9\n", "[gpu] sms = 1000000000.0, expected a whole number"),
        ("dram_bytes_per_s ", "dram_gb_per_s ", "[gpu] has no key 'dram_gb_per_s'. Did you mean 'dram_bytes_per_s'?"),
        ("clock_hz ", "clock_mhz ", "[gpu] has no key 'clock_mhz'. Did you mean 'clock_hz'?"),
        ("\nsms ", "\nsm ", "[gpu] has no key 'sm'. Did you mean 'sms'?"),
        ('"sm_90"', '"gfx90"', "[gpu] architecture = 'gfx90', expected sm_... of nvidia"),
        (
            "= 233_472",
            "= 232_448",
            "[gpu] shared_bytes_per_block = 232,448 and 1,024 reserved are more than shared_bytes_per_sm = 232,448",
        ),
        (
            "threads_per_sm         = 2048",
            "threads_per_sm         = 512",
            "[gpu] threads_per_block = 1,024 is more than threads_per_sm = 512",
        ),
        (
            "threads_per_sm         = 2048",
            "threads_per_sm         = 2050",
            "[gpu] warp_threads = 32 does not divide threads_per_block = 1,024 and threads_per_sm = 2,050",
        ),
        (
            "registers_per_thread   = 255",
            "registers_per_thread   = 3000",
            "[gpu] a warp of 32 threads with registers_per_thread = 3000 needs more than registers_per_sm = 65,536",
        ),
        (
            "register_granule       = 256",
            "register_granule       = 240",
            "[gpu] register_granule = 240 does not divide registers_per_sm = 65,536",
        ),
        (
            "cluster_blocks ",
            "#cluster_blocks ",
            "[gpu] cluster_blocks and cluster_barrier_seconds belong together: give both, or none",
        ),
        (
            "\nfloat16_flops_per_s",
            "\n#",
            "[gpu] bfloat16_flops_per_s needs float16_flops_per_s beside it",
        ),
        (
            "warpgroup_mma = true",
            "warpgroup_mma = false\ntensor_memory_columns = 512",
            "[gpu] tensor_memory_columns needs warpgroup_mma = true",
        ),
        (
            "l2_latency_seconds      = 1.50e-7",
            "l2_latency_seconds      = 9e-7",
            "[gpu] expected shared_latency_seconds <= l2_latency_seconds <= dram_latency_seconds",
        ),
        (
            "graph_launch_seconds    = 1.0e-6",
            "graph_launch_seconds    = 4e-6",
            "[gpu] graph_launch_seconds = 4e-06 is more than launch_seconds = 2.5e-06",
        ),
        (
            "l2_bytes_per_s          = 4.86e12",
            "l2_bytes_per_s          = 2e12",
            "[gpu] l2_bytes_per_s = 2e+12 is less than what dram_bytes_per_s reaches",
        ),
        ("= 85_899_345_920", "= 800_000_000", ""),
        (
            "[gpu] ",
            "[cpu] ",
            "[cpu] has no key 'vendor'. Keys: isa, vector_bytes, vector_registers, fma_per_cycle, clock_hz, cores, "
            "line_bytes, l1_bytes, l2_bytes, l1_bytes_per_cycle, l2_bytes_per_cycle, dram_bytes_per_s, "
            "barrier_seconds, bf16_dot, l3_bytes_per_core, l3_bytes_per_s, dram_stream_bytes_per_s, fork_join_seconds.",
        ),
        ('kind = "gpu"', 'kind = "cpu"', "kind = 'cpu': a [cpu] table belongs to a cpu, and only to a cpu"),
    ],
)
def test_a_wrong_gpu_is_an_error_that_says_what_was_expected(old: str, new: str, expected: str) -> None:
    text = changed(old, new)
    if expected:
        assert message(text) == expected
    else:
        assert parse(text, "mine.toml")[0].gpu is not None


def test_l2_is_smaller_than_memory() -> None:
    small = changed("= 85_899_345_920", "= 800_000_000")
    assert message(changed("= 52_428_800", "= 900_000_000", small)) == (
        "[gpu] l2_bytes = 900,000,000 is not less than dram_bytes = 800,000,000"
    )


def test_a_number_without_a_source_is_an_error_that_names_its_line() -> None:
    bare = "\n".join(line.partition("#")[0].rstrip() for line in H100.splitlines())
    number = 1 + bare.splitlines().index('vendor                 = "nvidia"')
    assert message(bare) == (
        f"line {number}: 'vendor = \"nvidia\"' has no source: add a comment to the line or to its table"
    )
    with_table = bare.replace("[gpu]", "[gpu]   # data sheet")
    assert parse(with_table, "mine.toml")[0] == load("h100_sxm")
    lines = with_table.splitlines()
    at = lines.index("sms                  = 132")
    on_one = [*lines[:4], *(f"{line}   # why" if " = " in line else line for line in lines[4:])]
    on_one[on_one.index("[gpu]   # data sheet")] = "[gpu]"
    assert parse("\n".join(on_one), "mine.toml")[0] == load("h100_sxm")
    on_one[at] = lines[at]
    assert message("\n".join(on_one)) == (
        f"line {at + 1}: 'sms = 132' has no source: add a comment to the line or to its table"
    )
    on_one.insert(at, "# device query")
    assert parse("\n".join(on_one), "mine.toml")[0] == load("h100_sxm")


def test_a_comment_above_a_paragraph_ends_with_it() -> None:
    bare = "\n".join(line.partition("#")[0].rstrip() for line in H100.splitlines())
    text = bare.replace("[gpu]", "[gpu]\n# data sheet")
    first = next(line for line in bare[bare.index("\n\nsms") :].splitlines() if line)
    number = 1 + text.splitlines().index(first)
    assert message(text).startswith(f"line {number}: 'sms = 132' has no source")


def test_measured_numbers_have_a_table_of_their_own() -> None:
    moved = H100.replace("dram_share ", "#") + "\n[gpu.measured]  # rekern calibrate\ndram_share = 0.92\n"
    assert parse(moved, "mine.toml")[0] == load("h100_sxm")
    assert message(H100 + "\n[gpu.measured]  # rekern calibrate\ndram_share = 0.91\n") == (
        "'dram_share' is in [gpu] and again in [gpu.measured]"
    )


def test_a_gpu_is_a_value() -> None:
    gpu = gpu_of("a100_sxm_80gb")
    assert dataclasses.replace(gpu, sms=108) == gpu and hash(gpu) == hash(gpu_of("a100_sxm_80gb"))
    assert dataclasses.replace(gpu, sms=64) != gpu
