"""The schedule scan of a call on a GPU: segments of time in parallel.

In: as for `Loop`; sizes have a segment. Out: the same results.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from rekern.runtime.arguments import Arguments
from rekern.runtime.gpu.base import Given
from rekern.runtime.gpu.kernels import ScanKernels
from rekern.runtime.gpu.launches import Launch
from rekern.runtime.gpu.loop import Loop
from rekern.schedules.triton.passes import TritonPass
from rekern.schedules.triton.segments import segment_rows


class Scan(Loop):
    """One kind of call, cut into segments of time."""

    def __init__(self, kernels: ScanKernels, arguments: Arguments, plan: str) -> None:
        super().__init__(kernels, arguments, plan)
        self.kernels: ScanKernels = kernels

    @cached_property
    def joined_forward(self) -> tuple[tuple[Launch, Launch], ...]:
        """The summary and the join of each level, compiled."""
        return tuple((self._compiled(summary), self._compiled(join)) for summary, join in self.kernels.levels)

    @cached_property
    def joined_backward(self) -> tuple[Launch, Launch]:
        """Those of the gradient, compiled."""
        summary, join = self.kernels.backward_level
        return self._compiled(summary), self._compiled(join)

    def _compiled(self, view: TritonPass) -> Launch:
        return Launch(view, self.device, self.plan)

    def run_forward(self, given: Given, scalars: Mapping[str, float]) -> None:
        """Every segment from its entry."""
        entries: Given = {}
        for launches in self.joined_forward:
            entries |= self._joined(launches, {**given, **entries}, scalars)
        given = given | {("state_in", n): t for (_, n), t in entries.items()}
        self.forward_launch(given, self.counts, scalars, self.groups)

    def run_backward(self, given: Given, scalars: Mapping[str, float]) -> None:
        """Every segment from the cotangents at its exit."""
        exits = self._joined(self.joined_backward, given, scalars)
        given = given | {("d_state_out", n): t for (_, n), t in exits.items()}
        self.backward_launch(given, self.counts, scalars, self.groups)

    def _joined(self, launches: tuple[Launch, Launch], given: Given, scalars: Mapping[str, float]) -> Given:
        """What segments make of states, and from that the states on entry (or cotangents at the exit) of each."""
        summary, join = launches
        segment = summary.view.sizes.segment
        rows = segment_rows(self.counts.sequences, self.counts.time, segment, self.way.packed)
        dims = self.spec.states[0].dims  # the same for all states of a scan
        names = {(a.use, a.operand) for launch in launches for a in launch.view.arguments}
        made: Given = {}
        for use, n in sorted((use, n) for use, n in names if use in ("summary", "entry")):
            if (use, n) not in given:
                made[use, n] = self.new((rows, self.counts.heads, *self.shape("", dims)))
        if summary.view.blocks:
            programs = summary.programs(self.counts)
            made["scratch", "steps_of_block"] = self.new((programs * summary.view.sizes.block * summary.view.slot,))
        summary({**given, **made}, self.counts, scalars, self.groups)
        join({**given, **made}, self.counts, scalars, self.groups)
        return {(use, n): t for (use, n), t in made.items() if use == "entry"}
