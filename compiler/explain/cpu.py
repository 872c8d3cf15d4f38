"""A call on a CPU in numbers: what one step costs, and why time is not cut into segments.

In: a `CpuCall`. Out: its `Case`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rekern.analysis.logs import Reason
from rekern.errors import PlanError
from rekern.explain.case import Case
from rekern.explain.values import Part, Subject
from rekern.hwmodels import Machine
from rekern.schedules.cpu.choose import problem
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import programs
from rekern.schedules.scan import summaries
from rekern.solver import Solution, solve
from rekern.spec import Recurrence

DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True)
class CpuCall:
    """One kind of call of one spec on a CPU.

    Args:
        lengths: Of every named axis of the spec.
        dtype: Of the operands; float64 is computed in float64, all others in float32.
        time: Steps of a sequence. They change no size, only whether results go past the caches.

    Raises:
        PlanError: a length is missing or below 1, an axis or a dtype is unknown, the machine is no CPU.
    """

    spec: Recurrence
    lengths: Mapping[str, int]
    batch: int
    heads: int
    dtype: str
    threads: int
    machine: Machine
    time: int = 1024

    def __post_init__(self) -> None:
        name, axes = self.spec.name, self.spec.axes
        if self.machine.cpu is None:
            raise PlanError(f"{self.machine.name} is a {self.machine.kind}, expected a CPU")
        for axis in self.lengths:
            if axis not in axes:
                raise PlanError(f"{name} has no axis {axis!r}; it has {', '.join(axes) or 'none'}")
        for axis in axes:
            if axis not in self.lengths:
                raise PlanError(f"{name}: axis {axis} has no length; give one: {axis}=64")
        numbers = {**self.lengths, "batch": self.batch, "heads": self.heads, "threads": self.threads, "time": self.time}
        for what, value in numbers.items():
            if value < 1:
                raise PlanError(f"{name}: {what} is {value}, expected at least 1")
        if self.dtype not in DTYPES:
            raise PlanError(f"{name}: there is no dtype {self.dtype!r}; expected one of {', '.join(DTYPES)}")


def case(call: CpuCall) -> Case:
    """The best sizes of the time loop.

    Raises:
        rekern.solver.Infeasible: no size fits the machine.
    """
    made = programs(call.spec)
    ordered = {axis: call.lengths[axis] for axis in call.spec.axes}
    shape = Shape.of(ordered, call.batch, call.heads, call.threads, call.dtype == "float64", call.batch * call.time)
    posed = problem(made, shape, call.machine)
    found = summaries(call.spec)
    return Case(
        Subject(
            call.spec.name, ordered, call.batch, call.heads, None, call.dtype, True, call.machine.name, "cpu",
            call.threads, "one step of one sequence and head" if made.tiled else "one step of all sequences and heads",
        ),
        {"time_loop": posed},
        (("time_loop", solve(posed)),),
        {"scan": str(found)} if isinstance(found, Reason) else {},
        {},
        lambda _, solution: (_part(solution),),
        lambda _: (),
        None,
    )  # fmt: skip


def _part(solution: Solution) -> Part:
    """All terms together: on one core they follow one another."""
    terms = dict(solution.terms)
    return Part(
        name="a step",
        pass_name="step",
        seconds=solution.cost,
        share=1.0,
        bound_by=max(terms, key=lambda term: terms[term]),
        terms=terms,
        shares={term: value / solution.cost for term, value in terms.items()},
        exposed=terms,
        counts={},
    )
