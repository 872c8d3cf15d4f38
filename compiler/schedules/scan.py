"""Schedule `scan`: time is cut into segments that run in parallel, on two levels.

In: a `Recurrence`. Out: its `Summary`s, or the reason why there are none. Applies where every state is affine and
elementwise, or a running maximum, given earlier stages. A segment then maps the state on entry to the state on
exit by `through * entry + end` (`max(through + entry, end)`): a summary runs a stage over each segment from a
neutral entry, with `through` as a state of its own. A short loop over segments then gives every entry, and the
`time_loop` passes run over the segments as if they were sequences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rekern import ir
from rekern.analysis.kinds import Affine, MaxPlus, kind
from rekern.analysis.logs import Reason
from rekern.analysis.stages import stages
from rekern.ir import Node
from rekern.schedules.programs import Programs, programs
from rekern.spec import Operand, Recurrence, Step, derived
from rekern.trace import Cell

Join = Literal["sum", "maximum", "minimum", "logaddexp"]
THROUGH = "through:"  # what becomes of the state on entry of a segment
NEUTRAL: Mapping[Join, float] = {
    "sum": 0.0,
    "maximum": -math.inf,
    "minimum": math.inf,
    "logaddexp": -math.inf,
}
UNCHANGED: Mapping[Join, float] = {"sum": 1.0, "maximum": 0.0, "minimum": 0.0, "logaddexp": 0.0}


@dataclass(frozen=True)
class Summary:
    """One level of stages: how segments act on these states, given the true entries of earlier levels."""

    joins: Mapping[str, Join]
    programs: Programs


def summaries(spec: Recurrence) -> tuple[Summary, ...] | Reason:
    """The summaries of all levels in order, or why a segment of `spec` has none.

    >>> from rekern.zoo import hgrn, lstm
    >>> len(summaries(hgrn))
    1
    >>> print(summaries(lstm))
    state 'h' is dense, R mixes h along D, 4 products, 1 deep
    """
    moves: dict[str, tuple[Join, Mapping[Cell, Node]]] = {}
    for o in spec.states:
        found = _move(spec, o)
        if isinstance(found, Reason):
            return found
        moves[o.name] = found
    shapes = {o.dims for o in spec.states}
    if len(shapes) > 1:
        return Reason(f"its states have different axes, {' and '.join(sorted(map(str, shapes)))}")
    levels: list[list[str]] = []
    level_of: dict[str, int] = {}
    for stage in stages(spec):
        level = 1 + max((level_of[n] for n in stage.needs), default=-1)
        if level == len(levels):
            levels.append([])
        levels[level] += stage.states
        level_of.update(dict.fromkeys(stage.states, level))
    return tuple(_summary(spec, levels[:n], level, moves) for n, level in enumerate(levels))


SHORTEST = 64  # steps of a segment below which starting threads costs more than it saves


def segment_count(levels: int, tasks: int, threads: int, steps: int) -> int:
    """Into how many segments to cut each sequence: 1 is the time loop.

    With g segments every step is run `levels` times for the summaries and once more, spread over more tasks.

    >>> [segment_count(1, tasks, 8, 10_000) for tasks in (1, 2, 4, 64)]
    [8, 4, 1, 1]
    """

    def cost(segments: int) -> float:
        runs = levels + 1 if segments > 1 else 1
        return runs * -(-tasks * segments // threads) / segments

    return min(range(1, max(1, min(threads, steps // SHORTEST)) + 1), key=lambda g: (cost(g), g))


def _move(spec: Recurrence, o: Operand) -> tuple[Join, Mapping[Cell, Node]] | Reason:
    """How the entry of a state passes through one step: factors of a sum, shifts of a running maximum."""
    found = kind(spec, o.name)
    if isinstance(found, MaxPlus):
        joins = {r.join for r in found.running}
        if len(joins) > 1:
            return Reason(f"state {o.name!r} joins its cells in several ways")
        return joins.pop(), {r.cell: r.shift for r in found.running}
    if not isinstance(found, Affine):
        return Reason(f"state {o.name!r} is {found}")
    factors: dict[Cell, Node] = {}
    for move in found.transitions:
        if any(tick.low_rank for tick in move.ticks):
            return Reason(f"state {o.name!r} mixes its rows: {found}")
        kept = all(tick.keeps for tick in move.ticks)
        decays = (d.factor for tick in move.ticks for d in tick.decay)
        factors[move.cell] = ir.product(decays) if kept else ir.number(0)
    return "sum", factors


def _summary(
    spec: Recurrence,
    earlier: list[list[str]],
    own: list[str],
    moves: Mapping[str, tuple[Join, Mapping[Cell, Node]]],
) -> Summary:
    operands: list[Operand] = []
    states: dict[str, Mapping[Cell, Node]] = {}
    known = {name for level in earlier for name in level}
    for o in spec.operands:
        if o.kind != "state" or o.name in known or o.name in own:
            operands.append(o)
        if o.kind == "state" and (o.name in known or o.name in own):
            states[o.name] = spec.step.states[o.name]
    for name in own:
        o = spec.operand(name)
        join, factors = moves[name]
        # A reset cuts the segment: nothing of its entry gets through. That is the declared value of `through`.
        operands.append(Operand(THROUGH + name, "state", o.dims, init=NEUTRAL[join], dtype=o.dtype))
        axes = ir.canonical_axes(o.axes)
        combine = ir.mul if join == "sum" else ir.add
        states[THROUGH + name] = {
            cell: combine(factor, ir.read(THROUGH + name, cell, axes)) for cell, factor in factors.items()
        }
    step = Step(states, {}, {}, single_output=False)
    name = f"{spec.name} segment of {', '.join(own)}"
    return Summary({n: moves[n][0] for n in own}, programs(derived(name, tuple(operands), step)))
