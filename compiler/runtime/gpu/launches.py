"""One kernel, bound to the tensors of a call.

In: a `TritonPass` and tensors by use. Out: a launch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rekern.backends.offline import TritonSource
from rekern.backends.triton_launch import launcher
from rekern.errors import LaunchError
from rekern.render import render_triton
from rekern.schedules.triton.passes import Argument, TritonPass, Use
from rekern.schedules.triton.segments import segment_rows

AXES = {"batch": 0, "time": 1, "head": 2, "part": 0}
# What a time loop gets from torch for itself, and states, which are copied where they do not lie like that.
OURS: frozenset[Use] = frozenset(
    {"state_in", "state_out", "output", "recorded", "checkpoint", "scratch", "d_state_in", "d_state_out", "d_input",
     "d_param", "vector"}
)  # fmt: skip
Tensors = Mapping[tuple[Use, str], Tensor]


@dataclass(frozen=True)
class Counts:
    """The numbers of a call: sequences (rows of the states), steps of the longest, heads; of one launch: its step."""

    sequences: int
    time: int
    heads: int
    t: int = 0


def source_of(view: TritonPass) -> TritonSource:
    """The text of a kernel with what a compiler is told of its arguments."""
    arguments = tuple((a.name, a.dtype) for a in view.arguments)
    aligned = tuple(a.name for a in view.arguments if is_aligned(a, view))
    return TritonSource(render_triton(view), view.entry, arguments, (), aligned, view.sizes.warps, view.sizes.stages)


def is_aligned(argument: Argument, view: TritonPass) -> bool:
    """Whether an argument is a multiple of 16: an address in bytes, a stride in numbers."""
    of_caller = argument.operand in view.variant.aligned
    if argument.kind == "stride":
        return of_caller and argument.axis != "part"
    return argument.kind == "pointer" and (of_caller or (view.part == "whole" and argument.use in OURS))


class Launch:
    """One kernel. The tensors may change from call to call, what is said of them in the pass may not."""

    def __init__(self, view: TritonPass, device: torch.device, plan: str = "") -> None:
        """`plan`: the machine and the schedule, for messages."""
        self.view, self.plan = view, plan
        self.source = source_of(view)
        self._launch = launcher(self.source, device.index or 0)

    def programs(self, counts: Counts) -> int:
        """Blocks of the grid."""
        groups = -(-counts.sequences // self.view.sizes.rows) if self.view.rows else counts.sequences
        steps = counts.time if self.view.part == "inputs" else 1
        if self.view.segmented:
            groups = segment_rows(counts.sequences, counts.time, self.view.sizes.segment, self.view.variant.packed)
        return groups * counts.heads * self.view.column_tiles * steps

    def __call__(
        self, tensors: Tensors, counts: Counts, scalars: Mapping[str, float], groups: Mapping[str, int]
    ) -> None:
        """Launch; nothing happens without programs.

        Args:
            groups: Heads that share one head of an operand, by its name.

        Raises:
            LaunchError: the GPU does not take it.
        """
        programs = self.programs(counts)
        if programs:
            self._started(programs, self._values(tensors, counts, scalars, groups))

    def of_steps(
        self, tensors: Tensors, counts: Counts, scalars: Mapping[str, float], groups: Mapping[str, int]
    ) -> Callable[[int], None]:
        """The launch as a function of the step, with everything else made ready."""
        programs, values = self.programs(counts), self._values(tensors, counts, scalars, groups)
        place = [a.name for a in self.view.arguments].index("t")

        def launch(t: int) -> None:
            self._started(programs, [*values[:place], t, *values[place + 1 :]])

        return launch

    def _values(
        self, tensors: Tensors, counts: Counts, scalars: Mapping[str, float], groups: Mapping[str, int]
    ) -> list[Any]:
        values: list[Any] = []
        for a in self.view.arguments:
            match a.kind:
                case "pointer":
                    values.append(tensors[a.array])
                case "stride":
                    values.append(tensors[a.array].stride(AXES[a.axis]))
                case "group":
                    values.append(groups[a.operand])
                case "count":
                    values.append(getattr(counts, a.name))
                case "scalar":
                    values.append(scalars[a.operand])
        return values

    def _started(self, programs: int, values: Sequence[Any]) -> None:
        try:
            self._launch(programs, values)
        except Exception as error:  # of the driver by way of Triton, which has no type of its own for each
            raise LaunchError(self._told(programs, error)) from error

    def _told(self, programs: int, error: Exception) -> str:
        """What failed, what was launched, and what to try."""
        view, sizes = self.view, self.view.sizes
        given = {"columns": sizes.columns, "rows": sizes.rows, "warps": sizes.warps, "stages": sizes.stages}
        chosen = ", ".join(f"{name} {value}" for name, value in given.items() if value)
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return (
            f"{view.spec}: the GPU does not take {view.entry}: {lines[0]}\n"
            f"plan: {self.plan or 'unknown'}; {chosen}; {programs} blocks\n"
            "if the GPU is not that machine, name its own: rekern.compile(spec, \"auto\") reads its limits; after an "
            "illegal access the process has to start anew (CUDA_LAUNCH_BLOCKING=1 shows which launch it was)"
        )
