"""What a plan is made for.

In: a spec, lengths of all axes, a dtype, a machine. Out: a frozen `Call` that is checked when built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from rekern.analysis.facts import Facts, facts
from rekern.analysis.kinds import Dense
from rekern.errors import PlanError
from rekern.hwmodels import Machine
from rekern.hwmodels.gpu import Gpu
from rekern.spec import Recurrence

Dtype = Literal["bfloat16", "float16", "float32"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
ELEMENT_BYTES: Mapping[str, int] = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Call:
    """One kind of call of one spec on one GPU.

    Args:
        lengths: Of every named axis of the spec.
        batch: Sequences.
        heads: Heads of each sequence.
        time: Steps of each sequence.
        dtype: Of inputs, outputs and parameters; states and sums are float32.
        gradient: Whether a backward pass follows.

    Raises:
        PlanError: a length is missing or below 1, an axis or a dtype is unknown, the machine is no GPU.
    """

    spec: Recurrence
    lengths: tuple[tuple[str, int], ...]
    batch: int
    heads: int
    time: int
    dtype: Dtype
    machine: Machine
    gradient: bool = True

    def __post_init__(self) -> None:
        name, axes, given = self.spec.name, self.spec.axes, dict(self.lengths)
        if self.machine.gpu is None:
            raise PlanError(f"{self.machine.name} is a {self.machine.kind}, expected a GPU")
        for axis in given:
            if axis not in axes:
                raise PlanError(f"{name} has no axis {axis!r}; it has {', '.join(axes) or 'none'}")
        for axis in axes:
            if axis not in given:
                raise PlanError(f"{name}: axis {axis} has no length; give one: {axis}=64")
        numbers = {**given, "batch": self.batch, "heads": self.heads, "time": self.time}
        for what, value in numbers.items():
            if value < 1:
                raise PlanError(f"{name}: {what} is {value}, expected at least 1")
        if self.dtype not in DTYPES:
            raise PlanError(f"{name}: there is no dtype {self.dtype!r}; expected one of {', '.join(DTYPES)}")

    @staticmethod
    def of(
        spec: Recurrence,
        lengths: Mapping[str, int],
        machine: Machine,
        *,
        batch: int,
        heads: int,
        time: int,
        dtype: Dtype,
        gradient: bool = True,
    ) -> Call:
        """The same from a mapping of lengths, in any order."""
        ordered = {a: lengths[a] for a in spec.axes if a in lengths}
        rest = {a: n for a, n in lengths.items() if a not in ordered}
        return Call(spec, tuple({**ordered, **rest}.items()), batch, heads, time, dtype, machine, gradient)

    @property
    def gpu(self) -> Gpu:
        """The GPU of the machine."""
        assert self.machine.gpu is not None
        return self.machine.gpu

    @property
    def element_bytes(self) -> int:
        """Of an input, an output or a parameter."""
        return ELEMENT_BYTES[self.dtype]

    @property
    def rows(self) -> int:
        """Sequences times heads: what has nothing to do with each other."""
        return self.batch * self.heads

    @cached_property
    def facts(self) -> Facts:
        """The analysis of the spec."""
        return facts(self.spec)

    @cached_property
    def is_dense(self) -> bool:
        """Whether a state of the spec needs all of an earlier one at every step."""
        return any(isinstance(s.kind, Dense) for s in self.facts.stages)

    def __str__(self) -> str:
        sizes = "".join(f" {axis}={length}" for axis, length in self.lengths)
        passes = "forward and gradient" if self.gradient else "forward"
        return (
            f"{self.spec.name}{sizes} in {self.dtype}, batch {self.batch}, heads {self.heads}, "
            f"time {self.time}, {passes}, on {self.machine.name}"
        )
