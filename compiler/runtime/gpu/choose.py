"""Sizes of the kernels of a call, from the solver, and the first of them that the compiler accepts.

In: a machine, `Programs`, the shape of a call. Out: a `Chosen` for each schedule that fits, cheapest first: the
schedule, and `Sizes` for each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rekern.backends.triton_launch import interpreted
from rekern.errors import PlanError
from rekern.hwmodels import Machine
from rekern.runtime.gpu.fits import Option, first_that_fits, smaller
from rekern.schedules.gpu.call import Call, Dtype
from rekern.schedules.gpu.ranking import SCHEDULES, Choice, alternatives, rank
from rekern.schedules.gpu.work import power_of_two
from rekern.schedules.programs import Programs
from rekern.schedules.triton import alternating
from rekern.schedules.triton.passes import Sizes, TritonPass

TIME_LOOPS = ("time_loop", "one_block")  # schedules whose kernels are those of a time loop
RENDERED = (*TIME_LOOPS, "alternating", "scan")  # schedules that there are kernels for
MOST_OPTIONS = 256  # all sizes of a launch: columns or rows, warps, stages
LaunchName = Literal["forward", "backward", "step"]


@dataclass(frozen=True)
class Chosen:
    """A schedule that there are kernels for, and its best sizes by pass, before the compiler is asked."""

    call: Call
    programs: Programs
    choice: Choice
    forward: Sizes
    backward: Sizes
    step: Sizes

    def kernel(self, name: LaunchName, make: Callable[[Sizes], TritonPass]) -> TritonPass:
        """The kernel of a launch with the best sizes that fit the machine. The interpreter has no limits.

        Args:
            make: The kernel with given sizes.

        Raises:
            PlanError: none fit; the text has what was tried.
            BuildError: Triton is missing, or the kernel does not compile.
        """
        if interpreted():
            return make(getattr(self, name))
        launch = _launch(self.programs, name)
        needs = {x.name: x.needs for x in SCHEDULES[self.choice.schedule].design(self.call).launches}
        advice = needs.get(launch) or next(iter(needs.values()))
        return first_that_fits(f"{name} of {self.call}", self._options(launch), make, self.call.machine, advice)

    def lighter(self, name: str, sizes: Sizes, make: Callable[[Sizes], TritonPass]) -> TritonPass:
        """As `kernel`, of a kernel that the solver has no sizes of its own for: with these, or with smaller ones.

        Raises:
            PlanError, BuildError: as `kernel`.
        """
        if interpreted():
            return make(sizes)
        options = [Option(s, max(1, s.rows) * max(1, s.columns) / s.warps, s.stages) for s in smaller(sizes)]
        return first_that_fits(f"{name} of {self.call}", options, make, self.call.machine, "shorter axes")

    def _options(self, launch: LaunchName) -> list[Option]:
        """Sizes of a launch, best first, where what it shares with the others stays as chosen."""
        found = alternatives(self.call, self.choice, launch, MOST_OPTIONS)
        options: dict[Sizes, Option] = {}
        for s in found:
            # The values of the other launches are not part of the problem of one.
            values = {**self.choice.solution.values, **s.values}
            sizes = _sizes(self.programs, self.call.lengths, values, launch, self.call.gpu.warp_threads)
            shared = s.figures.get(f"{launch}: shared bytes", sizes.stages)
            options.setdefault(sizes, Option(sizes, s.figures[f"{launch}: registers"], shared))
        return list(options.values())


@lru_cache(maxsize=256)
def choose(
    machine: Machine,
    programs: Programs,
    lengths: tuple[tuple[str, int], ...],
    batch: int,
    heads: int,
    time: int,
    dtype: Dtype,
    among: tuple[str, ...] = RENDERED,
) -> tuple[Chosen, ...]:
    """Solve for the sizes. Batch and time count by powers of two: calls that differ less share their kernels.

    A schedule is there once, cheapest first: the next one is for where no kernel of those before it fits.

    Args:
        among: Schedules that may be chosen.

    Raises:
        PlanError: nothing fits; the text says why for each schedule.
    """
    call = Call.of(
        programs.spec, dict(lengths), machine,
        batch=power_of_two(max(1, batch)), heads=heads, time=power_of_two(max(1, time)), dtype=dtype,
    )  # fmt: skip
    ranking = rank(call)
    reasons = {**ranking.refused, **{n: str(e) for n, e in ranking.unfit.items()}}
    if "alternating" in among and (reason := alternating.refusal(programs)):
        reasons.setdefault("alternating", reason)
    found = [c for c in ranking.choices if c.schedule in among and c.schedule not in reasons]
    if not found:
        told = "\n".join(f"{name}: {reason}" for name, reason in reasons.items() if name in among)
        raise PlanError(f"no kernel for {call}\n{told}")
    return tuple(_chosen(call, programs, choice) for choice in found)


def _chosen(call: Call, programs: Programs, choice: Choice) -> Chosen:
    if choice.schedule == "alternating":  # its products are the library's, and have no sizes of ours
        pointwise = alternating.sizes_of(call.lengths)
        return Chosen(call, programs, choice, pointwise, pointwise, pointwise)

    def sizes(name: LaunchName) -> Sizes:
        launch = _launch(programs, name)
        return _sizes(programs, call.lengths, choice.solution.values, launch, call.gpu.warp_threads)

    return Chosen(call, programs, choice, sizes("forward"), sizes("backward"), sizes("step"))


def _launch(programs: Programs, name: LaunchName) -> LaunchName:
    """The launch whose sizes a kernel has: one step of a dense cell is a loop of one step, with the forward kernel."""
    return "forward" if name == "step" and programs.rows else name


def _sizes(
    programs: Programs, lengths: tuple[tuple[str, int], ...], values: Mapping[str, int], name: str, warp_threads: int
) -> Sizes:
    warps, segment = values[f"{name} warps"], values.get(f"{name} segment", 0)
    most = power_of_two(max((n for a, n in lengths if a == programs.lane), default=1))
    # A scan has a column in each thread.
    columns = values.get(f"{name} columns", warps * warp_threads if segment else most)
    return Sizes(
        lengths,
        min(most, columns) if programs.lane else 0,
        values.get(f"{name} rows", 16) if programs.rows else 0,
        warps,
        values.get(f"{name} stages", values.get(f"{name} steps in flight", 1)),
        values.get("block of time", 16),
        segment,
    )
