"""Random operands that keep the facts of a spec, and axis lengths for tests: small, all different."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rekern.spec import Operand, Recurrence
from rekern.trace import Dim

SIZES = {"D": 5, "K": 4, "V": 3, "N": 2}
NORMALISERS = frozenset({"n", "b", "z0"})  # states that outputs are divided by: kept away from 0


def random_operands(
    spec: Recurrence,
    *,
    batch: int = 2,
    time: int = 6,
    heads: int = 2,
    seed: int = 0,
    sizes: Mapping[str, int] = SIZES,
    dtype: torch.dtype = torch.float64,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and params, and initial states (finite, not as declared); scalars keep their defaults."""
    generator = torch.Generator().manual_seed(seed)

    def draw(lead: tuple[int, ...], o: Operand) -> Tensor:
        return _draw(o, (*lead, *map(length, o.dims)), generator).to(dtype)

    def length(dim: Dim) -> int:
        return dim if isinstance(dim, int) else sizes[dim]

    operands = {o.name: draw((batch, time, heads), o) for o in spec.of_kind("input")}
    operands |= {o.name: draw((heads,), o) for o in spec.of_kind("param")}
    return operands, {o.name: draw((batch, heads), o) for o in spec.states}


def _draw(o: Operand, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    value = 0.7 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if o.at_most is not None:
        value = o.at_most - value.abs()
    if o.at_least is not None:
        value = o.at_least + value.abs()
    if o.kind == "state" and o.name in NORMALISERS:
        value = 1 + value.abs()
    return torch.nn.functional.normalize(value, dim=-1) if o.unit_norm else value
