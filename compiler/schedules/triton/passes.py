"""What a Triton kernel is made for, and what its template gets.

In: sizes and the way of a call. Out: frozen values; `TritonPass` is all that a template of a time loop reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rekern.trace import Cell, Dim

Use = Literal[
    "input", "param", "state_in", "state_out", "output", "recorded", "checkpoint", "scratch", "d_output",
    "d_state_in", "d_state_out", "d_input", "d_param", "vector", "boundaries", "reset", "product", "factor", "entry",
    "summary",
]  # fmt: skip
# Of the schedule scan: a summary says what a segment makes of its entry, a join finds all entries.
PassName = Literal["forward", "recording", "backward", "summary", "backward_summary", "join", "backward_join"]
# Kernels of the host's loop: all steps of what inputs decide, the first step's beginning, a part of a step, its end.
PartName = Literal["whole", "inputs", "begin", "part", "step"]


@dataclass(frozen=True)
class Sizes:
    """What the solver has chosen for one launch.

    Args:
        lengths: Of all named axes.
        columns: Of the lane that a block has; 0 where there is no lane.
        rows: Sequences of a block; 0 where it has one.
        warps: Of a block.
        stages: Steps whose loads are in flight.
        block: Steps between two states that are kept for the gradient.
        segment: Steps of a segment of time, a multiple of `block`; 0: a block walks whole sequences.
    """

    lengths: tuple[tuple[str, int], ...]
    columns: int
    rows: int
    warps: int
    stages: int
    block: int = 16
    segment: int = 0


@dataclass(frozen=True)
class Variant:
    """What changes the text of a kernel beside its sizes.

    Args:
        dtypes: Of the operands and outputs that are not float32, as Triton spells them, by name.
        shared_heads: Operands with fewer heads than the call.
        reset: Whether sequences may restart.
        packed: Whether sequences lie one behind the other, with boundaries.
        reverse: Whether steps are walked from last to first.
        precision: How products of float32 are made.
        aligned: Operands and outputs whose address, and whose strides of batch, time and head, are multiples of 16. It
            is no part of the text: compilers are told of it.
    """

    dtypes: tuple[tuple[str, str], ...] = ()
    shared_heads: frozenset[str] = frozenset()
    reset: bool = False
    packed: bool = False
    reverse: bool = False
    precision: str = "tf32x3"
    aligned: frozenset[str] = frozenset()

    def dtype(self, operand: str) -> str:
        """Of an operand, as Triton spells it."""
        return dict(self.dtypes).get(operand, "fp32")


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel.

    Args:
        kind: "pointer", or a number of the call: "stride", "group" (heads that share one of the operand's), "count",
            "scalar".
        use: Of a pointer or a stride: what is pointed to.
        operand: Whose it is.
        axis: Of a stride: "batch", "time" or "head".
        dtype: As Triton spells it.
    """

    name: str
    kind: Literal["pointer", "stride", "group", "count", "scalar"]
    dtype: str
    use: Use | None = None
    operand: str = ""
    axis: str = ""

    @property
    def array(self) -> tuple[Use, str]:
        """What a pointer points to, or whose stride it is."""
        assert self.use is not None, self.name
        return self.use, self.operand


@dataclass(frozen=True)
class Constant:
    """A number with a name in the text, and why it is what it is."""

    name: str
    value: int
    reason: str


@dataclass(frozen=True)
class Recorded:
    """A value that a pass writes down at every step: `count` numbers from `offset` on in the slot of the step."""

    name: str
    cell: Cell
    dims: tuple[Dim, ...]
    offset: int
    count: int


@dataclass(frozen=True)
class TritonPass:
    """One kernel as its template sees it; all that is text is lines.

    Args:
        parts: Results that column tiles add up: copies are summed after the launch.
        part: Of a step, that the kernel makes; "whole": of all steps, all that there is.
        recorded: What the forward pass keeps at every step (or, in a gradient with blocks, the rows of a scratch).
        shapes: Axes of the tensors of a step, by name.
        crowded: Whether registers are so short that nothing is kept over steps which a step can find again. That is
            where a block with weights, or with a whole matrix as its state, has no loads in flight: more stages were
            found not to fit.
    """

    name: PassName
    spec: str
    sizes: Sizes
    variant: Variant
    rows: bool
    blocks: bool
    constants: tuple[Constant, ...]
    functions: tuple[str, ...]
    arguments: tuple[Argument, ...]
    lines: Mapping[str, tuple[str, ...]]
    recorded: tuple[Recorded, ...] = ()
    parts: frozenset[str] = frozenset()
    column_tiles: int = 1
    slot: int = 0
    part: PartName = "whole"
    shapes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    crowded: bool = False

    @property
    def joins(self) -> bool:
        """Whether its steps are the segments of a sequence."""
        return self.name in ("join", "backward_join")

    @property
    def backward(self) -> bool:
        """Whether it walks from last to first."""
        return self.name in ("backward", "backward_summary", "backward_join")

    @property
    def segmented(self) -> bool:
        """Whether a block has one segment of a sequence."""
        return self.sizes.segment > 0 and not self.joins

    @property
    def entry(self) -> str:
        """The name of the kernel."""
        part = "" if self.part == "whole" else f"_{self.part}"
        return f"{self.name}{part}_{re.sub(r'[^a-zA-Z0-9_]', '_', self.spec)}"

    @property
    def told(self) -> str:
        """Which part of a pass the kernel makes."""
        between = "from the last product of a step to the first of the next"
        return {
            "whole": "all steps",
            "inputs": "what inputs alone decide, of all steps",
            "begin": "up to the first product of the first step",
            "part": "between two products of a step",
            "step": between if self.lines["next_step"] else "a step",
        }[self.part]

    @property
    def signature(self) -> tuple[str, ...]:
        """The arguments as lines: one for pointers to an operand with its strides, which are 64 bits wide."""
        types = {"stride": ": tl.int64", "scalar": ": tl.float32"}
        lines: list[list[str]] = []
        for a in self.arguments:
            text = a.name + types.get(a.kind, "")
            if a.kind == "pointer" or not lines or (lines[-1][0] != a.name[: len(lines[-1][0])]):
                lines.append([text])
            else:
                lines[-1].append(text)
        return tuple(", ".join(line) + "," for line in lines)

    @property
    def hoisting(self) -> str:
        """What the loop over steps says of values that are the same in all of them."""
        return ", disable_licm=True" if self.crowded else ""

    @property
    def walk(self) -> tuple[str, ...]:
        """A step."""
        return self.lines["walk"]

    @property
    def again(self) -> tuple[str, ...]:
        """A step of a block that is run again."""
        return self.lines["again"]

    @property
    def place(self) -> tuple[str, ...]:
        """Where a block begins."""
        return self.lines["place"]
