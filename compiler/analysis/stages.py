"""The order in which the states of a step can be computed over all of time.

In: a spec. Out: stages; the states of one stage need each other and states of earlier stages, so a whole
sequence of an earlier stage can be known before a later one starts.
"""

from __future__ import annotations

from dataclasses import dataclass

from rekern import ir
from rekern.spec import Recurrence


@dataclass(frozen=True)
class Stage:
    """States that need each other, in declared order; `needs` are the states of earlier stages they read."""

    states: tuple[str, ...]
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.states) + (f" (after {', '.join(self.needs)})" if self.needs else "")


def stages(spec: Recurrence) -> tuple[Stage, ...]:
    """The strongly connected sets of states, each after those whose old or new values it reads.

    >>> from rekern.zoo import mlstm
    >>> print(*stages(mlstm), sep="; ")
    m; C (after m); n (after m)
    """
    names = [o.name for o in spec.states]
    needs = {n: ir.operands_read(spec.step.states[n].values()) & set(names) for n in names}
    reach = {n: _reach(n, needs) for n in names}
    waiting = list(names)
    found: list[Stage] = []
    while waiting:
        # Declared order among those that are ready: what a state needs, and does not need it, comes first.
        ready = next(n for n in waiting if all(r not in waiting or n in reach[r] for r in reach[n]))
        together = tuple(n for n in names if n == ready or (n in reach[ready] and ready in reach[n]))
        before = tuple(n for n in names if n not in together and any(n in needs[t] for t in together))
        found.append(Stage(together, before))
        waiting = [n for n in waiting if n not in together]
    return tuple(found)


def stage_of(spec: Recurrence, state: str) -> Stage:
    """The stage that computes `state`."""
    return next(s for s in stages(spec) if state in s.states)


def _reach(start: str, needs: dict[str, set[str]]) -> set[str]:
    """Every state that `start` needs, directly or not; `start` itself only if it needs itself."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for other in needs[waiting.pop()]:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen
