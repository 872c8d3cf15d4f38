"""Whether several threads can work on one task: each computes a part of the units of every step.

In: `Programs`. Out: how a team shares the step of one program, or the reason why tasks have one thread each.
"""

from __future__ import annotations

from functools import lru_cache

from rekern.analysis.logs import Reason
from rekern.loops.order import arrange
from rekern.loops.program import Program
from rekern.loops.team import Sharing, sharing
from rekern.schedules.programs import Programs


@lru_cache(maxsize=256)
def why_no_team(programs: Programs) -> Reason | None:
    """Why a task cannot have a team; None if it can.

    Its forward pass and its gradient are shared alike, because both follow from one choice of sizes.
    """
    if not programs.rows:
        return Reason("no weight is multiplied with a vector, so sequences, heads and columns are tasks of their own")
    if programs.keep == "blocks":
        return Reason("a state has more than one axis, and a thread has a part of one axis only")
    for program in (programs.forward, programs.recording, programs.backward):
        found = _shared(programs, program)
        if isinstance(found, str):
            return Reason(found)
    return None


def shared(programs: Programs, program: Program) -> Sharing | None:
    """How a team shares a step of `program`; None if tasks have one thread each."""
    if why_no_team(programs) is not None:
        return None
    found = _shared(programs, program)
    assert isinstance(found, Sharing)
    return found


@lru_cache(maxsize=256)
def _shared(programs: Programs, program: Program) -> Sharing | str:
    back = program is programs.backward
    return sharing(arrange(program), early=not back, back=back)
