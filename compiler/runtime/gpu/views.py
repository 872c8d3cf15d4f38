"""The kernels of a recurrence for a GPU that need not be there, for sizes of a usual call.

In: a spec, a machine, lengths, a dtype. Out: `Views`: each pass as its template sees it, and what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

from rekern.errors import PlanError
from rekern.hwmodels import Machine
from rekern.runtime.gpu.choose import TIME_LOOPS, Chosen, choose
from rekern.schedules.gpu.call import DTYPES, Dtype
from rekern.schedules.gpu.usual import OTHER, usual_sizes
from rekern.schedules.programs import Programs, programs
from rekern.schedules.triton.backward import backward_pass
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.passes import Sizes, TritonPass, Variant
from rekern.spec import Recurrence

SPELLED: Mapping[str, str] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Views:
    """The passes of a time loop for plain calls: no packed sequences, no restarts, all operands with all heads."""

    spec: Recurrence
    programs: Programs
    machine: Machine
    dtype: Dtype
    chosen: Chosen

    @property
    def variant(self) -> Variant:
        """What the passes are made for."""
        names = [o.name for o in self.programs.spec.of_kind("input", "param")] + [*self.programs.spec.step.output_dims]
        spelled = SPELLED[self.dtype]
        dtypes = tuple(sorted((n, spelled) for n in names)) if spelled != "fp32" else ()
        gpu = self.machine.gpu
        assert gpu is not None
        return Variant(dtypes, precision="tf32x3" if gpu.vendor == "nvidia" else "ieee")

    @cached_property
    def forward(self) -> TritonPass:
        return forward_pass(self.programs, self.chosen.forward, self.variant, record=False)

    @cached_property
    def recording(self) -> TritonPass:
        """The forward pass that keeps what the gradient reads."""
        return forward_pass(self.programs, self.chosen.forward, self.variant, record=True)

    @cached_property
    def backward(self) -> TritonPass:
        """The gradient. Blocks of steps are those of the forward pass."""
        sizes: Sizes = replace(self.chosen.backward, block=self.chosen.forward.block)
        return backward_pass(self.programs, sizes, self.variant)

    @cached_property
    def step(self) -> TritonPass:
        """The forward pass with the sizes of a single step."""
        return forward_pass(self.programs, self.chosen.step, self.variant, record=False)

    def by_name(self) -> dict[str, TritonPass]:
        """All of them, in the order in which they are shown."""
        return {"forward": self.forward, "recording": self.recording, "backward": self.backward, "step": self.step}


def views(
    spec: Recurrence, machine: Machine, dtype: str, lengths: Mapping[str, int],
    batch: int | None = None, heads: int | None = None, time: int | None = None,
) -> Views:  # fmt: skip
    """The passes for these lengths; what is not given is as in a usual call of the spec.

    Raises:
        PlanError: an axis or dtype is unknown, a length is below 1, or nothing fits the machine.
    """
    for axis in lengths:
        if axis not in spec.axes:
            raise PlanError(f"{spec.name} has no axis {axis!r}; it has {', '.join(spec.axes) or 'none'}")
    for name, value in {**lengths, "batch": batch, "heads": heads, "time": time}.items():
        if value is not None and value < 1:
            raise PlanError(f"{spec.name}: {name} is {value}, expected at least 1")
    known: Dtype | None = next((d for d in get_args(Dtype) if d == dtype), None)
    if known is None:
        raise PlanError(f"{spec.name}: there is no dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    usual_batch, usual_heads, usual_time, usual = usual_sizes(spec)[0]
    found = tuple((a, lengths.get(a, usual.get(a, OTHER))) for a in spec.axes)
    made = programs(spec)
    chosen = choose(
        machine, made, found, batch or usual_batch, heads or usual_heads, time or usual_time, known, TIME_LOOPS
    )
    return Views(spec, made, machine, known, chosen)
