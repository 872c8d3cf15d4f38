"""Sizes of the kernels of a call, from the solver.

In: a machine, `Programs`, the shape of a call. Out: a `Chosen`: the schedule, and `Sizes` for each pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from rekern.errors import PlanError
from rekern.hwmodels import Machine
from rekern.schedules.gpu.call import Call, Dtype
from rekern.schedules.gpu.ranking import Choice, rank
from rekern.schedules.gpu.work import power_of_two
from rekern.schedules.programs import Programs
from rekern.schedules.triton.passes import Sizes

RENDERED = ("time_loop", "one_block")  # schedules that there are kernels for


@dataclass(frozen=True)
class Chosen:
    """The cheapest schedule that there are kernels for, and its sizes by pass."""

    choice: Choice
    forward: Sizes
    backward: Sizes
    step: Sizes


@lru_cache(maxsize=256)
def choose(
    machine: Machine,
    programs: Programs,
    lengths: tuple[tuple[str, int], ...],
    batch: int,
    heads: int,
    time: int,
    dtype: Dtype,
    schedules: tuple[str, ...] = RENDERED,
) -> Chosen:
    """Solve for the sizes. Batch and time count by powers of two: calls that differ less share their kernels.

    Args:
        schedules: Those that may be chosen.

    Raises:
        PlanError: nothing fits; the text says why for each schedule.
    """
    call = Call.of(
        programs.spec, dict(lengths), machine,
        batch=power_of_two(max(1, batch)), heads=heads, time=power_of_two(max(1, time)), dtype=dtype,
    )  # fmt: skip
    ranking = rank(call)
    found = [c for c in ranking.choices if c.schedule in schedules]
    if not found:
        reasons = {**ranking.refused, **{n: str(e) for n, e in ranking.unfit.items()}}
        told = "\n".join(f"{name}: {reason}" for name, reason in reasons.items() if name in schedules)
        raise PlanError(f"no kernel for {call}\n{told}")
    values = found[0].solution.values

    def sizes(name: str) -> Sizes:
        return _sizes(programs, lengths, values, name)

    return Chosen(found[0], sizes("forward"), sizes("backward"), sizes("step"))


def _sizes(programs: Programs, lengths: tuple[tuple[str, int], ...], values: Mapping[str, int], name: str) -> Sizes:
    most = power_of_two(max((n for a, n in lengths if a == programs.lane), default=1))
    return Sizes(
        lengths,
        min(most, values.get(f"{name} columns", most)) if programs.lane else 0,
        values.get(f"{name} rows", 16) if programs.rows else 0,
        values[f"{name} warps"],
        values.get(f"{name} stages", 1),
        values.get("block of time", 16),
    )
