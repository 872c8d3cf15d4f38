"""What decides the text of a call's kernels beside sizes, and what compilers are told of its addresses.

In: checked `Arguments` and the way of a call, or the lengths of a usual one. Out: a `Variant`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rekern.backends.triton_launch import interpreted
from rekern.hwmodels import Machine
from rekern.runtime.arguments import Arguments
from rekern.schedules.gpu.call import Dtype
from rekern.schedules.triton.passes import Variant
from rekern.spec import Recurrence
from rekern.trace import Dim

SPELLED = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}  # as Triton does
DTYPES: Mapping[torch.dtype, Dtype] = {
    torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16",
}  # fmt: skip
PLAIN = "ieee"  # products of float32 by multiply-adds, as Triton calls it
ALIGNED = 16


@dataclass(frozen=True)
class Way:
    """What of a call decides its kernels beside shapes and dtypes.

    one_step: Whether it is a step of its own, with the sizes of one.
    """

    record: bool = False
    reverse: bool = False
    reset: bool = False
    packed: bool = False
    one_step: bool = False


def variant_of(spec: Recurrence, arguments: Arguments, way: Way, machine: Machine) -> Variant:
    """What the kernels of a call are made for."""
    first = arguments.tensors[spec.of_kind("input")[0].name]
    dtypes = {n: SPELLED[t.dtype] for n, t in arguments.tensors.items()}
    dtypes |= dict.fromkeys(spec.step.output_dims, SPELLED[first.dtype])
    shared = frozenset(n for n, group in groups_of(spec, arguments).items() if group > 1)
    return Variant(
        _not_float32(dtypes), shared, way.reset, way.packed, way.reverse, precision_of(machine),
        aligned_operands(spec, arguments),
    )  # fmt: skip


def plain_variant(spec: Recurrence, lengths: Mapping[str, int], dtype: Dtype, machine: Machine) -> Variant:
    """The same of a usual call: all operands and outputs in one dtype, and dense."""
    spelled = next(SPELLED[d] for d, name in DTYPES.items() if name == dtype)
    names = [*(o.name for o in spec.of_kind("input", "param")), *spec.step.output_dims]
    aligned = usually_aligned(spec, lengths)
    return Variant(_not_float32(dict.fromkeys(names, spelled)), precision=precision_of(machine), aligned=aligned)


def _not_float32(dtypes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((n, d) for n, d in dtypes.items() if d != "fp32"))


def precision_of(machine: Machine) -> str:
    """How products of float32 are made: three of tf32 where there are such, which together lose next to nothing."""
    gpu = machine.gpu
    assert gpu is not None
    return "tf32x3" if gpu.vendor == "nvidia" and not interpreted() else PLAIN


def groups_of(spec: Recurrence, arguments: Arguments) -> dict[str, int]:
    """Heads that share one head of an operand, by its name."""
    operands = spec.of_kind("input", "param")
    heads = {o.name: arguments.tensors[o.name].shape[2 if o.kind == "input" else 0] for o in operands}
    return {n: arguments.heads // count for n, count in heads.items()}


# -- alignment


def dense_inside(tensor: Tensor, lead: int) -> bool:
    """Whether the axes from `lead` on lie as in a dense tensor."""
    expected = 1
    for length, stride in zip(reversed(tensor.shape[lead:]), reversed(tensor.stride()[lead:]), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


def lies_aligned(tensor: Tensor) -> bool:
    """Whether [B, T, H, ...] begins at a multiple of 16 bytes, and its rows at multiples of 16 numbers from there."""
    rows = all(stride % ALIGNED == 0 for stride in tensor.stride()[:3])
    return rows and dense_inside(tensor, 3) and tensor.data_ptr() % ALIGNED == 0


def aligned_copy(tensor: Tensor) -> Tensor:
    """The tensor dense and at an aligned address: itself, if it is."""
    dense = tensor.contiguous()
    return dense if dense.data_ptr() % ALIGNED == 0 else dense.clone()


def aligned_operands(spec: Recurrence, arguments: Arguments) -> frozenset[str]:
    """Operands and outputs of a call of which a compiler may know that they are aligned."""
    found = {o.name for o in spec.of_kind("input") if lies_aligned(arguments.tensors[o.name])}
    found |= {o.name for o in spec.of_kind("param") if arguments.tensors[o.name].data_ptr() % ALIGNED == 0}
    # A cotangent of an output that is not aligned is copied.
    return frozenset(found | whole_rows(spec.step.output_dims, arguments.sizes))


def usually_aligned(spec: Recurrence, lengths: Mapping[str, int]) -> frozenset[str]:
    """The same of operands that lie dense."""
    inputs = {o.name: o.dims for o in spec.of_kind("input")}
    params = {o.name for o in spec.of_kind("param")}
    return frozenset(params | whole_rows({**inputs, **spec.step.output_dims}, lengths))


def whole_rows(rows: Mapping[str, tuple[Dim, ...]], lengths: Mapping[str, int]) -> set[str]:
    """Arrays whose rows are multiples of 16 long."""
    counts = {n: math.prod(d if isinstance(d, int) else lengths[d] for d in dims) for n, dims in rows.items()}
    return {n for n, count in counts.items() if count % ALIGNED == 0}
