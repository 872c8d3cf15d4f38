"""Everything that the analysis knows of a spec, as one value that prints as a summary.

In: a spec. Out: `Facts`: stages with the kind of every state, how outputs read states, counts, and what a
user should look at twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rekern import ir
from rekern.analysis.bounds import overflow_risks
from rekern.analysis.counts import Counts, counts
from rekern.analysis.kinds import Affine, Dense, Kind, independent_axes, kind
from rekern.analysis.linear import replace_everywhere
from rekern.analysis.logs import Reason
from rekern.analysis.readout import Readout, readouts
from rekern.analysis.stages import Stage, stages
from rekern.analysis.transition import Decay, Transition, Write
from rekern.analysis.wording import listing, short
from rekern.ir import Apply, Node
from rekern.rules import rewrite
from rekern.spec import Recurrence


@dataclass(frozen=True)
class StageFacts:
    """One stage: the kind of its states, and the axes along which its work can be cut without exchange."""

    stage: Stage
    kind: Kind
    independent: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of `spec`. `warnings` are sentences."""

    spec: Recurrence
    stages: tuple[StageFacts, ...]
    readouts: tuple[Readout, ...]
    counts: Counts
    warnings: tuple[str, ...]

    def kind(self, state: str) -> Kind:
        """The kind of one state."""
        return next(s.kind for s in self.stages if state in s.stage.states)

    def __str__(self) -> str:
        lines = [self.spec.name]
        for stage in self.stages:
            lines += _stage_lines(self.spec, stage)
        lines += [str(r) for r in self.readouts]
        lines += ["per step and head", *_indented(str(self.counts).splitlines())]
        return "\n".join([*lines, *(f"note: {w}" for w in self.warnings)])


def facts(spec: Recurrence) -> Facts:
    """All questions of the analysis, answered.

    >>> from rekern.zoo import gla
    >>> print(facts(gla))
    gla
    S: affine, matrix, K decay; independent along K and V
        keeps  K exp(g[k]); log-decay g[k]
        writes k[k] x v[v]
    out reads S after the update
    per step and head
        flops            5*K*V + V (in contractions 2*K*V)
        special          exp K
        operands         3*K + V read, V written a step, in elements
        state            4*K*V bytes
    """
    found = tuple(StageFacts(s, kind(spec, s.states[0]), independent_axes(spec, s)) for s in stages(spec))
    return Facts(spec, found, readouts(spec), counts(spec), tuple(_warnings(spec, found)))


def _warnings(spec: Recurrence, found: tuple[StageFacts, ...]) -> Iterator[str]:
    read = ir.operands_read(spec.step.roots())
    unused = [o.name for o in spec.operands if o.name not in read]
    if unused:
        yield f"{listing(unused)} {'is' if len(unused) == 1 else 'are'} never read"
    moves = [t for s in found if isinstance(s.kind, Affine) for t in s.kind.transitions]
    for decay in (d for t in moves for d in t.decay):
        if isinstance(decay.log, Reason):
            yield f"the decay {short(decay.factor)} has no log-decay: {decay.log}"
        elif not decay.shrinks:
            yield f"the decay {short(decay.factor)} may exceed 1; if it does not, declare at_most"
    for node in overflow_risks(spec):
        yield f"{short(node)} overflows where its argument exceeds 88"


def _stage_lines(spec: Recurrence, facts: StageFacts) -> list[str]:
    cut = f"; independent along {listing(facts.independent)}" if facts.independent else ""
    after = f" (after {listing(facts.stage.needs)})" if facts.stage.needs else ""
    lines = [f"{', '.join(facts.stage.states)}{after}: {facts.kind}{cut}"]
    match facts.kind:
        case Affine(transitions):
            for transition in transitions:
                lines += _indented(_transition_lines(spec, facts.stage, transition))
        case Dense(products=products):
            lines += _indented([f"needs  {p}" for p in products])
    return lines


def _transition_lines(spec: Recurrence, stage: Stage, transition: Transition) -> list[str]:
    """What is kept, mixed and written, with new values of earlier stages by name."""
    news = [
        (ir.read(f"{name}_new", cell, ir.canonical_axes(spec.operand(name).axes)), rewrite([new])[0])
        for name in stage.needs
        for cell, new in spec.step.states[name].items()
    ]

    def named(node: Node) -> Node:
        for mark, new in news:
            if new.free == mark.free and isinstance(new, Apply):
                node = replace_everywhere(node, new, mark)
        return node

    def decay_named(decay: Decay) -> Decay:
        log = decay.log if isinstance(decay.log, Reason) else named(decay.log)
        return replace(decay, factor=named(decay.factor), log=log)

    lines = []
    for n, tick in enumerate(transition.ticks):
        if len(transition.ticks) > 1:
            lines.append(f"micro-step {n + 1}")
        lines += [f"keeps  {decay_named(d)}" for d in tick.decay]
        for term in tick.low_rank:
            weight, write, read = map(named, (term.weight, term.write, term.read))
            lines.append(f"mixes  {replace(term, weight=weight, write=write, read=read)}")
        for w in tick.writes:
            vectors = None if w.vectors is None else tuple(map(named, w.vectors))
            lines.append(f"writes {Write(named(w.weight), vectors)}")
    return lines


def _indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]
