"""Calls of the schedule scan in Triton's interpreter, whatever the solver would choose.

In: a spec, steps of a segment, a call. Out: errors against the float64 reference. Runs in the process of `interpreter`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from kernel_checks import draw, errors, exact, run
from rekern.spec import Recurrence
from triton_interpreter import TILE, spec_of

LENGTHS = {"D": 20, "K": 3, "V": 20, "N": 3}


@contextmanager
def scanning(segment: int, backward_segment: int = 0, block: int = 2) -> Iterator[None]:
    """Every call is cut into segments of so many steps; columns are tiled."""
    from rekern.runtime.gpu import choose, kernel

    before, rendered = kernel.choose, choose.RENDERED

    def small(*arguments: Any) -> Any:
        choose.choose.cache_clear()
        choose.RENDERED = ("scan",)
        try:
            found = choose.choose(*arguments)
        finally:
            choose.RENDERED = rendered
            choose.choose.cache_clear()
        steps = {"forward": segment, "backward": backward_segment or segment}
        passes = {
            n: replace(getattr(found, n), columns=min(TILE, getattr(found, n).columns), block=block, segment=s)
            for n, s in steps.items()
        }
        return replace(found, **passes)

    kernel.choose = small  # type: ignore[assignment]
    try:
        yield
    finally:
        kernel.choose = before


def scan_of(spec: Recurrence) -> Any:
    """A kernel that no other test has."""
    from rekern.hwmodels import load
    from rekern.runtime.gpu.kernel import GpuKernel

    return GpuKernel(spec, load("h100_sxm"))


def scan_errors(
    name: str | Recurrence, segment: int, dtype: torch.dtype = torch.float32, backward_segment: int = 0,
    batch: int = 1, time: int = 7, heads: int = 2, sequences: int | None = None, lengths: dict[str, int] = LENGTHS,
    one_head: tuple[str, ...] = (), gradients: bool = True, change: Any = None, **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Errors of outputs, final states and gradients; `change` replaces operands before the call."""
    spec = spec_of(name) if isinstance(name, str) else name
    operands, state = draw(
        spec, batch=batch, time=time, heads=heads, sequences=sequences, sizes=lengths, one_head=one_head, dtype=dtype
    )
    operands |= change or {}
    state = {n: t.float() for n, t in state.items()}
    with scanning(segment, backward_segment):
        actual = run(scan_of(spec), spec, operands, state, gradients=gradients, **options)
    expected = run(None, spec, exact(operands), exact(state), gradients=gradients, **options)
    return errors(actual, expected)
