"""The schedule `scan` on a CPU: segments of time in parallel.

In: a call and the number of segments. Out: the same results as the time loop over whole sequences. Forward: each
level of states is summed up over its segments, a short loop gives the state on entry of each, then all segments
run as sequences. Backward: the cotangent of a segment's entry is linear in that of its exit, number by number, so
unit cotangents show the factors; a short loop gives every exit, and all segments run backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rekern.functions import FUNCTIONS
from rekern.runtime.arguments import Arguments
from rekern.schedules.scan import NEUTRAL, THROUGH, UNCHANGED, Summary

States = dict[str, Tensor]
Run = Callable[[Summary, Arguments], States]
RunBack = Callable[[Mapping[str, Tensor]], States]


def cut(arguments: Arguments, segments: int, reverse: bool) -> Arguments:
    """The call with every sequence cut into `segments`, in the order in which its steps are walked."""
    pieces = []
    for n, (batch, first, steps, _) in enumerate(arguments.sequences):
        bounds = [steps * g // segments for g in range(segments + 1)]
        for g in range(segments):
            length = bounds[g + 1] - bounds[g]
            start = first + steps - bounds[g + 1] if reverse else first + bounds[g]
            pieces.append((batch, start, length, n * segments + g))
    return replace(arguments, sequences=tuple(pieces), state={})


def by_segment(state: Tensor, segments: int) -> Tensor:
    """[N * segments, ...] as [N, segments, ...]."""
    return state.reshape(-1, segments, *state.shape[1:])


def entries(
    cut_arguments: Arguments, first: Mapping[str, Tensor], summaries: tuple[Summary, ...], segments: int, run: Run
) -> States:
    """The states on entry of every segment [N * segments, ...], from the first states [N, ...]."""
    known: States = {}
    for summary in summaries:
        start = dict(known)
        for name, join in summary.joins.items():
            like = first[name].repeat_interleave(segments, 0)
            start[name] = torch.full_like(like, NEUTRAL[join])
            start[THROUGH + name] = torch.full_like(like, UNCHANGED[join])
        last = run(summary, replace(cut_arguments, state=start))
        for name, join in summary.joins.items():
            through, end = by_segment(last[THROUGH + name], segments), by_segment(last[name], segments)
            entry = [first[name]]
            for g in range(segments - 1):
                if join == "sum":
                    entry.append(through[:, g] * entry[-1] + end[:, g])
                else:
                    entry.append(FUNCTIONS[join].torch(through[:, g] + entry[-1], end[:, g]))
            known[name] = torch.stack(entry, 1).flatten(0, 1).contiguous()
    return known


def exits(d_last: Mapping[str, Tensor], segments: int, run_back: RunBack, none: RunBack) -> States:
    """The cotangents at the exit of every segment [N * segments, ...], from those of the last states [N, ...].

    `run_back` gives the cotangents of the entries for these exits with the cotangents of the outputs, `none`
    without them.
    """
    zero = {n: torch.zeros_like(t.repeat_interleave(segments, 0)) for n, t in d_last.items()}
    constant = {n: by_segment(t, segments) for n, t in run_back(zero).items()}
    factors = {}
    for source in d_last:
        unit = {**zero, source: torch.ones_like(zero[source])}
        factors[source] = {n: by_segment(t, segments) for n, t in none(unit).items()}
    here = dict(d_last)
    found = {n: [t] for n, t in d_last.items()}
    for g in range(segments - 1, 0, -1):
        here = {
            n: constant[n][:, g] + sum((factors[s][n][:, g] * here[s] for s in here), torch.zeros((), device="cpu"))
            for n in here
        }
        for n, t in here.items():
            found[n].append(t)
    return {n: torch.stack(list(reversed(ts)), 1).flatten(0, 1).contiguous() for n, ts in found.items()}
