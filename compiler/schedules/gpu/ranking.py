"""Which schedule, and which sizes: every schedule that applies is solved, and the cheapest one wins.

In: a `Call`. Out: a `Ranking`: the best sizes of each schedule with their terms, best schedule first, and why the
others do not apply or do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rekern.errors import PlanError
from rekern.schedules.gpu import alternating, chunkwise, one_block, persistent, scan, step, time_loop
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design
from rekern.solver import Infeasible, Problem, Solution, solve


@dataclass(frozen=True)
class Schedule:
    """A schedule: when it does not apply, and what it offers where it does."""

    refusal: Callable[[Call], str | None]
    design: Callable[[Call], Design]


# A new schedule is a module, and a line here.
SCHEDULES: Mapping[str, Schedule] = {
    "time_loop": Schedule(time_loop.refusal, time_loop.design),
    "one_block": Schedule(one_block.refusal, one_block.design),
    "persistent": Schedule(persistent.refusal, persistent.design),
    "alternating": Schedule(alternating.refusal, alternating.design),
    "scan": Schedule(scan.refusal, scan.design),
    "chunkwise": Schedule(chunkwise.refusal, chunkwise.through_states),
    "chunkwise_one_pass": Schedule(chunkwise.refusal, chunkwise.in_one_pass),
    "chunkwise_segments": Schedule(chunkwise.refusal, chunkwise.in_segments),
}


@dataclass(frozen=True)
class Choice:
    """A schedule and its sizes; they cover the forward pass, the gradient and the step."""

    schedule: str
    solution: Solution

    @property
    def seconds(self) -> float:
        """Predicted, of all passes."""
        return self.solution.cost


@dataclass(frozen=True)
class Ranking:
    """Everything that was considered for a call.

    Args:
        choices: Best first; each schedule has its best `top` sizes among them.
        refused: Schedules that do not apply, with the reason.
        unfit: Schedules that apply, but of which no sizes fit the machine.
    """

    call: Call
    choices: tuple[Choice, ...]
    refused: Mapping[str, str]
    unfit: Mapping[str, Infeasible]

    @property
    def best(self) -> Choice:
        """The cheapest.

        Raises:
            PlanError: nothing fits; the text says why for each schedule.
        """
        if self.choices:
            return self.choices[0]
        reasons = [f"{name}: {reason}" for name, reason in self.refused.items()]
        reasons += [str(error) for error in self.unfit.values()]
        raise PlanError("\n".join([f"no schedule fits {self.call}", *reasons]))


def problems(call: Call) -> tuple[dict[str, Problem], dict[str, str]]:
    """The problem of every schedule that applies to `call`, and why the others do not."""
    found: dict[str, Problem] = {}
    refused: dict[str, str] = {}
    for name, schedule in SCHEDULES.items():
        reason = schedule.refusal(call)
        if reason is not None:
            refused[name] = reason
        else:
            found[name] = (schedule.design(call) + step.design(call)).problem(name, call)
    return found, refused


def rank(call: Call, top: int = 1) -> Ranking:
    """Solve every schedule for its best `top` sizes, and put them in order."""
    posed, refused = problems(call)
    choices: list[Choice] = []
    unfit: dict[str, Infeasible] = {}
    for name, problem in posed.items():
        try:
            choices += [Choice(name, s) for s in solve(problem, top)]
        except Infeasible as error:
            unfit[name] = error
    order = {name: n for n, name in enumerate(SCHEDULES)}
    choices.sort(key=lambda c: (c.seconds, order[c.schedule]))
    return Ranking(call, tuple(choices), refused, unfit)


def alternatives(call: Call, choice: Choice, launch: str, top: int) -> tuple[Solution, ...]:
    """The best sizes of one launch, where all others and what it shares with them stay as chosen.

    Kernels of a plan are compiled and timed one by one, so this is the list that a gate or a tuner works through.

    Raises:
        PlanError: the schedule has no such launch.
    """
    design = SCHEDULES[choice.schedule].design(call) + step.design(call)
    return solve(design.alone(launch, choice.solution.values, call), top)
