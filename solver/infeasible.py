"""The error that says why nothing fits.

In: a problem and the limits that exclude each other. Out: `Infeasible`, whose text names the limits, by how
much each is missed, and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rekern.solver.errors import SolverError
from rekern.solver.limit import Limit
from rekern.solver.problem import Problem
from rekern.solver.solution import Slack
from rekern.solver.text import counted, number, point


@dataclass(frozen=True, slots=True)
class Conflict:
    """A limit that cannot be met together with the others of its set; and its use at the nearest choice.

    Args:
        enough: A bound that would do: if only this limit changed, the problem would have a choice. It is the
            nearest such bound unless time ran out. None: no change of this limit alone is known to help.
    """

    limit: Limit
    use: Slack
    enough: float | None = None

    def __str__(self) -> str:
        return self.described(alone=False)

    def described(self, alone: bool) -> str:
        """One line; `alone`: no choice does better, whatever the other limits."""
        use, reason = self.use, f" ({self.limit.reason})" if self.limit.reason else ""
        if self.limit.relation is not None:
            verb, left, right = self.limit.relation
            miss = ", with a rest of" if verb == "divides" else ", off by"
            tail = "" if use.met else f"{miss} {counted(use.used, use.unit)}"
            return f"{self.limit.name}: {left} {verb} {right}{tail}{reason}"
        if use.met:
            return f"{self.limit.name}: {use}{reason}"
        verb, end = ("reaches", "needed") if use.from_below else ("needs", "allowed")
        best = (" at most" if use.from_below else " at least") if alone else ""
        used = counted(use.used, use.unit)
        return f"{self.limit.name}: {verb}{best} {used}, {number(use.bound)} {end}{reason}"


class Infeasible(SolverError):
    """No choice of values meets all limits of a problem.

    Args:
        problem: As it was given.
        conflicts: Limits that no choice meets together, in the order declared.
        nearest: The choice that misses `conflicts` least (sum of the misses, each relative to its bound).
            None: it was not found in time; then what is used is the least that bounds allow any choice.
        minimal: True: without any one of `conflicts` the others can be met together. False: it was not
            proven in time.
    """

    def __init__(
        self,
        problem: Problem,
        conflicts: tuple[Conflict, ...],
        nearest: Mapping[str, int] | None,
        minimal: bool,
    ) -> None:
        super().__init__(problem, conflicts, nearest, minimal)
        self.problem = problem
        self.conflicts = conflicts
        self.nearest = nearest
        self.minimal = minimal

    def __str__(self) -> str:
        lines = [f"no sizes fit {self.problem.name}"]
        if len(self.conflicts) > 1:
            doubt = "" if self.minimal else ", and perhaps fewer of them neither"
            lines[0] += f": these {len(self.conflicts)} limits cannot be met together{doubt}"
        alone = len(self.conflicts) == 1 or self.nearest is None
        lines += [f"    {conflict.described(alone)}" for conflict in self.conflicts]
        if self.nearest:
            lines.append(f"nearest: {point(self.nearest)}")
        enough = [_would_do(conflict) for conflict in self.conflicts if conflict.enough is not None]
        if enough:
            lines.append(f"{'any one would do' if len(enough) > 1 else 'would do'}: {'; '.join(enough)}")
        return "\n".join([*lines, f"try: {self._advice()}"])

    def _advice(self) -> str:
        limits = [conflict.limit for conflict in self.conflicts]
        given = dict.fromkeys(limit.advice for limit in limits if limit.advice)
        if given:
            return "; or ".join(given)
        read = frozenset[str]().union(*(limit.reads for limit in limits))
        domains = [str(v) for v in self.problem.variables if v.name in read]
        relax = "relax " + " or ".join(limit.name for limit in limits)
        return f"{relax}; or allow more than {'; '.join(domains)}" if domains else relax


def _would_do(conflict: Conflict) -> str:
    assert conflict.enough is not None
    sense = "at most" if conflict.limit.at_least is None else "at least"
    return f"{conflict.limit.name} {sense} {counted(conflict.enough, conflict.limit.unit)}"
