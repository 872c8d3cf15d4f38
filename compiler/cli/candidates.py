"""The ways to compute a recurrence that are compared: the kernel, the Python loops, other forms in torch, torch.nn.

In: `Data`. Out: `Candidate`s; each computes the same outputs, and the gradients of the same operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from rekern import zoo
from rekern.api import compile
from rekern.cli import loops_cells, loops_matrix, parallel
from rekern.cli.loops_generated import loop
from rekern.cli.workload import Data
from rekern.reference import reference
from rekern.spec import Recurrence

Role = Literal["rekern", "loop", "torch", "nn"]
ROLES: tuple[Role, ...] = ("rekern", "loop", "torch", "nn")
Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Candidate:
    """`forward` gives the outputs in order; `leaves` are the tensors that get gradients, by the operand's name.

    A leaf that is not an operand has a name that starts with an underscore. A leaf may have another shape than the
    operand, with its numbers in the same order.
    """

    role: Role
    name: str
    forward: Callable[[], Outputs]
    leaves: Mapping[str, Tensor]
    cotangents: Outputs

    def run(self) -> Outputs:
        """Forward, without a gradient."""
        with torch.no_grad():
            return self.forward()

    def run_both(self) -> dict[str, Tensor]:
        """Forward and backward: the gradients of the leaves."""
        outputs = self.forward()
        shaped = [c.reshape(o.shape) for o, c in zip(outputs, self.cotangents, strict=True)]
        grads = torch.autograd.grad(outputs, list(self.leaves.values()), shaped, materialize_grads=True)
        return dict(zip(self.leaves, grads, strict=True))


def candidates(data: Data, roles: tuple[Role, ...] = ROLES) -> list[Candidate]:
    """All that there are for the spec of `data`, the kernel first; each with leaves of its own."""
    spec = data.workload.spec
    found = [_of(data, "rekern", "rekern", _kernel(spec))]
    if "loop" in roles:
        found.append(_of(data, "loop", "reference loop", _reference(spec)))
        found.append(_of(data, "loop", "generated loop", lambda operands: loop(spec)(**operands)))
        found += [_of(data, "loop", "hand-written loop", f) for f in _by_hand(spec, loops_cells, loops_matrix)]
    if "torch" in roles:
        found += [_of(data, "torch", "chunks or blocks", f) for f in _by_hand(spec, parallel)]
        if _in_zoo(spec) and spec.name in parallel.AFFINE:
            found.append(_of(data, "torch", "blocked scan", _scan(spec, parallel.scan)))
            if find_spec("torch._higher_order_ops.associative_scan") is not None:
                found.append(_of(data, "torch", "associative_scan", _scan(spec, parallel.associative)))
    if "nn" in roles and data.source is not None and _in_zoo(spec) and spec.name in MODULES:
        found.append(_module(data, *data.source))
    return found


def _of(data: Data, role: Role, name: str, function: Callable[[dict[str, Tensor]], Outputs]) -> Candidate:
    leaves = {n: t.detach().clone().requires_grad_() for n, t in data.operands.items()}
    return Candidate(role, name, lambda: function(leaves), leaves, data.cotangents)


def _in_zoo(spec: Recurrence) -> bool:
    return spec.name in zoo.names() and zoo.load(spec.name).function is spec.function


def _kernel(spec: Recurrence) -> Callable[[dict[str, Tensor]], Outputs]:
    kernel: Callable[..., tuple[Tensor | dict[str, Tensor], object]] = compile(spec)
    return lambda operands: _in_order(kernel(**operands)[0])


def _reference(spec: Recurrence) -> Callable[[dict[str, Tensor]], Outputs]:
    return lambda operands: _in_order(reference(spec, operands, dtype=None)[0])


def _by_hand(spec: Recurrence, *modules: ModuleType) -> list[Callable[[dict[str, Tensor]], Outputs]]:
    """The functions of the name of a recurrence of the zoo."""
    functions = [getattr(m, spec.name) for m in modules if _in_zoo(spec) and hasattr(m, spec.name)]

    def of(function: Callable[..., Tensor]) -> Callable[[dict[str, Tensor]], Outputs]:
        return lambda operands: (function(**operands),)

    return [of(f) for f in functions]


def _scan(
    spec: Recurrence, function: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[dict[str, Tensor]], Outputs]:
    form = parallel.AFFINE[spec.name]
    return lambda operands: (function(*form(**operands)),)


def _in_order(outputs: Tensor | dict[str, Tensor]) -> Outputs:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs.values())


# -- torch.nn ------------------------------------------------------------------------------------------------

MODULES: Mapping[str, Callable[[int], torch.nn.RNNBase]] = {
    "elman": lambda dim: torch.nn.RNN(1, dim, batch_first=True),
    "gru": lambda dim: torch.nn.GRU(1, dim, batch_first=True),
    "lstm": lambda dim: torch.nn.LSTM(1, dim, batch_first=True),
}


def _module(data: Data, line: Tensor, weight: Tensor) -> Candidate:
    """The module with one number a step as its input, so that its own input projection costs next to nothing."""
    spec, operands = data.workload.spec, data.operands
    dim = operands["R"].shape[-1]
    module = MODULES[spec.name](dim)
    given = {"weight_ih_l0": weight, "weight_hh_l0": operands["R"].reshape(-1, dim), "bias_ih_l0": operands["b"]}
    hidden = torch.zeros_like(operands["b"]).flatten()
    if "b_n" in operands:
        hidden[2 * dim :] = operands["b_n"].flatten()
    with torch.no_grad():
        for name, value in {**given, "bias_hh_l0": hidden}.items():
            parameter = module.get_parameter(name)
            parameter.copy_(value.reshape(parameter.shape))
    names = {"weight_hh_l0": "R", "bias_ih_l0": "b"}
    leaves = {names.get(n, f"_{n}"): p for n, p in module.named_parameters()}
    name = f"nn.{type(module).__name__}"
    return Candidate("nn", name, lambda: (module(line)[0],), leaves, data.cotangents)
