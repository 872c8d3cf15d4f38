"""Kernels held to the float64 reference: operands that keep a recurrence tame, and one comparison of everything.

In: a spec, lengths, and how it is called. Out: an error of outputs, final states and gradients, relative to the
root mean square of each tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rekern import zoo
from rekern.api import compile
from rekern.reference import reference
from rekern.runtime.kernel import Kernel
from rekern.spec import Operand, Recurrence

SPECS = [s.bind(n=2) if "n" in s.axes else s for s in map(zoo.load, zoo.names())]
SIZES = {"D": 20, "K": 12, "V": 20, "N": 5}
FORWARD = {torch.float32: 1e-5, torch.float64: 1e-12}
GRADIENT = {torch.float32: 5e-5, torch.float64: 1e-12}
NORMALISERS = frozenset({"n", "b", "z0"})  # states that outputs are divided by
READS = frozenset({"a", "p"})  # what an erase reads the state with

Values = dict[str, Tensor]
Output = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """Everything that a call gives: outputs and final states by name, and gradients if they were asked for."""

    outputs: Values
    final: Values
    gradients: Values

    def items(self) -> Iterable[tuple[str, Tensor]]:
        yield from self.outputs.items()
        yield from ((f"final {n}", t) for n, t in self.final.items())
        yield from ((f"gradient of {n}", t) for n, t in self.gradients.items())


def draw(
    spec: Recurrence,
    *,
    batch: int = 2,
    time: int = 21,
    heads: int = 2,
    sequences: int | None = None,
    sizes: Mapping[str, int] = SIZES,
    seed: int = 0,
    one_head: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
) -> tuple[Values, Values]:
    """Operands and first states with which errors stay small: keys of norm about 1, rates in (0, 1), weights that
    do not stretch, erases that do not overshoot.

    one_head: operands that have one head, which all heads share.
    """
    generator = torch.Generator().manual_seed(seed)

    def shape(lead: tuple[int, ...], o: Operand) -> tuple[int, ...]:
        return (*lead, *(d if isinstance(d, int) else sizes[d] for d in o.dims))

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def lead(o: Operand) -> tuple[int, ...]:
        own = 1 if o.name in one_head else heads
        return (own,) if o.kind == "param" else (batch, time, own)

    operands = {
        o.name: _tame(spec, o, random(shape(lead(o), o)), sizes) for o in spec.of_kind("input", "param")
    }
    if {"a", "b"} <= operands.keys() and spec.operand("a").axes == ("K",):
        rate = torch.sigmoid(random((*operands["b"].shape[:3], 1)))
        operands["a"] = torch.nn.functional.normalize(operands["a"], dim=-1)
        operands["b"] = -rate * operands["a"].expand(*operands["b"].shape)
    count = batch if sequences is None else sequences
    state = {o.name: 0.5 * random(shape((count, heads), o)) for o in spec.states}
    state = {n: 1 + t.abs() if n in NORMALISERS else t for n, t in state.items()}
    return {n: t.to(dtype) for n, t in operands.items()}, {n: t.to(dtype) for n, t in state.items()}


def _tame(spec: Recurrence, o: Operand, value: Tensor, sizes: Mapping[str, int]) -> Tensor:
    if o.at_most == 0:
        return -0.3 * value.abs()
    if o.at_least == 0:
        return 0.5 * value.abs()
    if o.name in ("beta", "u") or (o.name, spec.name) == ("b", "gdn2"):
        return torch.sigmoid(value)
    if o.kind == "param" and len(o.axes) == 2:
        return 0.7 * value / sizes[o.axes[-1]] ** 0.5
    if o.axes == ("K",) or (o.name, spec.name) == ("v", "oja"):
        return torch.nn.functional.normalize(value, dim=-1)
    return 0.7 * value


def run(
    call: object,
    spec: Recurrence,
    operands: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    gradients: bool = True,
    seed: int = 1,
    **options: object,
) -> Run:
    """Call a kernel (or `reference`) and pull random cotangents of all outputs and final states back."""
    leaves = {
        n: t.detach().requires_grad_(gradients) for n, t in {**operands, **state}.items()
    }  # detached views keep their strides
    given = {n: leaves[n] for n in operands}
    first = {n: leaves[n] for n in state}
    if isinstance(call, Kernel):
        out, final = call(state=first, **given, **options)  # type: ignore[arg-type]
    else:
        out, final = reference(spec, given, first, **options)  # type: ignore[arg-type]
    outputs = {"out": out} if isinstance(out, Tensor) else out
    if not gradients:
        return Run(outputs, final, {})
    generator = torch.Generator().manual_seed(seed)
    results = [*outputs.values(), *final.values()]
    cotangents = [torch.randn(t.shape, generator=generator).to(t.dtype) for t in results]
    grads = torch.autograd.grad(results, list(leaves.values()), cotangents, allow_unused=True)
    return Run(
        {n: t.detach() for n, t in outputs.items()},
        {n: t.detach() for n, t in final.items()},
        {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(leaves.items(), grads, strict=True)},
    )


def error(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of `expected`; infinities must be at the same places."""
    a, b = actual.double(), expected.double()
    assert a.shape == b.shape, f"shape {list(a.shape)}, expected {list(b.shape)}"
    infinite = b.isinf()
    if not torch.equal(a[infinite], b[infinite]):
        return float("inf")
    difference = (a - b)[~infinite].norm().item()
    size = b[~infinite].norm().item()
    return difference / size if size > 0 else difference


def errors(actual: Run, expected: Run) -> dict[str, float]:
    found = dict(actual.items())
    return {name: error(found[name], tensor) for name, tensor in expected.items()}


def agree(
    spec: Recurrence,
    operands: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    gradients: bool = True,
    forward: float = FORWARD[torch.float32],
    backward: float = GRADIENT[torch.float32],
    **options: object,
) -> Run:
    """Hold a call of the kernel to the float64 reference on the same numbers; what the kernel gave.

    The message of a failure tells what a float32 run of the equations loses on these numbers.
    """
    actual = run(compile(spec), spec, operands, state, gradients=gradients, **options)
    exact = ({n: t.double() for n, t in given.items()} for given in (operands, state))
    expected = run(reference, spec, *exact, gradients=gradients, **options)
    found = errors(actual, expected)
    wrong = {n: e for n, e in found.items() if not e <= (backward if n.startswith("gradient") else forward)}
    if wrong:
        plain = run(reference, spec, operands, state, gradients=gradients, dtype=None, **options)
        loses = errors(plain, expected)
        raise AssertionError(
            f"{spec.name} differs from its equations: "
            + ", ".join(f"{n} by {e:.1e} (float32 loop: {loses[n]:.1e})" for n, e in wrong.items())
        )
    return actual


def only(out: Output) -> Tensor:
    assert isinstance(out, Tensor)
    return out
