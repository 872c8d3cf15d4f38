"""The adapter to Triton: it compiles for every architecture of the design without a GPU, and says what is taken."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from gate_kernels import WRONG, product
from rekern.backends import triton as adapter
from rekern.backends.binaries import matrix_instructions_of_amdgcn, usage_of_amdgcn
from rekern.backends.compile import compile_source, toolchain_of
from rekern.backends.offline import TritonSource
from rekern.backends.triton import compile_triton, shared_bytes_of, target, toolchain
from rekern.errors import BuildError, PlanError
from source_tree import pyproject

INSTRUCTIONS = {
    "sm_80": "HMMA", "sm_86": "HMMA", "sm_89": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "sm_120": "HMMA",
    "gfx942": "MFMA", "gfx1100": "WMMA",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRITON_CACHE_DIR", "TRITON_HOME", "REKERN_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.mark.parametrize("architecture", INSTRUCTIONS)
def test_a_product_is_compiled_for_every_architecture(architecture: str) -> None:
    done = compile_source(product(64, 64, 32), architecture)
    found = done.resources
    assert [kind for kind, _ in found.matrix_instructions] == [INSTRUCTIONS[architecture]]
    assert 16 <= found.registers <= 255 and found.spill_bytes == found.stack_bytes == 0
    assert found.threads == 4 * target(architecture)[2]
    assert done.binary.startswith(b"\x7fELF") and "matmul" in done.assembly
    assert done.seconds > 0
    if architecture.startswith("sm_"):
        assert found.shared_bytes == shared_bytes_of(product(64, 64, 32), architecture)
    assert found.tensor_memory_columns == (64 if architecture == "sm_100" else 0)


def test_spills_are_read() -> None:
    found = compile_triton(product(64, 128, 16, stages=1, warps=1), "sm_80").resources
    assert found.spill_bytes > 0 and found.registers == 255


def test_disassembling_can_be_left_out() -> None:
    assert compile_triton(product(), "sm_80", disassemble=False).resources.matrix_instructions == ()


def test_the_toolchain_has_all_versions() -> None:
    assert re.fullmatch(r"triton \S+, ptxas release \d+\.\d+.*", toolchain("sm_90"))
    assert toolchain("sm_90") != toolchain("sm_100"), "another assembler"
    assert toolchain_of(product(), "gfx942") == f"triton {version('triton')}"


def test_the_installed_triton_is_one_that_the_project_declares() -> None:
    (declared,) = (d for d in pyproject()["project"]["dependencies"] if d.startswith("triton"))
    low, high = adapter.SUPPORTED
    assert declared == f"triton>={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}; platform_system == 'Linux'"


@pytest.mark.parametrize("ask", [compile_triton, shared_bytes_of])
def test_what_the_compiler_says_is_quoted(ask: Callable[[TritonSource, str], object]) -> None:
    with pytest.raises(BuildError) as caught:
        ask(WRONG.source, "sm_90")
    first, second = str(caught.value).splitlines()
    assert first == "Triton cannot compile matmul(BM=64, BN=32, BK=32), 4 warps, 2 stages"
    assert re.fullmatch(r"    at 1\d:\d+: .*has no attribute 'dott'.*", second)


def test_a_module_that_cannot_be_imported_is_named() -> None:
    broken = replace(product(), text="import no_such_module")
    with pytest.raises(BuildError, match=r"the module of matmul cannot be run\n    ModuleNotFoundError"):
        compile_triton(broken, "sm_90")


def test_arguments_that_do_not_fit_the_kernel_are_listed() -> None:
    source = replace(product(), arguments=(("a_ptr", "*bf16"),), aligned=())
    with pytest.raises(BuildError, match=r"matmul has the arguments \['a_ptr', .*but \['a_ptr', 'BM', 'BN', 'BK'\]"):
        compile_triton(source, "sm_90")


@pytest.mark.parametrize("name", ["sm90", "90", "h100_sxm", ""])
def test_an_architecture_has_the_name_of_the_machine_files(name: str) -> None:
    with pytest.raises(PlanError, match="expected a name like sm_90 or gfx942"):
        compile_triton(product(), name)


def test_shared_memory_ahead_is_for_nvidia() -> None:
    with pytest.raises(PlanError, match="for NVIDIA only, not for gfx942"):
        shared_bytes_of(product(), "gfx942")


def test_an_unknown_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    monkeypatch.setattr(triton, "__version__", "3.5.1")
    with pytest.raises(BuildError, match=r"triton 3.5.1 is installed; rekern knows 3.6 to 3.9"):
        compile_triton(product(), "sm_90")


def test_a_missing_triton_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BuildError, match=r"triton cannot be imported(.|\n)*pip install triton"):
        compile_triton(product(), "sm_90")


AMDGCN = """
    v_mfma_f32_32x32x8_bf16 a[0:15], v[0:1]
    v_mfma_f32_32x32x8_bf16 a[0:15], v[2:3]
    v_wmma_f32_16x16x16_f16 v[0:7]
amdhsa.kernels:
  - .args: []
    .vgpr_count:     212
    .vgpr_spill_count: 3
"""


def test_the_text_of_amdgcn_is_read() -> None:
    assert matrix_instructions_of_amdgcn(AMDGCN) == (("MFMA", 2), ("WMMA", 1))
    assert usage_of_amdgcn(AMDGCN) == {"vgpr_count": 212, "vgpr_spill_count": 3}


def test_the_last_line_of_an_error_without_text_is_its_type() -> None:
    assert adapter._first_line(KeyError()) == "KeyError"
    assert adapter._first_line(RuntimeError("Internal\nptxas error : no\nmore")) == "ptxas error : no"
    ptxas = "`ptxas` failed with error code 2\n`ptxas` stderr:\nptxas fatal   : Memory allocation failure"
    assert adapter._first_line(RuntimeError(ptxas)) == "ptxas fatal   : Memory allocation failure"
