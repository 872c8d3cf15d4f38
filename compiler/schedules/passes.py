"""What a template sees of one pass (forward, backward, step) over a recurrence on a CPU.

In: nothing. Out: `Pass` and its parts, all frozen: text of the step, the arrays that it works on, and the tensors
that the caller hands over, in order. All decisions are in it; the templates only lay out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rekern.schedules.programs import Keep

Use = Literal[
    "input", "param", "state_in", "state_out", "output",
    "d_output", "d_state_out", "d_state_in", "d_input", "d_param", "d_weight", "vector", "saved",
]  # fmt: skip
PassName = Literal["forward", "recording", "step", "backward"]
AHEAD = 4  # steps from asking for the rows of a step to reading them
MOST_ROWS = 32  # batch rows of one task: more save no reads of the weight, even from the third-level cache


@dataclass(frozen=True)
class Slot:
    """One tensor that the caller hands over: which use of which operand, and the literal cell of it."""

    use: Use
    operand: str
    cell: tuple[int, ...] = ()


@dataclass(frozen=True)
class CpuSizes:
    """What is compiled into a kernel for a CPU.

    tile: numbers in a row of one task along the lane, a multiple of the vector; 0: as long as the call says.
    registers: vector registers of the machine.
    pairs: whether products with weights in bfloat16 are made of pairs, with the other side rounded, where it can.
    """

    real: str
    vector_bytes: int
    tile: int
    registers: int
    pairs: bool = False

    @property
    def lanes(self) -> int:
        """Numbers in a vector."""
        return self.vector_bytes // (4 if self.real == "float" else 8)


@dataclass(frozen=True)
class WorkArray:
    """An array of a task: C++ name, and how many numbers one batch row of it has.

    private: every member of a team has its own.
    """

    name: str
    size: str
    private: bool = False


@dataclass(frozen=True)
class View:
    """A caller's tensor as C++: the name of its view, and what constructs it."""

    name: str
    slot: Slot
    construct: str
    rank: int
    size: str


@dataclass(frozen=True)
class Pointer:
    """A name for a part of working memory, as C++. `turns`: every second step has another part."""

    name: str
    place: str
    turns: bool = False


@dataclass(frozen=True)
class Source:
    """A weight as its caller has it: its slot, and which of its axes runs along the result and along the sum."""

    slot: int
    along: int
    over: int


@dataclass(frozen=True)
class Panels:
    """Weights laid out side by side for one product, `depth` rows of `width` numbers for each."""

    name: str
    depth: str
    width: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Factors:
    """One of several products that share a right side: its slots. `add`: to what the gradient holds already."""

    left: int
    weight: int
    add: bool


@dataclass(frozen=True)
class WeightProducts:
    """Weight gradients with one right side, `dW[o, j] = sum over steps of left[o] * right[j]`, by slots."""

    height: str
    width: str
    right: int
    factors: tuple[Factors, ...]


@dataclass(frozen=True)
class Ahead:
    """Products that do not wait for the state: done at every `call.ahead`-th step, for as many steps.

    wait: has the members of a team wait until all are done with the factors before.
    read: brings in the factors of one sequence and time, as `line`.
    """

    wait: tuple[str, ...]
    read: tuple[str, ...]
    products: tuple[str, ...]


@dataclass(frozen=True)
class Body:
    """The text of one step, and the lines that bring its rows in and out; `fetch` asks for those of later steps.

    first: takes the sums that the step before leaves, where there is none.
    """

    ahead: Ahead | None
    stage: tuple[str, ...]
    lines: tuple[str, ...]
    flush: tuple[str, ...]
    fetch: tuple[str, ...]
    first: tuple[str, ...]


@dataclass(frozen=True)
class Second:
    """The text of two steps together: `stage` brings in the rows of the second one, `flush` takes out those of both."""

    stage: tuple[str, ...]
    lines: tuple[str, ...]
    flush: tuple[str, ...]


@dataclass(frozen=True)
class Pass:
    """Everything that a template of the CPU prints.

    `load` and `store` move what outlives a step (states, or their cotangents and the sums of parameters);
    `reset` is done before a step (after it, in the backward pass) where a sequence restarts. `slot` lists what a
    step hands to its gradient, `again` the step that is run a second time to get it, `slots_read` whether the walk
    backwards reads any of it. `walks` are the axes along which rows are streamed, in the direction in which the steps
    are walked. `team`: several threads may share a task, each with a part of every axis; `turning` are the states that
    it then reads in one of two copies and leaves in the other.
    """

    name: PassName
    title: str
    sizes: CpuSizes
    keep: Keep
    most_rows: int
    axes: tuple[str, ...]
    lane: str | None
    rows: bool
    streamed: bool
    scalars: tuple[str, ...]
    slots: tuple[Slot, ...]
    views: tuple[View, ...]
    work: tuple[WorkArray, ...]
    packed: tuple[Panels, ...]
    masks: tuple[str, ...]
    walks: tuple[str, ...]
    temporaries: tuple[Pointer, ...]
    params: tuple[str, ...]
    slot: tuple[WorkArray, ...]
    states: tuple[WorkArray, ...]
    load: tuple[str, ...]
    reset: tuple[str, ...]
    body: Body
    second: Second | None
    again: Body | None
    restart: tuple[str, ...]
    carried: tuple[str, ...]
    store: tuple[str, ...]
    weights: tuple[WeightProducts, ...] = ()
    slots_read: bool = True
    team: bool = False
    turning: tuple[WorkArray, ...] = ()

    @property
    def ahead(self) -> int:
        """Steps from asking for the rows of a step to reading them."""
        return AHEAD

    @property
    def turns(self) -> bool:
        """Whether a team writes some arrays by turns."""
        return any("dims.turns" in a.size for a in self.work)

    @property
    def leader_only(self) -> bool:
        """Whether there are tensors without an axis, which one member of a team reads and writes."""
        return self.team and any(v.rank == 0 for v in self.views)

    @property
    def active(self) -> tuple[str, ...]:
        """Sets `rows` to the sequences that still run at `step`; they are ordered by length."""
        if not self.rows:
            return ()
        return (
            "rows = count;",
            "while (rows > 0 && call.sequences[first_sequence + rows - 1].steps <= step) --rows;",
        )
