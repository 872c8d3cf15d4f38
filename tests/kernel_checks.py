"""Kernels held to the float64 reference: operands that keep a recurrence tame, and one comparison of everything.

In: a spec, lengths, and how it is called. Out: errors of outputs, final states and gradients, each relative to the
root mean square of its tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rekern import zoo
from rekern.api import compile
from rekern.reference import reference
from rekern.runtime.kernel import Kernel
from rekern.spec import Operand, Recurrence

SPECS = [s.bind(n=2) if "n" in s.axes else s for s in map(zoo.load, zoo.names())]
SIZES = {"D": 60, "K": 12, "V": 60, "N": 5}  # one column tile of 64 wherever there are two sequences and heads
FORWARD = {torch.float32: 1e-5, torch.float64: 1e-12}
GRADIENT = {torch.float32: 5e-5, torch.float64: 1e-12}
NORMALISERS = frozenset({"n", "b", "z0"})  # states that outputs are divided by

Values = dict[str, Tensor]


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


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    """Operands and first states with which errors stay small and nothing fades: keys of norm 1, rates in (0, 1),
    decays of a few e-folds over all of time, weights that do not stretch, erases that do not overshoot.

    one_head: operands that have one head, which all heads share.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(lead: tuple[int, ...], dims: Iterable[int | str]) -> Tensor:
        shape = (*lead, *(d if isinstance(d, int) else sizes[d] for d in dims))
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def tame(o: Operand) -> Tensor:
        own = 1 if o.name in one_head else heads
        value = random((own,) if o.kind == "param" else (batch, time, own), o.dims)
        match spec.name, o.name:
            case "gdn2", "b":
                return torch.sigmoid(value)
            case "oja", "v":
                return normalize(value, dim=-1)
            case "mlstm" | "mlstm_sigmoid", "f":
                return value + 3
            case _, "beta" | "u":
                return torch.sigmoid(value)
        if o.at_most is not None:
            return o.at_most - min(0.3, 8 / max(1, time)) * value.abs()
        if o.at_least is not None:
            return o.at_least + 0.5 * value.abs()
        if o.kind == "param" and len(o.axes) == 2:
            return 0.7 * value / sizes[o.axes[-1]] ** 0.5
        return normalize(value, dim=-1) if o.axes == ("K",) else 0.7 * value

    operands = {o.name: tame(o) for o in spec.of_kind("input", "param")}
    if {"a", "b"} <= operands.keys() and spec.operand("a").axes == ("K",):
        operands["b"] = -torch.sigmoid(random((batch, time, heads), (1,))) * operands["a"]
    count = batch if sequences is None else sequences
    state = {o.name: 0.5 * random((count, heads), o.dims) for o in spec.states}
    state = {n: 1 + t.abs() if n in NORMALISERS else t for n, t in state.items()}
    return {n: t.to(dtype) for n, t in operands.items()}, {n: t.to(dtype) for n, t in state.items()}


def cotangents(results: Iterable[Tensor], seed: int = 1) -> list[Tensor]:
    """Random ones, in eighths: the same numbers in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(t.shape, generator=generator) * 8).round().div(8).to(t.device, t.dtype) for t in results]


def run(
    kernel: Kernel | None,
    spec: Recurrence,
    operands: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    gradients: bool = True,
    **options: object,
) -> Run:
    """Call a kernel (None: the reference) and pull random cotangents of all outputs and final states back."""
    leaves = {n: t.detach().requires_grad_(gradients) for n, t in {**operands, **state}.items()}
    given = {n: leaves[n] for n in operands}
    first = {n: leaves[n] for n in state}
    if kernel is None:
        out, final = reference(spec, given, first, **options)
    else:
        out, final = kernel(state=first, **given, **options)
    outputs = {"out": out} if isinstance(out, Tensor) else out
    found: Values = {}
    if gradients:
        results = [*outputs.values(), *final.values()]
        pairs = [(r, c) for r, c in zip(results, cotangents(results), strict=True) if r.requires_grad]
        grads = torch.autograd.grad(
            [r for r, _ in pairs], list(leaves.values()), [c for _, c in pairs], allow_unused=True
        )
        found = {
            n: torch.zeros_like(t) if g is None else g
            for (n, t), g in zip(leaves.items(), grads, strict=True)
        }
    return Run({n: t.detach() for n, t in outputs.items()}, {n: t.detach() for n, t in final.items()}, found)


def error(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of `expected`; infinities must be at the same places."""
    a, b = actual.detach().double(), expected.detach().double()
    assert a.shape == b.shape, f"shape {list(a.shape)}, expected {list(b.shape)}"
    infinite = b.isinf()
    if not torch.equal(a[infinite], b[infinite]):
        return float("inf")
    difference = float((a - b)[~infinite].norm())
    size = float(b[~infinite].norm())
    return difference / size if size > 0 else difference


def errors(actual: Run, expected: Run) -> dict[str, float]:
    found = dict(actual.items())
    return {name: error(found[name], tensor) for name, tensor in expected.items()}


def close(actual: Run, expected: Run, forward: float = 1e-5, backward: float = 5e-5) -> None:
    found = errors(actual, expected)
    limits = {n: backward if n.startswith("gradient") else forward for n in found}
    assert {n: e for n, e in found.items() if not e <= limits[n]} == {}


def exact(values: Mapping[str, Tensor]) -> Values:
    return {n: t.double() for n, t in values.items()}


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

    The message of a failure tells what float32 loses in a loop in torch.
    """
    actual = run(compile(spec), spec, operands, state, gradients=gradients, **options)
    expected = run(None, spec, exact(operands), exact(state), gradients=gradients, **options)
    found = errors(actual, expected)
    wrong = {n: e for n, e in found.items() if not e <= (backward if n.startswith("gradient") else forward)}
    if wrong:
        single = ({n: t.float() for n, t in given.items()} for given in (operands, state))
        plain = run(None, spec, *single, gradients=gradients, dtype=torch.float32, **options)
        loses = errors(plain, expected)
        raise AssertionError(
            f"{spec.name} differs from its equations: "
            + ", ".join(f"{n} by {e:.1e} (float32 in torch: {loses[n]:.1e})" for n, e in wrong.items())
        )
    return actual


def only(out: Tensor | Values) -> Tensor:
    assert isinstance(out, Tensor)
    return out
