"""Explains a call: `explain(call)` is the whole of it.

In: a call on a GPU or a CPU. Out: an `Explanation`.
"""

from __future__ import annotations

from rekern.explain import cpu, gpu
from rekern.explain.case import Case
from rekern.explain.cpu import CpuCall
from rekern.explain.limits import limit_uses
from rekern.explain.others import NEAR, others
from rekern.explain.sensitivity import sensitivity
from rekern.explain.values import Explanation, Unfit
from rekern.schedules.gpu.call import Call
from rekern.solver import Infeasible

TOP = 5


def explain(call: Call | CpuCall, top: int = TOP) -> Explanation:
    """Why `call` gets its schedule and sizes.

    Args:
        top: How many choices that lost are told of; every schedule is, beside them.

    Raises:
        PlanError: no schedule fits; the text says why for each.
        rekern.solver.Infeasible: no size fits a CPU.
    """
    case = gpu.case(call) if isinstance(call, Call) else cpu.case(call)
    return _explained(case, top)


def _explained(case: Case, top: int) -> Explanation:
    schedule, solution = case.best[0]
    parts = case.parts(schedule, solution)
    return Explanation(
        subject=case.subject,
        schedule=schedule,
        seconds=solution.cost,
        proven=solution.proven_optimal,
        sizes=dict(solution.values),
        parts=parts,
        floors=case.floors(parts),
        ceilings=case.ceilings,
        limits=limit_uses(case.problem, solution),
        near=NEAR,
        others=others(case, top),
        refused=dict(case.refused),
        unfit=tuple(_unfit(name, error) for name, error in case.unfit.items()),
        choices=case.problem.points,
        sensitivity=sensitivity(case.problem, solution),
    )


def _unfit(schedule: str, error: Infeasible) -> Unfit:
    return Unfit(schedule, tuple(str(conflict) for conflict in error.conflicts), str(error))
