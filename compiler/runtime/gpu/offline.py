"""The kernels of a call without its tensors: for a machine that need not be there.

In: a `Call`. Out: a `TritonPass` by name of pass, with sizes that fit. Operands have one dtype and lie
dense, sequences neither restart nor are packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from rekern.runtime.gpu.base import usually_aligned
from rekern.runtime.gpu.choose import TIME_LOOPS, LaunchName, choose
from rekern.schedules.gpu.call import Call, Dtype
from rekern.schedules.programs import programs
from rekern.schedules.triton.backward import backward_pass
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.passes import Sizes, TritonPass, Variant
from rekern.spec import Recurrence

PASSES = ("forward", "recording", "backward", "step")
NAMES: Mapping[Dtype, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def kernel_of(call: Call, name: str) -> TritonPass:
    """The kernel of one pass of `PASSES`.

    Raises:
        PlanError: no sizes fit the machine.
        BuildError: Triton is missing, or the kernel does not compile.
    """
    all_of = programs(call.spec)
    chosen = choose(call.machine, all_of, call.lengths, call.batch, call.heads, call.time, call.dtype, TIME_LOOPS)
    precision = "tf32x3" if call.gpu.vendor == "nvidia" else "ieee"
    variant = plain_variant(call.spec, dict(call.lengths), call.dtype, precision)

    def forward(sizes: Sizes) -> TritonPass:
        return forward_pass(all_of, sizes, variant, name == "recording")

    def backward(sizes: Sizes) -> TritonPass:
        return backward_pass(all_of, replace(sizes, block=chosen.forward.block), variant)

    made: Mapping[str, tuple[LaunchName, Callable[[Sizes], TritonPass]]] = {
        "forward": ("forward", forward),
        "recording": ("forward", forward),
        "backward": ("backward", backward),
        "step": ("step", forward),
    }
    return chosen.kernel(*made[name])


def plain_variant(spec: Recurrence, lengths: Mapping[str, int], dtype: Dtype, precision: str) -> Variant:
    """All operands and outputs in one dtype, and dense."""
    names = [*(o.name for o in spec.of_kind("input", "param")), *spec.step.output_dims]
    dtypes = () if dtype == "float32" else tuple(sorted((n, NAMES[dtype]) for n in names))
    return Variant(dtypes, precision=precision, aligned=usually_aligned(spec, lengths))
