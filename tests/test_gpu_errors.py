"""What a call for a GPU says when it cannot run: an unknown GPU, operands elsewhere, no Triton, a failed launch."""

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import rekern as rk
from kernel_checks import draw
from rekern import Input, Param, State
from rekern.errors import ArgumentError, BuildError, LaunchError, PlanError
from rekern.hwmodels import MachineError, detect
from rekern.hwmodels.device import Device
from rekern.math import tanh
from rekern.runtime.gpu import kernel as gpu_kernel
from rekern.runtime.gpu import launches
from rekern.runtime.gpu.kernel import GpuKernel
from rekern.runtime.kernel import Kernel
from triton_interpreter import Call, interpreter

__all__ = ["interpreter"]
SLICE = Device("NVIDIA H100 MIG", "nvidia", "sm_90", 60, 40 << 30, shared_bytes_per_block=100_000)


@rk.recurrence
def leaky(h=State("D"), x=Input("D"), a=Param("D")):
    h = a * h + tanh(x)
    return h, h


@rk.recurrence
def precise(h=State("D", dtype="float64"), x=Input("D")):
    h = h + x
    return h, h


def h100() -> GpuKernel:
    from rekern.hwmodels import load

    return GpuKernel(leaky, load("h100_sxm"))


def drawn(**options: Any) -> dict[str, Tensor]:
    return draw(leaky, batch=2, time=3, heads=1, sizes={"D": 4}, **options)[0]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls with tensors on the CPU go as far as the launch."""
    monkeypatch.setattr(gpu_kernel, "interpreted", lambda: True)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Device]]:
    """The GPUs that a driver would report."""
    found: list[Device] = []
    monkeypatch.setattr(sys.modules["rekern.hwmodels.detect"], "read_devices", lambda: tuple(found))
    detect.cache_clear()
    yield found
    detect.cache_clear()


# -- machines


def test_a_gpu_without_a_file_is_told_of_once_and_its_own_limits_count(devices: list[Device]) -> None:
    devices.append(SLICE)
    with pytest.warns(UserWarning, match=r"no machine file is of NVIDIA H100 MIG \(sm_90, 60 SMs, 40 GiB\): h100"):
        kernel = Kernel(leaky, any_device=True).on_gpu
    gpu = kernel.machine.gpu
    assert gpu is not None
    assert (gpu.sms, gpu.dram_bytes, gpu.shared_bytes_per_block) == (60, 40 << 30, 100_000)
    assert "tl.load" in kernel.source
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Kernel(leaky, any_device=True).on_gpu.machine is kernel.machine


def test_an_architecture_without_a_file_is_refused_with_the_way_out(devices: list[Device]) -> None:
    devices.append(Device("NVIDIA V100", "nvidia", "sm_70", 80, 16 << 30))
    told = r"no machine file is of sm_70, which NVIDIA V100 has; known: .*\ncopy the nearest file"
    with pytest.raises(MachineError, match=told):
        _ = Kernel(leaky, any_device=True).on_gpu


def test_no_gpu_is_said(devices: list[Device]) -> None:
    with pytest.raises(MachineError, match="torch finds no GPU on this machine; name a machine file instead"):
        _ = Kernel(leaky, any_device=True).on_gpu


# -- operands


def test_tensors_on_the_cpu_are_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        h100()(**drawn())
    assert str(caught.value) == (
        "leaky: operand 'x' is on cpu, this kernel runs on a GPU; move it with .to(\"cuda\")"
    )


def test_a_step_has_no_time_axis() -> None:
    with pytest.raises(ArgumentError, match=r"operand 'x' of a step has shape \[2, 3, 1, 4\], expected \[B, H, D\]"):
        h100().step(**drawn())


def test_operands_of_one_call_are_on_one_gpu() -> None:
    with FakeTensorMode():
        x, a = torch.empty(2, 3, 1, 4, device="cuda:0"), torch.empty(1, 4, device="cuda:1")
        state = {"h": torch.empty(2, 1, 4, device="cuda:1")}
        with pytest.raises(ArgumentError) as caught:
            h100()(x=x, a=a)
        assert str(caught.value) == (
            "leaky: operand 'a' is on cuda:1, but operand 'x' is on cuda:0\nmove it with .to(\"cuda:0\")"
        )
        with pytest.raises(ArgumentError, match="state 'h' is on cuda:1, but operand 'x' is on cuda:0"):
            h100()(x=x, a=a.to("cuda:0"), state=state)
        with pytest.raises(ArgumentError, match="reset is on cuda:1, expected on cuda:0"):
            h100()(x=x, a=a.to("cuda:0"), reset=torch.empty(2, 3, dtype=torch.bool, device="cuda:1"))
        with pytest.raises(ArgumentError, match="reset is on cpu, this kernel runs on a GPU"):
            h100()(x=x, a=a.to("cuda:0"), reset=torch.empty(2, 3, dtype=torch.bool))


@pytest.mark.usefixtures("on_cpu")
def test_float64_is_for_the_cpu() -> None:
    operands = drawn()
    with pytest.raises(ArgumentError) as caught:
        h100()(**{**operands, "a": operands["a"].double()})
    assert str(caught.value) == (
        "leaky: operand 'a' is torch.float64; kernels for GPUs compute in float32, "
        'expected float32, bfloat16 or float16\ncast it, or compile with target="cpu"'
    )
    with pytest.raises(ArgumentError, match=r"state 'h' is torch\.float64"):
        h100()(**operands, state={"h": torch.zeros(2, 1, 4, dtype=torch.float64)})
    with pytest.raises(PlanError, match="precise: state 'h' is declared float64"):
        rk.compile(precise, "h100_sxm")


# -- Triton


def call_with(version: str | None) -> str:
    """What a call says where Triton is missing (None), or is of another version; run it in the interpreter."""
    import triton

    from rekern.api import compile

    kept, module = triton.__version__, sys.modules.pop("triton.runtime.interpreter")
    try:
        if version is None:
            sys.modules["triton.runtime.interpreter"] = None  # type: ignore[assignment]  # as if it were not installed
        else:
            sys.modules["triton.runtime.interpreter"] = module
            triton.__version__ = version
        compile(leaky, "h100_sxm")(**drawn())
    except BuildError as error:
        return str(error)
    finally:
        triton.__version__, sys.modules["triton.runtime.interpreter"] = kept, module
    return ""


def test_a_call_without_triton_says_what_to_install(interpreter: Call) -> None:
    first, second = interpreter(call_with, None).splitlines()
    assert first.startswith("triton cannot be imported: ")
    assert second == "install it: pip install triton (Linux only)"


def test_a_call_with_another_triton_says_which_are_known(interpreter: Call) -> None:
    assert interpreter(call_with, "3.5.1") == "triton 3.5.1 is installed; rekern knows 3.6 to 3.9"
    assert interpreter(call_with, "3.10.0") == "triton 3.10.0 is installed; rekern knows 3.6 to 3.9"


# -- launches


@pytest.mark.usefixtures("on_cpu")
def test_a_failed_launch_names_the_machine_the_plan_and_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Triton Error [CUDA]: invalid argument\nmore of it")

    monkeypatch.setattr(launches, "launcher", lambda *_: broken)
    with pytest.raises(LaunchError) as caught:
        h100()(**drawn())
    first, plan, rest = str(caught.value).splitlines()
    assert first == "leaky: the GPU does not take forward_leaky: Triton Error [CUDA]: invalid argument"
    assert plan.startswith("plan: time_loop for h100_sxm; columns ") and plan.endswith(" blocks")
    assert 'rekern.compile(spec, "auto")' in rest
    assert isinstance(caught.value, RuntimeError)
