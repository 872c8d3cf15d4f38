"""What is compared beside time: the error against float64, and the memory that a gradient keeps.

In: `Data` and `Candidate`s. Out: numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rekern.cli.candidates import Candidate, Outputs
from rekern.cli.workload import Data, Workload
from rekern.errors import RekernError
from rekern.reference import reference
from rekern.spec import Recurrence

SEGMENT = 16  # steps
MOST_RECORD_BYTES = 3_000_000_000  # that autograd may keep for the float64 gradient


@dataclass(frozen=True)
class Truth:
    """The results of the float64 reference on `data`."""

    data: Data
    outputs: Outputs
    gradients: Mapping[str, Tensor]

    def output_error(self, candidate: Candidate) -> float:
        """Of a candidate on the same data: the largest difference, relative to the largest number."""
        return max(map(_error, candidate.run(), self.outputs))

    def gradient_error(self, candidate: Candidate) -> float:
        """The same of the gradient of the worst operand."""
        mine = candidate.run_both()
        return max(_error(mine[name], self.gradients[name]) for name in mine if name in self.gradients)


def truth(data: Data, gradients: bool) -> Truth:
    """Run the reference, on as many steps as its gradient has memory for.

    Raises:
        RekernError: the numbers of the spec overflow on this data, so nothing can be compared.
    """
    data = data.first(min(data.workload.time, _steps_in_memory(data.workload)) if gradients else data.workload.time)
    spec = data.workload.spec
    leaves = {n: t.double().requires_grad_() for n, t in data.operands.items()}

    cotangents = tuple(c.double() for c in data.cotangents)
    true = Candidate("loop", "float64", lambda: _in_segments(spec, leaves), leaves, cotangents)
    outputs = true.run()
    if not all(bool(o.isfinite().all()) for o in outputs):
        raise RekernError(
            f"{spec.name} overflows on random data, even in float64, so there is nothing to compare\n"
            "declare what holds for its inputs (at_most, at_least, unit_norm), or take fewer steps (--time)"
        )
    return Truth(data, outputs, true.run_both() if gradients else {})


def _in_segments(spec: Recurrence, operands: Mapping[str, Tensor]) -> Outputs:
    """The reference, a few steps at a time: autograd's memory traffic grows with the square of the steps of a call."""
    inputs = {o.name: operands[o.name].split(SEGMENT, 1) for o in spec.of_kind("input")}
    params = {o.name: operands[o.name] for o in spec.of_kind("param")}
    state: dict[str, Tensor] | None = None
    pieces: list[Outputs] = []
    for n in range(len(next(iter(inputs.values())))):
        out, state = reference(spec, {**params, **{name: parts[n] for name, parts in inputs.items()}}, state)
        pieces.append((out,) if isinstance(out, Tensor) else tuple(out.values()))
    return tuple(torch.cat(parts, 1) for parts in zip(*pieces, strict=True))


def _steps_in_memory(work: Workload) -> int:
    """Steps of which autograd can keep everything in float64."""
    state = sum(math.prod(work.shape(o)) for o in work.spec.states)
    inputs = sum(math.prod(work.shape(o)) for o in work.spec.of_kind("input")) // work.time
    return max(1, MOST_RECORD_BYTES // (8 * (5 * state + 3 * inputs)))


def _error(found: Tensor, true: Tensor) -> float:
    if not true.numel():
        return 0.0
    difference = (found.detach().double().reshape(true.shape) - true).abs()
    scale = max(float(true.abs().max()), 1e-300)
    return float(difference.max()) / scale if bool(difference.isfinite().all()) else math.inf


def kept_bytes(candidate: Candidate) -> int:
    """Memory that is held between forward and backward, beside the operands themselves."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = candidate.forward()
    for leaf in candidate.leaves.values():
        kept.pop(leaf.untyped_storage().data_ptr(), None)
    del outputs
    return sum(kept.values())
