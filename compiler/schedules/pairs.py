"""Two steps in one walk over a state, for steps that wait for no sum over it.

In: a `Program` that walks over rows along the lane once, and the arrays of its states. Out: a `Program` of two steps.

What binds such a step is not its arithmetic but one load and one store for each vector of the state: two steps that
share a walk share those. Nothing else changes: the state after the first step is the same number, in a register.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rekern.loops.program import NEXT, Program
from rekern.schedules.carry import following, walk_count


def pair(program: Program, states: Collection[str]) -> Program | None:
    """The program of two steps, its second results under the names of the next step; None where that saves no walk."""
    if walk_count(program) != 1:
        return None
    new = {a.target: (a.axes, a.value) for a in program.assigns}
    own = {name: name for name in states}
    first = [a for a in program.assigns if a.target[0] not in states]
    second = [
        replace(
            a,
            target=a.target if a.target[0] in states else (NEXT + a.target[0], a.target[1]),
            value=following(a.value, program, own, new),
        )
        for a in program.assigns
    ]
    roles = {**program.roles, **{NEXT + n: r for n, r in program.roles.items() if r in ("row", "result")}}
    rows = [n for n, role in program.roles.items() if role == "row"]
    known = {**program.padding, **{NEXT + n: program.padding[n] for n in rows}}
    both = replace(
        program, name=f"{program.name}, two steps", assigns=(*first, *second), roles=roles, padding=known
    )
    return both if walk_count(both) == 1 else None
