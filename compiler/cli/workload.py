"""Sizes and data for a recurrence on which a comparison makes sense.

In: a `Recurrence`. Out: `Workload`s (lengths of all axes), and `Data` of such lengths: numbers of a realistic size,
decays that are decays, unit keys where a delta rule needs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rekern.analysis.facts import facts
from rekern.analysis.kinds import Dense
from rekern.spec import Operand, Recurrence

DENSE = {"D": 128}
ELEMENTWISE = {"D": 512}
MATRIX = {"K": 64, "V": 64, "D": 512, "N": 16}
UNIT = {"k", "p", "a", "kappa"}  # vectors that a transition is made of: the state grows without bound otherwise
GATES = {"beta", "b", "w"}  # inputs in (0, 1) where the spec does not say otherwise
LOW_RANK = ("iplr", "dplr", "rwkv7")  # b is a multiple of -a: what is mixed shrinks


@dataclass(frozen=True)
class Workload:
    """A spec and the lengths of everything that it runs over."""

    spec: Recurrence
    batch: int
    time: int
    heads: int
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        sizes = "".join(f" {axis}{length}" for axis, length in self.sizes.items())
        return f"B{self.batch} T{self.time} H{self.heads}{sizes}"

    def shape(self, o: Operand) -> list[int]:
        """Of an operand of the caller."""
        lead = {"input": [self.batch, self.time, self.heads], "param": [self.heads], "scalar": []}
        dims = (d if isinstance(d, int) else self.sizes[d] for d in o.dims)
        return [*lead.get(o.kind, [self.batch, self.heads]), *dims]


def family(spec: Recurrence) -> str:
    """Which of the three sets of lengths makes sense: "dense", "matrix" or "elementwise".

    >>> from rekern.zoo import load
    >>> family(load("gru")), family(load("gla")), family(load("hgrn"))
    ('dense', 'matrix', 'elementwise')
    """
    if any(isinstance(s.kind, Dense) for s in facts(spec).stages):
        return "dense"
    return "matrix" if any(len(o.axes) > 1 for o in spec.states) else "elementwise"


def workloads(spec: Recurrence) -> list[Workload]:
    """Sensible lengths, the usual ones first."""

    def lengths(usual: Mapping[str, int]) -> dict[str, int]:
        return {axis: usual.get(axis, 64) for axis in spec.axes}

    match family(spec):
        case "dense":
            first = Workload(spec, 16, 256, 1, lengths(DENSE))
            return [first, replace(first, heads=4, sizes=lengths({"D": 64}))]
        case "elementwise":
            return [Workload(spec, 8, 1024, 1, lengths(ELEMENTWISE))]
        case _:
            if "K" not in spec.axes:
                return [Workload(spec, 2, 1024, 1, lengths(MATRIX))]
            if any(len(o.axes) > 2 for o in spec.states):
                return [Workload(spec, 1, 1024, 4, lengths({"K": 16, "V": 64}))]
            first = Workload(spec, 1, 1024, 4, lengths(MATRIX))
            return [first, replace(first, sizes=lengths({"K": 128, "V": 128}))]


def chosen(
    spec: Recurrence,
    sizes: Mapping[str, int],
    batch: int | None = None,
    time: int | None = None,
    heads: int | None = None,
) -> Workload:
    """The usual lengths of `spec`, but for those that are given."""
    usual = workloads(spec)[0]
    return Workload(
        spec,
        usual.batch if batch is None else batch,
        usual.time if time is None else time,
        usual.heads if heads is None else heads,
        {**usual.sizes, **sizes},
    )


@dataclass(frozen=True)
class Data:
    """Operands of one call, float32. `source`: the numbers [B, T, 1] and weights of which an input `x` of a plain
    cell is the product, so that torch.nn, which multiplies by itself, can be given the same problem."""

    workload: Workload
    operands: Mapping[str, Tensor]
    source: tuple[Tensor, Tensor] | None = None

    def first(self, steps: int) -> Data:
        """The first steps only."""
        inputs = {o.name for o in self.workload.spec.of_kind("input")}
        return Data(
            replace(self.workload, time=steps),
            {n: t[:, :steps] if n in inputs else t for n, t in self.operands.items()},
            None if self.source is None else (self.source[0][:, :steps], self.source[1]),
        )

    @cached_property
    def cotangents(self) -> tuple[Tensor, ...]:
        """Of all outputs, in order."""
        work = self.workload
        generator = torch.Generator().manual_seed(1)
        shapes = (
            [work.batch, work.time, work.heads, *(d if isinstance(d, int) else work.sizes[d] for d in dims)]
            for dims in work.spec.step.output_dims.values()
        )
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def draw(workload: Workload, seed: int = 0) -> Data:
    """Data for `workload`; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    spec = workload.spec
    kind = family(spec)
    operands = {
        o.name: _operand(o, workload.shape(o), kind, generator) for o in spec.of_kind("input", "param")
    }
    if spec.name in LOW_RANK and {"a", "b"} <= operands.keys():
        operands["b"] = -0.5 * operands["a"]
    if spec.name == "oja":
        operands["v"] = normalize(operands["v"], dim=-1)
    source = None
    if kind == "dense" and "x" in operands and workload.heads == 1:
        shape = operands["x"].shape
        line = torch.randn([workload.batch, workload.time, 1], generator=generator)
        weight = torch.randn([shape[3:].numel(), 1], generator=generator)
        source = line, weight
        operands["x"] = (line @ weight.T).reshape(shape)
    return Data(workload, operands, source)


def _operand(o: Operand, shape: list[int], kind: str, generator: torch.Generator) -> Tensor:
    matrix = kind == "matrix"
    value = torch.randn(shape, generator=generator)
    small = 0.1 if o.kind == "input" else 1.0
    if o.at_most is not None:
        return o.at_most - small * value.abs()
    if o.at_least is not None:
        return o.at_least + small * value.abs()
    if o.unit_norm or (matrix and o.kind == "input" and o.axes and o.name in UNIT):
        return normalize(value, dim=-1)
    if matrix and o.kind == "input" and o.name in GATES:
        return value.sigmoid()
    if o.kind == "param" and len(o.axes) > 1:
        return value / math.sqrt(shape[-1])
    if o.kind == "param" and kind == "dense":
        return 0.3 * value  # larger ones make cells with peepholes chaotic: every error grows with the steps
    return value.tanh() if o.kind == "param" and kind == "elementwise" else value
