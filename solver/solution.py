"""A choice of values, what it costs and how much of each limit it uses.

In: the results of a search. Out: a frozen `Solution` that can be printed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rekern.solver.frozen import FrozenMap
from rekern.solver.limit import Limit
from rekern.solver.points import ROUNDING
from rekern.solver.text import counted, number, point, seconds


@dataclass(frozen=True, slots=True)
class Slack:
    """How much of one limit a choice uses.

    >>> print(Slack(21, 32, "registers"))
    21 of at most 32 registers
    """

    used: float
    bound: float
    unit: str = ""
    from_below: bool = False

    @property
    def met(self) -> bool:
        """Whether the limit holds."""
        return self.left >= 0

    @property
    def left(self) -> float:
        """What is left to use, in `unit`; negative: by how much the limit is missed."""
        return self.used - self.bound if self.from_below else self.bound - self.used

    @property
    def sense(self) -> str:
        """The comparison in words."""
        return "of at least" if self.from_below else "of at most"

    def __str__(self) -> str:
        return f"{number(self.used)} {self.sense} {counted(self.bound, self.unit)}"


def slack(limit: Limit, used: float) -> Slack:
    """What is left of a limit of which so much is used; a miss by rounding is none."""
    if abs(used - limit.bound) <= ROUNDING * abs(limit.bound):
        used = limit.bound
    return Slack(used, limit.bound, limit.unit, from_below=limit.at_least is not None)


@dataclass(frozen=True, slots=True)
class Solution:
    """A choice of values for the variables of a problem.

    Args:
        values: In the order of the problem's variables.
        cost: Seconds, the sum of `terms`.
        terms: Seconds per named term of the cost.
        slack: What each limit allows and what is used of it, by the limit's name.
        proven_optimal: No choice that meets the limits is cheaper than this one (by more than 1e-12 of it),
            except those listed before it.
        figures: The problem's named quantities at this choice.
        gap: How much cheaper another choice may be, as a share of this one's cost: 0.0 where that is proven,
            inf where nothing is known.
    """

    values: Mapping[str, int]
    cost: float
    terms: Mapping[str, float]
    slack: Mapping[str, Slack]
    proven_optimal: bool
    figures: Mapping[str, float] = FrozenMap()
    gap: float = 0.0

    def unproven(self) -> Solution:
        """The same choice where nothing is known of the others."""
        return replace(self, proven_optimal=False, gap=math.inf)

    def __str__(self) -> str:
        proof = ", proven best" if self.proven_optimal else ""
        if self.gap:
            proof = f", others may be {self.gap:.1%} cheaper" if self.gap < 1 else ", not proven best"
        lines = [f"{point(self.values)}: {seconds(self.cost)}{proof}"]
        width = max(map(len, [*self.terms, *self.slack, *self.figures]), default=0)
        for name, value in self.terms.items():
            share = f" ({value / self.cost:.0%})" if self.cost > 0 else ""
            lines.append(f"    {name:{width}}  {seconds(value)}{share}")
        lines += [f"    {name:{width}}  {slack}" for name, slack in self.slack.items()]
        lines += [f"    {name:{width}}  {number(value)}" for name, value in self.figures.items()]
        return "\n".join(lines)
