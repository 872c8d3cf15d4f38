"""The schedule scan of a call on a GPU: segments of time in parallel.

In: as for `Loop`; sizes have a segment. Out: the same results. Forward, each level of states has two launches, what
segments make of it and a join, and then all segments run from their true entries. Back, all cotangents are one level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from rekern.runtime.arguments import Arguments
from rekern.runtime.gpu.base import Given, Way
from rekern.runtime.gpu.choose import Chosen
from rekern.runtime.gpu.launches import Launch
from rekern.runtime.gpu.loop import Loop
from rekern.schedules.programs import Programs
from rekern.schedules.scan import Summary, summaries
from rekern.schedules.triton.backward import backward_pass
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.passes import TritonPass
from rekern.schedules.triton.scan import backward_join_pass, backward_summary_pass, join_pass, summary_pass
from rekern.schedules.triton.segments import segment_rows


class Scan(Loop):
    """One kind of call, cut into segments of time."""

    def __init__(
        self, programs: Programs, arguments: Arguments, way: Way, chosen: Chosen, precision: str, plan: str = "",
        one_step: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(programs, arguments, way, chosen, precision, plan, one_step)
        # Both passes find the states that are kept at the same steps, so these divide the segments of both.
        block = min(chosen.forward.block, chosen.forward.segment, chosen.backward.segment)
        self.sizes = replace(chosen.forward, block=block), replace(chosen.backward, block=block)
        found = summaries(programs.spec)
        assert isinstance(found, tuple), found  # the schedule refuses the others
        self.levels: tuple[Summary, ...] = found

    @cached_property
    def forward_view(self) -> TritonPass:
        """Segments from their true entries. Their kernels are small: sizes are as the solver has them."""
        return forward_pass(self.programs, self.sizes[0], self.variant, self.way.record)

    @cached_property
    def backward_view(self) -> TritonPass:
        """Segments from their true exits, backwards."""
        return backward_pass(self.programs, self.sizes[1], self.variant)

    @cached_property
    def forward_views(self) -> tuple[tuple[TritonPass, TritonPass], ...]:
        """For each level what segments make of it, and the join."""
        sizes, lane = self.sizes[0], self.programs.lane
        return tuple(
            (summary_pass(s, lane, sizes, self.variant), join_pass(self.programs, s, sizes, self.variant))
            for s in self.levels
        )

    @cached_property
    def backward_views(self) -> tuple[TritonPass, TritonPass]:
        """What segments make of cotangents, and the join."""
        programs, sizes, variant = self.programs, self.sizes[1], self.variant
        return backward_summary_pass(programs, sizes, variant), backward_join_pass(programs, sizes, variant)

    @cached_property
    def joined_forward(self) -> tuple[tuple[Launch, Launch], ...]:
        """`forward_views`, compiled."""
        made = [[Launch(view, self.device, self.plan) for view in views] for views in self.forward_views]
        return tuple((summary, join) for summary, join in made)

    @cached_property
    def joined_backward(self) -> tuple[Launch, Launch]:
        """`backward_views`, compiled."""
        summary, join = self.backward_views
        return Launch(summary, self.device, self.plan), Launch(join, self.device, self.plan)

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
            made["scratch", "steps_of_block"] = self.new((programs * self.sizes[0].block * summary.view.slot,))
        summary({**given, **made}, self.counts, scalars, self.groups)
        join({**given, **made}, self.counts, scalars, self.groups)
        return {(use, n): t for (use, n), t in made.items() if use == "entry"}
