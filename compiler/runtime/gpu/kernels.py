"""The kernels of one kind of call: which there are is up to the schedule, and each has the first sizes that fit.

In: what was `Chosen`, a variant, the way of the call. Out: `Kernels`, whose passes are `TritonPass`es. Neither tensors
nor a GPU are needed, so what is shown, exported and compiled ahead is what a call launches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rekern.errors import PlanError
from rekern.runtime.gpu.choose import Chosen, LaunchName
from rekern.runtime.gpu.variants import PLAIN, Way
from rekern.schedules.scan import Summary, summaries
from rekern.schedules.triton.alternating import AlternatingPass, alternating_pass
from rekern.schedules.triton.backward import backward_pass
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.passes import PassName, Sizes, TritonPass, Variant
from rekern.schedules.triton.scan import backward_join_pass, backward_summary_pass, join_pass, summary_pass

Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class Kernels(ABC):
    """The kernels of one schedule, made when they are first asked for.

    Args:
        groups: Heads that share one head of an operand, by its name.

    Raises:
        PlanError: of every kernel: no sizes of it fit the machine.
        BuildError: Triton is missing, or a kernel does not compile.
    """

    chosen: Chosen
    variant: Variant
    groups: Mapping[str, int]
    way: Way

    @abstractmethod
    def of(self, direction: Direction) -> tuple[TritonPass, ...]:
        """The kernels of a pass, in the order in which they first run."""

    def all(self) -> dict[Direction, tuple[TritonPass, ...]]:
        """Those of a call and, where it records, of its gradient."""
        found: dict[Direction, tuple[TritonPass, ...]] = {"forward": self.of("forward")}
        return found | {"backward": self.of("backward")} if self.way.record else found


class TimeLoopKernels(Kernels):
    """One kernel a pass."""

    def of(self, direction: Direction) -> tuple[TritonPass, ...]:
        return (self.forward if direction == "forward" else self.backward,)

    @cached_property
    def forward(self) -> TritonPass:
        """All steps; what the gradient reads too, where there is one."""
        return self._fitted(
            "step" if self.way.one_step else "forward",
            lambda sizes, variant: forward_pass(self.chosen.programs, sizes, variant, self.way.record),
        )

    @cached_property
    def backward(self) -> TritonPass:
        """The gradient. Blocks of steps are those of the forward pass."""
        block = self.forward.sizes.block
        return self._fitted(
            "backward",
            lambda sizes, variant: backward_pass(self.chosen.programs, replace(sizes, block=block), variant),
        )

    def _fitted(self, name: LaunchName, make: Callable[[Sizes, Variant], TritonPass]) -> TritonPass:
        """With products as the variant has them or, where none of those fit, as plain multiply-adds.

        Products of float32 that are made of three of TensorFloat-32 hold both parts of their operands. Either way keeps
        what float32 has.
        """
        try:
            return self.chosen.kernel(name, lambda sizes: make(sizes, self.variant))
        except PlanError as error:
            if not self.chosen.programs.rows or self.variant.precision == PLAIN:
                raise
            plain = replace(self.variant, precision=PLAIN)
            try:
                return self.chosen.kernel(name, lambda sizes: make(sizes, plain))
            except PlanError:
                raise error from None


class ScanKernels(TimeLoopKernels):
    """Forward, each level of states has two kernels, what segments make of it and a join, before that of all segments.

    Back, all cotangents are one level.
    """

    def of(self, direction: Direction) -> tuple[TritonPass, ...]:
        if direction == "forward":
            return *(view for pair in self.levels for view in pair), self.forward
        return *self.backward_level, self.backward

    @cached_property
    def sizes(self) -> tuple[Sizes, Sizes]:
        """Of both passes. They find the states that are kept at the same steps: a block divides both segments."""
        forward, backward = self.chosen.forward, self.chosen.backward
        block = min(forward.block, forward.segment, backward.segment)
        return replace(forward, block=block), replace(backward, block=block)

    @cached_property
    def forward(self) -> TritonPass:
        """Segments from their true entries."""
        return self.chosen.lighter(
            "forward", self.sizes[0],
            lambda sizes: forward_pass(self.chosen.programs, sizes, self.variant, self.way.record),
        )  # fmt: skip

    @cached_property
    def backward(self) -> TritonPass:
        """Segments from their true exits, backwards."""
        return self.chosen.lighter(
            "backward", self.sizes[1], lambda sizes: backward_pass(self.chosen.programs, sizes, self.variant)
        )

    @cached_property
    def levels(self) -> tuple[tuple[TritonPass, TritonPass], ...]:
        """For each level what segments make of it, and the join."""
        found = summaries(self.chosen.programs.spec)
        assert isinstance(found, tuple), found  # the schedule refuses the others
        return tuple(self._level(s) for s in found)

    def _level(self, level: Summary) -> tuple[TritonPass, TritonPass]:
        programs, fit = self.chosen.programs, self.chosen.lighter
        return (
            fit("summary", self.sizes[0], lambda sizes: summary_pass(level, programs.lane, sizes, self.variant)),
            fit("join", self.sizes[0], lambda sizes: join_pass(programs, level, sizes, self.variant)),
        )

    @cached_property
    def backward_level(self) -> tuple[TritonPass, TritonPass]:
        """What segments make of cotangents, and the join."""
        programs, fit = self.chosen.programs, self.chosen.lighter
        return (
            fit("backward summary", self.sizes[1], lambda s: backward_summary_pass(programs, s, self.variant)),
            fit("backward join", self.sizes[1], lambda s: backward_join_pass(programs, s, self.variant)),
        )


class AlternatingKernels(Kernels):
    """Products by a library, and kernels between them."""

    def of(self, direction: Direction) -> tuple[TritonPass, ...]:
        return (self.forward if direction == "forward" else self.backward).kernels

    @cached_property
    def forward(self) -> AlternatingPass:
        """Products and kernels of the forward pass."""
        return self._pass("recording" if self.way.record else "forward", self.chosen.forward)

    @cached_property
    def backward(self) -> AlternatingPass:
        """Products and kernels of the gradient."""
        return self._pass("backward", self.chosen.backward)

    def _pass(self, name: PassName, sizes: Sizes) -> AlternatingPass:
        return alternating_pass(self.chosen.programs, name, sizes, self.variant, self._kind, self.chosen.lighter)

    def _kind(self, weight: str) -> Hashable:
        """Weights that can be laid side by side have one dtype and are shared by as many heads."""
        return self.variant.dtype(weight), self.groups[weight]


KINDS: Mapping[str, type[Kernels]] = {
    "time_loop": TimeLoopKernels, "one_block": TimeLoopKernels, "alternating": AlternatingKernels, "scan": ScanKernels,
}  # fmt: skip


def fitting(found: Sequence[Chosen], variant: Variant, groups: Mapping[str, int], way: Way) -> Kernels:
    """The kernels of the first schedule of which all fit the machine.

    Raises:
        PlanError: there is none; the text has what was tried.
        BuildError: Triton is missing, or a kernel does not compile.
    """
    told: list[str] = []
    for chosen in found:
        kind = KINDS[chosen.choice.schedule]
        if way.one_step and kind is ScanKernels:  # one step is a time loop
            kind = TimeLoopKernels
        kernels = kind(chosen, variant, groups, way)
        try:
            kernels.all()
        except PlanError as error:
            told.append(f"{chosen.choice.schedule}: {error}")
        else:
            return kernels
    raise PlanError("\n".join(told))
