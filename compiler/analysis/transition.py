"""An affine update of one state, as data: what it keeps, what it mixes, what it writes.

In: the formula of a new state. Out: a `Transition`, a short sequence of ticks
`S = decay * S + sum_r write_r (read_r . Y) + writes`, with Y the state before or after the decay. Nothing is
approximated: `Transition.formula()` is the update again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rekern import ir
from rekern.analysis.linear import ONE
from rekern.analysis.logs import Reason
from rekern.analysis.wording import listing, short
from rekern.ir import Index, Node
from rekern.trace import Cell

When = Literal["before", "after"]


@dataclass(frozen=True)
class Decay:
    """One factor of what is kept.

    `axes` are positions among the axes of the state: () for a scalar, (0,) along the first axis, all of them
    for a full elementwise decay. `log` is its logarithm, or why there is none; `shrinks` says that the
    logarithm is known to be <= 0; `constant` that no input and no state is read, so it never changes.
    """

    axes: tuple[int, ...]
    over: str
    factor: Node
    log: Node | Reason
    shrinks: bool
    constant: bool

    def __str__(self) -> str:
        known = "log-decay" if self.shrinks else "log-growth (may be positive)"
        inner = f"{known} {short(self.log)}" if not isinstance(self.log, Reason) else f"no log: {self.log}"
        return f"{'constant ' if self.constant else ''}{self.over} {short(self.factor)}; {inner}"


@dataclass(frozen=True)
class LowRank:
    """`weight * write * sum over the axis of (read * Y)`: rank one along axis number `axis`, called `over`.

    The weight runs over no axis; both vectors are formulas over the state's own index of that axis. Y is the
    state `before` the decay of its tick, or `after` it; without a decay these are the same, and "before" is
    said.
    """

    axis: int
    over: str
    weight: Node
    write: Node
    read: Node
    reads: When

    @property
    def side(self) -> str:
        """"K" for the first axis of a state, "V" for the second, whatever these are called."""
        return "KV"[self.axis] if self.axis < 2 else f"axis {self.axis}"

    def __str__(self) -> str:
        state = "decayed" if self.reads == "after" else "old"
        return f"{short(self.weight)} x {short(self.write)}, reading {short(self.read)} of the {state} state"


@dataclass(frozen=True)
class Write:
    """One term that does not read the state: `weight * product(vectors)`, one vector for each axis, in order.

    `vectors` is None where the term is no outer product; `weight` is then the whole term.
    """

    weight: Node
    vectors: tuple[Node, ...] | None

    def formula(self) -> Node:
        return ir.product([self.weight, *(self.vectors or ())])

    def __str__(self) -> str:
        return " x ".join(short(n) for n in (self.weight, *(self.vectors or ())) if n is not ONE) or "1"


def _undoes(write: Write, erase: LowRank) -> bool:
    same = write.vectors is not None and write.vectors[erase.axis] is erase.write
    return same and write.weight is ir.neg(erase.weight)


@dataclass(frozen=True)
class Tick:
    """`S = decay * S + low rank + writes`; `keeps` is False where the state itself is not carried over."""

    keeps: bool
    decay: tuple[Decay, ...]
    low_rank: tuple[LowRank, ...]
    writes: tuple[Write, ...]

    @property
    def rewrites_its_key(self) -> bool:
        """Whether what is erased and what is written stand on one vector with one weight, as in a delta rule.

        Then the update is `decay * S + weight * key x (value - read . Y)`: one score matrix less in a chunk.
        """
        if len(self.low_rank) != 1:
            return False
        erase = self.low_rank[0]
        return bool(self.writes) and all(_undoes(w, erase) for w in self.writes)

    def formula(self, before: Node, axes: tuple[Index, ...]) -> Node:
        """The new state, of the old one as a formula over `axes`."""
        after = ir.mul(ir.product(d.factor for d in self.decay), before)
        parts = [after] if self.keeps else []
        for term in self.low_rank:
            seen = ir.mul(term.read, before if term.reads == "before" else after)
            parts.append(ir.product([term.weight, term.write, ir.reduce("sum", axes[term.axis], seen)]))
        return ir.total([*parts, *(w.formula() for w in self.writes)])

    def __str__(self) -> str:
        kept = listing(d.over for d in self.decay) + " decay" if self.decay else "no decay"
        parts = [kept if self.keeps else "keeps nothing"]
        for term in self.low_rank:
            parts.append(f"rank 1 on {term.over}" + (f" ({term.reads} the decay)" if self.decay else ""))
        return ", ".join(parts)


@dataclass(frozen=True)
class Transition:
    """How one literal cell of a state moves on: its ticks in order, over the indices `axes` of the state."""

    state: str
    cell: Cell
    axes: tuple[Index, ...]
    ticks: tuple[Tick, ...]

    @property
    def decay(self) -> tuple[Decay, ...]:
        """The decays of all ticks."""
        return tuple(d for tick in self.ticks for d in tick.decay)

    @property
    def low_rank(self) -> tuple[LowRank, ...]:
        """The low-rank terms of all ticks."""
        return tuple(term for tick in self.ticks for term in tick.low_rank)

    @property
    def writes(self) -> tuple[Write, ...]:
        """The affine terms of all ticks."""
        return tuple(w for tick in self.ticks for w in tick.writes)

    def formula(self) -> Node:
        """The new state as a formula of the old one."""
        node: Node = ir.read(self.state, self.cell, self.axes)
        for tick in self.ticks:
            node = tick.formula(node, self.axes)
        return node

    def __str__(self) -> str:
        if len(self.ticks) == 1:
            return str(self.ticks[0])
        return f"{len(self.ticks)} micro-steps: " + "; ".join(map(str, self.ticks))
