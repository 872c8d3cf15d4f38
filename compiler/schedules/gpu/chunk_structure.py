"""What a chunk of a matrix state consists of, from the analysis: how many products of which kind.

In: a `Call`. Out: its `Structure`, or why no chunk form exists. The identities are those of Yang et al. 2024
(arXiv:2312.06635, arXiv:2412.06464) and Peng et al. 2025 (arXiv:2503.14456), written as ticks
`S = decay * S + b (a . S) + k v'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rekern.analysis.kinds import Affine, MaxPlus
from rekern.analysis.logs import Reason
from rekern.analysis.transition import Decay, Transition
from rekern.schedules.gpu import work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.rates import has_matrix

DecayAlong = Literal["nothing", "scalar", "rows", "columns"]
Erase = Literal["nothing", "its key", "another key"]


@dataclass(frozen=True)
class Products:
    """Matrix products per pair of blocks of a chunk, and per token with the state.

    Args:
        over_rows: Of a pair of blocks, contracted over or producing rows of the state (its K side).
        over_columns: The same for columns (its V side).
        with_state: Between the vectors of a token and a whole state, 2 * rows * columns operations each.
    """

    over_rows: int
    over_columns: int
    with_state: int


# Counted from the identities; forward: scores, outputs, read and update. "its key": erase and write share a
# vector (delta rule), so v is replaced by T (beta v - ...): one more score matrix, T v, and one read.
FORWARD = {
    "nothing": Products(1, 1, 2),
    "its key": Products(2, 2, 3),
    "another key": Products(4, 4, 4),
}
BACKWARD = {
    "nothing": Products(3, 2, 3),
    "its key": Products(6, 4, 5),
    "another key": Products(12, 8, 6),
}


@dataclass(frozen=True)
class Structure:
    """A chunk of one head.

    Args:
        rows: Of all matrix states, one below the other; contracted by keys and queries.
        columns: Of each, with one more for states without the lane (a normaliser).
        decay: What a decay runs along.
        erase: Whether a step reads the state before it writes.
        ticks: Updates in one step of time.
    """

    rows: int
    columns: int
    decay: DecayAlong
    erase: Erase
    ticks: int

    @property
    def forward(self) -> Products:
        """Products of the forward pass."""
        return FORWARD[self.erase]

    @property
    def backward(self) -> Products:
        """Products of the gradient, without the states that it computes again."""
        return BACKWARD[self.erase]

    def __str__(self) -> str:
        return (
            f"{self.rows} x {self.columns}, decay along {self.decay}, erases {self.erase}, "
            f"{self.ticks} {'tick' if self.ticks == 1 else 'ticks'} a step"
        )


@lru_cache(maxsize=256)
def structure(call: Call) -> Structure | Reason:
    """The chunk of `call`, or why it has none."""
    moves: list[Transition] = []
    for stage in call.facts.stages:
        kind = stage.kind
        if isinstance(kind, MaxPlus):
            continue
        if not isinstance(kind, Affine):
            return Reason(f"{', '.join(stage.stage.states)} is {kind}")
        moves += kind.transitions
    if all(len(t.axes) < 2 for t in moves):
        return Reason("no state is a matrix; see scan and time_loop")
    if not has_matrix(call.gpu, call.dtype):
        return Reason(f"{call.gpu.architecture} has no matrix products of {call.dtype}")
    state = work.state(call)
    if state.lane is None:
        return Reason("no axis of the state is independent of the others")
    along: DecayAlong = "nothing"
    for move in moves:
        for decay in move.decay:
            found = _along(decay, move, state.lane)
            if isinstance(found, Reason):
                return found
            along = _wider(along, found)
        if any(w.vectors is None for tick in move.ticks for w in tick.writes if len(move.axes) > 1):
            return Reason(f"{move.state} is written by something that is no outer product")
    ticks = max(len(t.ticks) for t in moves)
    extra = 1 if state.whole_rows else 0
    return Structure(state.column_rows, state.columns + extra, along, _erase(moves), ticks)


def _along(decay: Decay, move: Transition, lane: str) -> DecayAlong | Reason:
    if isinstance(decay.log, Reason):
        return Reason(f"the decay of {move.state} has no logarithm: {decay.log}")
    if not decay.shrinks:
        return Reason(f"the decay of {move.state} may exceed 1; if it does not, declare at_most")
    if len(move.axes) > 1 and len(decay.axes) == len(move.axes):
        return Reason(f"every number of {move.state} has a decay of its own")
    if not decay.axes or len(move.axes) < 2:
        return "scalar" if not decay.axes else "rows"
    return "columns" if move.axes[decay.axes[0]].dim == lane else "rows"


def _wider(one: DecayAlong, other: DecayAlong) -> DecayAlong:
    order: tuple[DecayAlong, ...] = ("nothing", "scalar", "columns", "rows")
    return max(one, other, key=order.index)


def _erase(moves: list[Transition]) -> Erase:
    ticks = [tick for move in moves for tick in move.ticks if tick.low_rank]
    if not ticks:
        return "nothing"
    return "its key" if all(tick.rewrites_its_key for tick in ticks) else "another key"
