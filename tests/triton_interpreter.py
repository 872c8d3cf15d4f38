"""Kernels for GPUs in Triton's interpreter, in a process of its own: a process interprets kernels or compiles them.

In: a function of a module that imports no Triton, and its arguments. Out: what it returns there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import pytest
import torch

from kernel_checks import Run, draw, error, errors, exact, run
from rekern import zoo
from rekern.hwmodels import load
from rekern.spec import Recurrence

Call = Callable[..., Any]
LENGTHS = {"D": 20, "K": 5, "V": 20, "N": 3}
TILE, ROWS, BLOCK = 16, 16, 2  # two tiles of V, and blocks of time that do not divide it


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Call]:
    """Calls a function in a process whose kernels are interpreted."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_interpret) as pool:
        yield lambda function, *arguments, **options: pool.submit(function, *arguments, **options).result()


def spec_of(name: str) -> Recurrence:
    """A recurrence of the zoo, with literal axes bound; or of a module of tests, as `module:name`."""
    module, _, own = name.rpartition(":")
    if module:
        found: Recurrence = getattr(import_module(module), own)
        return found
    spec = zoo.load(name)
    return spec.bind(n=2) if "n" in spec.axes else spec


def small(chosen: Any, crowded: bool, *arguments: Any) -> Any:
    """The sizes that the solver chose, made small enough for several tiles and blocks of small calls.

    With `crowded` no loads are in flight, as where registers are short.
    """
    found = chosen(*arguments)[0]
    passes = {}
    for name in ("forward", "backward", "step"):
        sizes = getattr(found, name)
        passes[name] = replace(sizes, columns=min(sizes.columns, TILE), rows=min(sizes.rows, ROWS), block=BLOCK)
        if crowded:
            passes[name] = replace(passes[name], stages=1)
    return (replace(found, **passes),)


def kernel_of(
    spec: Recurrence, machine: str = "h100_sxm", among: tuple[str, ...] = (), crowded: bool = False
) -> Any:
    """The kernel of a spec, with small sizes; `among`: schedules of which one is chosen."""
    from rekern.api import compile
    from rekern.runtime.gpu import kernel

    if not hasattr(kernel, "chosen_by_solver"):
        kernel.chosen_by_solver = kernel.choose
    options = {"among": among} if among else {}
    kernel.choose = lambda *arguments: small(partial(kernel.chosen_by_solver, **options), crowded, *arguments)
    return kernel.GpuKernel(spec, load(machine)) if among or crowded else compile(spec, machine)


def errors_of(
    name: str | Recurrence, dtype: torch.dtype = torch.float32, seed: int = 0, one_head: tuple[str, ...] = (),
    batch: int = 1, time: int = 3, heads: int = 2, sequences: int | None = None, lengths: dict[str, int] = LENGTHS,
    gradients: bool = True, among: tuple[str, ...] = (), crowded: bool = False, **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Errors of outputs, final states and gradients against the float64 reference on the same numbers."""
    spec = spec_of(name) if isinstance(name, str) else name
    operands, state = draw(
        spec,
        batch=batch,
        time=time,
        heads=heads,
        sequences=sequences,
        sizes=lengths,
        seed=seed,
        one_head=one_head,
        dtype=dtype,
    )
    state = {n: t.float() for n, t in state.items()}
    actual = run(kernel_of(spec, among=among, crowded=crowded), spec, operands, state, gradients=gradients, **options)
    expected = run(None, spec, exact(operands), exact(state), gradients=gradients, **options)
    return errors(actual, expected)


def errors_with_default(name: str, dtype: torch.dtype) -> dict[str, float]:
    """The same of float32 operands where torch makes tensors of `dtype` unless it is told otherwise."""
    spec, before = spec_of(name), torch.get_default_dtype()
    operands, state = draw(spec, batch=2, time=3, heads=2, sizes=LENGTHS)
    state = {n: t.float() for n, t in state.items()}
    expected = run(None, spec, exact(operands), exact(state))
    kernel = kernel_of(spec)

    def call(**given: Any) -> Any:
        torch.set_default_dtype(dtype)
        try:
            return kernel(**given)
        finally:
            torch.set_default_dtype(before)

    return errors(run(call, spec, operands, state), expected)


def results_of(name: str, **options: Any) -> Run:
    """What a kernel gives for random operands."""
    spec = spec_of(name)
    operands, state = draw(spec, batch=2, time=5, heads=2, sizes=LENGTHS)
    return run(kernel_of(spec), spec, operands, state, **options)


def step_in_place(among: tuple[str, ...]) -> float:
    """The error of two steps of an LSTM whose states are updated where they lie."""
    spec = spec_of("lstm")
    operands, state = draw(spec, batch=3, time=2, heads=2, sizes=LENGTHS)
    kernel, own = kernel_of(spec, among=among), {n: t.clone() for n, t in state.items()}
    params = {o.name: operands[o.name] for o in spec.of_kind("param")}
    for t in range(2):
        kernel.step(state=own, in_place=True, x=operands["x"][:, t], **params)
    expected = run(None, spec, exact(operands), exact(state), gradients=False).final
    return max(error(own[n], expected[n]) for n in own)


class Replayer:
    """Captures launches as the function that makes them, with the tensors of the call that was captured."""

    captured = replayed = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def is_capturing(self) -> bool:
        return False

    def stream(self) -> int:
        return 0

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        Replayer.captured += 1

        def replay() -> None:
            Replayer.replayed += 1
            work()

        return replay


def errors_with_graphs(name: str, calls: int) -> tuple[dict[str, float], int, int]:
    """The largest errors of calls with other numbers in the same memory; graphs captured and replayed.

    Results lie in two sets of memory by turns, as torch may hand it out while the results of the last call live.
    """
    from rekern.runtime.gpu import alternating

    turn, count = 0, 0
    memory: dict[tuple[object, ...], torch.Tensor] = {}

    def new(shape: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        nonlocal count
        count += 1
        return memory.setdefault((turn, count, *shape), torch.full(tuple(shape), float("nan"), dtype=dtype))

    before = alternating.interpreted, alternating.CudaRecorder
    alternating.interpreted, alternating.CudaRecorder = (lambda: False), Replayer
    Replayer.captured = Replayer.replayed = 0
    try:
        spec = spec_of(name)
        kernel = kernel_of(spec, among=("alternating",))
        worst: dict[str, float] = {}
        given, first = draw(spec, batch=2, time=3, heads=2, sizes=LENGTHS)
        for seed in range(calls):
            turn, count = seed % 2, 0
            drawn = draw(spec, batch=2, time=3, heads=2, sizes=LENGTHS, seed=seed)
            for own, other in zip((given, first), drawn, strict=True):
                for n, t in other.items():
                    own[n].copy_(t)
            for loop in kernel._loops._values.values():
                loop.new = new
            actual = run(kernel, spec, given, first, gradients=False)
            found = errors(actual, run(None, spec, exact(given), exact(first), gradients=False))
            worst = {n: max(e, worst.get(n, 0.0)) for n, e in found.items()}
        return worst, Replayer.captured, Replayer.replayed
    finally:
        alternating.interpreted, alternating.CudaRecorder = before


def limited(found: dict[str, float], forward: float, backward: float) -> None:
    """No error is above its limit."""
    limits = {n: backward if n.startswith("gradient") else forward for n in found}
    assert {n: e for n, e in found.items() if not e <= limits[n]} == {}
