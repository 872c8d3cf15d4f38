"""The cheapest rows found so far in each group, and what can no longer be among them.

In: rows that are chosen in full, with their cost. Out: for each group those that may be among its `top` best.

Order: by cost; among equal costs by positions, the first variable first. Costs of parts are added up later and
the sum is rounded, so rows within `window` of the last place are kept too, and may tie. A row that is neither
cheaper nor earlier than each of `top` others can never get a place, whatever is added to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rekern.solver.domains import Floats, Positions
from rekern.solver.frontier import Rows

TIE = 2.0**-38      # relative; four times what rounding to 40 bits may move a cost

Flags = NDArray[np.bool_]


class Best:
    """The best rows of each group.

    Args:
        names: The variables that are chosen, in the order in which ties are broken.
        top: How many are wanted of each group.
        window: For each group, how much two costs may differ and still tie, if more than their own rounding.
    """

    def __init__(self, names: Sequence[str], top: int, window: Floats) -> None:
        self.names, self.top, self.window = tuple(names), top, window
        groups = len(window)
        self.group: Positions = np.zeros(0, dtype=np.int64)
        self.cost: Floats = np.zeros(0)
        self.chosen: Positions = np.zeros((0, len(self.names)), dtype=np.int64)
        self.last_cost: Floats = np.full(groups, np.inf)
        self.last_chosen: Positions = np.zeros((groups, len(self.names)), dtype=np.int64)
        self.least: Floats = np.full(groups, np.inf)

    def promising(self, rows: Rows) -> Flags:
        """Which rows may still lead to a place: by their bound, and if that ties, by their first choice."""
        last = self.last_cost[rows.group]
        possible: Flags = ~(rows.bound > self._ties(last, rows.group))
        doubtful = np.flatnonzero(possible & (rows.bound >= last))
        if doubtful.size:
            possible[doubtful] = ~self._later(rows, doubtful)
        return possible

    def _ties(self, cost: Floats, group: Positions) -> Floats:
        """The largest cost that may still tie with this one."""
        most: Floats = cost + np.maximum(self.window[group], TIE * np.abs(cost))
        return most

    def _later(self, rows: Rows, which: Positions) -> Flags:
        """Whether even the first choice within a row comes after the last place of its group."""
        last = self.last_chosen[rows.group[which]]
        later: Flags = np.zeros(len(which), dtype=np.bool_)
        same: Flags = np.ones(len(which), dtype=np.bool_)
        for column, name in enumerate(self.names):
            first = rows.starts[name][which] if name in rows.starts else 0
            later |= same & (first > last[:, column])
            same &= first == last[:, column]
        return later

    def offer(self, rows: Rows) -> None:
        """Rows that are chosen in full; `bound` is their cost."""
        rows = rows.take(self._cheap(rows))
        chosen = np.stack([rows.starts[name] for name in self.names], axis=1) if self.names else (
            np.zeros((len(rows), 0), dtype=np.int64)
        )
        group = np.concatenate([self.group, rows.group])
        cost = np.concatenate([self.cost, rows.bound])
        chosen = np.concatenate([self.chosen, chosen])
        order = np.lexsort((*chosen.T[::-1], cost, group))
        group, cost, chosen = group[order], cost[order], chosen[order]
        first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else np.zeros(0, dtype=np.int64)
        sizes = np.diff(np.r_[first, len(group)])
        place = np.arange(len(group)) - np.repeat(first, sizes)
        self.least[group[first]] = cost[first]
        full = first[sizes >= self.top] + self.top - 1
        self.last_cost[group[full]] = cost[full]
        for start in full - self.top + 1:
            leaders = chosen[start : start + self.top]
            self.last_chosen[group[start]] = leaders[np.lexsort(leaders.T[::-1])[-1]] if self.names else 0
        kept = place < self.top
        for at in np.flatnonzero(~kept & (cost <= self._ties(self.last_cost[group], group))):
            kept[at] = tuple(chosen[at]) < tuple(self.last_chosen[group[at]])
        self.group, self.cost, self.chosen = group[kept], cost[kept], chosen[kept]

    def _cheap(self, rows: Rows) -> Positions:
        """Rows not above the `top`-th cheapest of those offered with them, so that few are left to sort."""
        if len(rows) <= 4 * self.top:
            return np.arange(len(rows))
        starts = np.flatnonzero(np.r_[True, rows.group[1:] != rows.group[:-1]])
        kept = []
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            which = np.arange(start, end)
            if end - start > self.top:
                costs = rows.bound[start:end]
                last = np.partition(costs, self.top - 1)[self.top - 1]
                near = which[costs <= self._ties(last, rows.group[start])]
                which = self._first_of_equal(rows, near) if len(near) > 4 * self.top else near
            kept.append(which)
        return np.concatenate(kept)

    def _first_of_equal(self, rows: Rows, which: Positions) -> Positions:
        """Of many rows at the same cost in one group only the first `top`: no other gets a place."""
        columns = [rows.starts[name][which] for name in reversed(self.names)]
        order = which[np.lexsort((*columns, rows.bound[which]))]
        cost = rows.bound[order]
        new = np.flatnonzero(np.r_[True, cost[1:] != cost[:-1]])
        place = np.arange(len(order)) - np.repeat(new, np.diff(np.r_[new, len(order)]))
        kept: Positions = np.sort(order[place < self.top])
        return kept

    def of(self, group: int) -> tuple[Floats, Positions]:
        """Costs and choices of one group, the cheapest first."""
        start, end = np.searchsorted(self.group, [group, group + 1])
        return self.cost[start:end], self.chosen[start:end]
