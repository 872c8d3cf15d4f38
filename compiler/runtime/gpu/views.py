"""The kernels of a recurrence for a GPU that need not be there.

In: a call without its tensors, or a spec, a machine, a dtype and lengths. Out: `Views`: the kernels that such calls
launch, as their templates see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from rekern.errors import PlanError
from rekern.hwmodels import Machine
from rekern.runtime.gpu.choose import RENDERED, choose
from rekern.runtime.gpu.kernels import Kernels, fitting
from rekern.runtime.gpu.variants import Way, plain_variant
from rekern.schedules.gpu.call import DTYPES, Call, Dtype
from rekern.schedules.gpu.usual import OTHER, usual_sizes
from rekern.schedules.programs import Programs, programs
from rekern.schedules.triton.passes import TritonPass
from rekern.spec import Recurrence

PassName = Literal["forward", "recording", "backward", "step"]
PASSES: tuple[PassName, ...] = get_args(PassName)


@dataclass(frozen=True)
class Views:
    """The kernels of plain calls: no packed sequences, no restarts, operands dense, in one dtype and with all heads.

    Args:
        among: Schedules that may be chosen.

    Raises:
        PlanError: of every kernel: nothing fits the machine.
        BuildError: Triton is missing, or a kernel does not compile.
    """

    call: Call
    among: tuple[str, ...] = RENDERED

    @property
    def spec(self) -> Recurrence:
        return self.call.spec

    @property
    def lengths(self) -> Mapping[str, int]:
        """Of all axes."""
        return dict(self.call.lengths)

    @cached_property
    def programs(self) -> Programs:
        return programs(self.spec)

    @cached_property
    def plain(self) -> Kernels:
        """Of a call without a gradient."""
        return self._kernels(Way())

    @cached_property
    def recorded(self) -> Kernels:
        """Of a call with one."""
        return self._kernels(Way(record=True))

    @cached_property
    def single(self) -> Kernels:
        """Of one step."""
        return self._kernels(Way(one_step=True))

    def _kernels(self, way: Way) -> Kernels:
        c = self.call
        found = choose(c.machine, self.programs, c.lengths, c.batch, c.heads, c.time, c.dtype, self.among)
        variant = plain_variant(c.spec, self.lengths, c.dtype, c.machine)
        return fitting(found, variant, {o.name: 1 for o in c.spec.of_kind("input", "param")}, way)

    def of(self, name: PassName) -> tuple[TritonPass, ...]:
        """The kernels of a pass, in the order in which they first run."""
        match name:
            case "forward":
                return self.plain.of("forward")
            case "recording":
                return self.recorded.of("forward")
            case "backward":
                return self.recorded.of("backward")
            case "step":
                return self.single.of("forward")


def views(
    spec: Recurrence, machine: Machine, dtype: str, lengths: Mapping[str, int],
    batch: int | None = None, heads: int | None = None, time: int | None = None,
    among: tuple[str, ...] = RENDERED,
) -> Views:  # fmt: skip
    """The kernels for these lengths; what is not given is as in a usual call of the spec.

    Raises:
        PlanError: an axis or dtype is unknown, or a length is below 1.
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
    call = Call.of(
        spec, {a: lengths.get(a, usual.get(a, OTHER)) for a in spec.axes}, machine,
        batch=batch or usual_batch, heads=heads or usual_heads, time=time or usual_time, dtype=known,
    )  # fmt: skip
    return Views(call, among)
