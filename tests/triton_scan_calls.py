"""Calls of the schedule scan in Triton's interpreter, whatever the solver would choose.

In: a spec, steps of a segment, a call. Out: errors against the float64 reference. Runs in the process of `interpreter`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from kernel_checks import draw, errors, exact, run
from rekern import Input, Param, State, recurrence
from rekern.math import exp, logaddexp, minimum, outer
from rekern.schedules.programs import Programs
from rekern.schedules.triton.passes import Sizes
from rekern.spec import Recurrence
from triton_interpreter import BLOCK, TILE, spec_of

inf = float("inf")


@recurrence
def delayed(h=State("D"), g=State("D"), x=Input("D"), a=Input("D")):
    """A state that takes the old value of another."""
    return (a * h + x, h), g


@recurrence
def cells(h=State(2, "D"), g=State(2, "D"), x=Input(2, "D"), a=Input("D")):
    """Cells of one state that count in all cells of the next."""
    return (a * h + x, 0.5 * g + h * h[1] * x[0]), g[0] * g[1]


@recurrence
def log_sum(m=State("D", init=-inf), s=State("D"), k=Input("D"), g=Input("D", at_most=0)):
    """A running sum of exponentials, and a state that it stabilises."""
    m_new = logaddexp(m + g, k)
    return (m_new, exp(m + g - m_new) * s + 0.1 * k), m_new + s


@recurrence
def least(m=State("D", init=inf), k=Input("D"), g=Input("D", at_most=0)):
    """A running minimum."""
    m = minimum(m + g, k)
    return m, m


@recurrence
def chained(h=State("K", "V"), g=State("K", "V"), k=Input("K"), v=Input("V"), f=Input("V")):
    """Matrix states, and a gradient that reads the states of every step."""
    g = 0.5 * g + h * f[None, :]
    h = exp(-f * f)[None, :] * h * 0.9 + outer(k, v)
    return (h, g), k @ (g * h)


@recurrence
def read_out(h=State("D"), x=Input("D"), a=Input("D"), C=Param("O", "D")):
    h = a * h + x
    return h, C @ h


@recurrence
def turned(s=State("K", "K"), z=State("K", "K"), x=Input("K")):
    return (0.5 * s + outer(x, x), 0.5 * z + s.T), z @ x


OWN = {s.name: s for s in (delayed, cells, log_sum, least, chained)}


@contextmanager
def scanning(segment: int, backward_segment: int = 0) -> Iterator[None]:
    """Every call is cut into segments of so many steps, and columns are tiled; the solver is not asked."""
    from rekern.runtime.gpu import kernel
    from rekern.runtime.gpu.choose import Chosen

    def chosen(_: object, own: Programs, lengths: tuple[tuple[str, int], ...], *shape: object) -> object:
        forward = Sizes(lengths, TILE if own.lane else 0, 0, 1, 1, BLOCK, segment)
        backward = replace(forward, segment=backward_segment or segment)
        choice = SimpleNamespace(schedule="scan")
        return (Chosen(None, own, choice, forward, backward, forward),)  # type: ignore[arg-type]  # there was no choice

    before, kernel.choose = kernel.choose, chosen  # type: ignore[assignment]  # undone below
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
    name: str, segment: int, dtype: torch.dtype = torch.float32, *, lengths: dict[str, int], backward_segment: int = 0,
    batch: int = 1, time: int = 7, heads: int = 2, sequences: int | None = None,
    one_head: tuple[str, ...] = (), gradients: bool = True, change: dict[str, torch.Tensor] | None = None,
    given: bool = True, **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Errors of outputs, final states and gradients.

    Args:
        change: Operands in the place of random ones.
        given: Whether first states are given; else they are as declared.
    """
    spec = OWN[name] if name in OWN else spec_of(name)
    operands, state = draw(
        spec, batch=batch, time=time, heads=heads, sequences=sequences, sizes=lengths, one_head=one_head, dtype=dtype
    )
    operands |= change or {}
    state = {n: t.float() for n, t in state.items()} if given else {}
    with scanning(segment, backward_segment):
        actual = run(scan_of(spec), spec, operands, state, gradients=gradients, **options)
    expected = run(None, spec, exact(operands), exact(state), gradients=gradients, **options)
    return errors(actual, expected)
