"""What is known of a machine: frozen tables, with the unit of every number in its key.

In: the tables of a file, checked by themselves. Out: a `Machine`, and the `Variant`s that differ from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rekern.hwmodels.checks import check
from rekern.hwmodels.cpu import Cpu
from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.gpu import Gpu

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that kernels are made for: the tables that its kind has."""

    name: str
    kind: Literal["cpu", "gpu"]
    cpu: Cpu | None = None
    gpu: Gpu | None = None

    def __post_init__(self) -> None:
        check(self, "")
        for kind, part in (("cpu", self.cpu), ("gpu", self.gpu)):
            if (self.kind == kind) != (part is not None):
                raise MachineError(
                    f"kind = {self.kind!r}: a [{kind}] table belongs to a {kind}, and only to a {kind}"
                )

    def resource_vector(self) -> tuple[tuple[str, Scalar], ...]:
        """Everything but the name, as sorted pairs of key and value: what plans are keyed by.

        Two machines with the same resources have the same plans, whatever they are called.
        """
        pairs: list[tuple[str, Scalar]] = [("kind", self.kind)]
        for table in dataclasses.fields(self):
            part = getattr(self, table.name)
            if dataclasses.is_dataclass(part):
                pairs += [(f"{table.name}.{f.name}", getattr(part, f.name)) for f in dataclasses.fields(part)]
        return tuple(sorted((key, value) for key, value in pairs if value is not None))

    def __str__(self) -> str:
        pairs = self.resource_vector()
        width = max(len(key) for key, _ in pairs)
        return "\n".join([self.name, *(f"    {key:{width}}  {_written(value)}" for key, value in pairs)])


@dataclass(frozen=True, slots=True)
class Variant:
    """Machines that differ from the file they belong to.

    Args:
        match: Fields of /proc/cpuinfo, each with words of which the field must have one.
        cpu: The table of such a machine.
    """

    name: str
    match: Mapping[str, Sequence[str]]
    cpu: Cpu

    def fits(self, cpuinfo: Mapping[str, str]) -> bool:
        """Whether the machine with this /proc/cpuinfo is one of them."""
        return all(set(words) & set(cpuinfo.get(field, "").split()) for field, words in self.match.items())


def _written(value: Scalar) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
