"""Checks of kernels that run on a GPU, and in Triton's interpreter on a CPU.

In: a kernel, a spec, operands on a device. Out: errors beside what is allowed, or a verdict. No test asserts a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kernel_checks import Run, Values, draw, error, exact, run
from rekern.spec import Recurrence

SINGLE = {"forward": 1e-5, "gradient": 5e-5}  # what float32 arithmetic may lose
# Roundings of a result to its dtype that an error may be worth. One is that of storing it; a dense cell also rounds
# what it multiplies with a weight of 16 bits, at every step, and so does the gradient of the weight.
ROUNDINGS = {torch.float32: 1.0, torch.float16: 8.0, torch.bfloat16: 8.0}


def to(values: Mapping[str, Tensor], device: str) -> Values:
    """The same values there."""
    return {n: t.to(device) for n, t in values.items()}


def data(
    spec: Recurrence, dtype: torch.dtype, lengths: Mapping[str, int], **options: Any
) -> tuple[Values, Values]:
    """Operands in `dtype` and first states in float32."""
    operands, state = draw(spec, sizes=lengths, dtype=dtype, **options)
    return operands, {n: t.float() for n, t in state.items()}


def excess(
    kernel: Any, spec: Recurrence, dtype: torch.dtype, lengths: Mapping[str, int], device: str,
    batch: int = 2, time: int = 5, heads: int = 2, options: Mapping[str, Any] | None = None, **drawn: Any,
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Outputs, final states and gradients whose error is larger than allowed: the error, and what is allowed.

    The truth is the float64 reference on the operands as they are in `dtype`.
    """
    operands, state = data(spec, dtype, lengths, batch=batch, time=time, heads=heads, **drawn)
    expected = run(None, spec, exact(operands), exact(state), **(options or {}))
    there = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in (options or {}).items()}
    actual = on_cpu(run(kernel, spec, to(operands, device), to(state, device), **there))
    found = dict(actual.items())
    wrong = {}
    for name, true in expected.items():
        single = SINGLE["gradient" if name.startswith("gradient") else "forward"]
        allowed = ROUNDINGS[dtype] * error(true.to(dtype), true) + single
        if not error(found[name], true) <= allowed:
            wrong[name] = (error(found[name], true), allowed)
    return wrong


def on_cpu(found: Run) -> Run:
    """The same results there."""
    return Run(*(to(values, "cpu") for values in (found.outputs, found.final, found.gradients)))


def bits(found: Run) -> dict[str, list[int]]:
    """Results as whole numbers, so that NaN equals itself and 0 is not -0."""
    kinds = {2: torch.int16, 4: torch.int32}
    return {n: t.detach().contiguous().view(kinds[t.element_size()]).flatten().tolist() for n, t in found.items()}


def unequal(
    kernel: Any, spec: Recurrence, dtype: torch.dtype, lengths: Mapping[str, int], device: str, **drawn: Any
) -> list[str]:
    """What two calls on the same operands do not give alike, bit for bit."""
    operands, state = (to(v, device) for v in data(spec, dtype, lengths, **drawn))
    first, second = (bits(run(kernel, spec, operands, state)) for _ in range(2))
    return [n for n in first if first[n] != second[n]]


def steps_differ(
    kernel: Any, spec: Recurrence, dtype: torch.dtype, lengths: Mapping[str, int], device: str, **drawn: Any
) -> dict[str, float]:
    """Distances of outputs and states of single steps in place from those of one call over all steps."""
    operands, state = (to(v, device) for v in data(spec, dtype, lengths, **drawn))
    inputs = [o.name for o in spec.of_kind("input")]
    with torch.no_grad():
        whole, last = kernel(state=state, **operands)
        own = {n: t.clone() for n, t in state.items()}
        parts = []
        for t in range(operands[inputs[0]].shape[1]):
            given = {n: v[:, t] if n in inputs else v for n, v in operands.items()}
            out, new = kernel.step(state=own, in_place=True, **given)
            assert all(new[n].data_ptr() == own[n].data_ptr() for n in own), "not in place"
            parts.append(named(out))
    joined = {n: torch.stack([p[n] for p in parts], 1) for n in parts[0]}
    found = {n: error(joined[n].cpu(), t.cpu()) for n, t in named(whole).items()}
    return found | {f"final {n}": error(own[n].cpu(), t.cpu()) for n, t in last.items()}


def named(out: Tensor | Values) -> Values:
    """Outputs by name."""
    return {"out": out} if isinstance(out, Tensor) else out


def spread(values: Tensor, stride: int, buffer: Tensor) -> Tensor:
    """`values` [1, T, 1, D] with steps `stride` numbers apart in `buffer`."""
    wide = buffer.as_strided(values.shape, (stride * values.shape[1], stride, values.shape[3], 1))
    return wide.copy_(values)


def far_apart(kernel: Any, values: Sequence[Tensor], names: Sequence[str], stride: int, buffer: Tensor) -> bool:
    """Whether steps that lie far apart give what dense ones give: the addresses go beyond what 32 bits hold."""
    dense = kernel(**dict(zip(names, values, strict=True)))[0]
    wide = spread(values[0], stride, buffer)
    return torch.equal(kernel(**dict(zip(names, [wide, *values[1:]], strict=True)))[0], dense)
