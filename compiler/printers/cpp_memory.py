"""Where the arrays of one step are in memory, as C++.

In: `Loops`. Out: base pointers, offsets and sizes. An array lies with the lane as its last axis, rows rounded
up to whole vectors; with several batch rows in hand it has a leading row axis, run by `row`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rekern.ir import Index
from rekern.loops.program import Loops, Place
from rekern.loops.team import Sharing
from rekern.printers.cpp_names import identifier, loop_variable


@dataclass(frozen=True)
class Beside:
    """The place of a temporary among `count` of one shape that lie side by side in every batch row of `array`."""

    array: str
    position: int
    count: int


class Memory:
    """The arrays of one step; `tile`, `vectors`, `registers`, `streams` and `sharing` as in `StepPrinter`."""

    def __init__(
        self,
        loops: Loops,
        tile: Mapping[str, str],
        vectors: int,
        registers: int,
        streams: Mapping[Place, str] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.loops = loops
        self.tile = tile
        self.vectors = vectors
        self.registers = registers
        self.streams = streams
        self.sharing = sharing
        self.lane = loops.program.lane
        self.rows = loops.program.rows
        self.beside: dict[str, Beside] = {}

    def role(self, name: str) -> str:
        return "temporary" if name in self.loops.temporaries else self.loops.program.roles[name]

    def layout(self, indices: tuple[Index, ...]) -> tuple[Index, ...]:
        """The indices of an array in the order in which it lies."""
        return tuple(sorted(indices, key=lambda i: i.dim == self.lane))

    def row(self, dim: str) -> str:
        """The padded length of a row along `dim`."""
        return self.tile.get(dim, f"dims.{dim}_row")

    def size(self, order: tuple[Index, ...]) -> str:
        """Numbers in one array that lies in this order."""
        if not order:
            return "1"
        return " * ".join([*(f"dims.{i.dim}" for i in order[:-1]), self.row(order[-1].dim)])

    def base(self, place: Place) -> str:
        """The pointer to an array, of batch row `row` where there are several."""
        by_row = self.rows and self.role(place[0]) in ("row", "result")
        return f"{identifier(place)}[row]" if by_row else identifier(place)

    def target(self, place: Place) -> str:
        """The pointer to an array as a nest writes it: of a state with two copies, the one for the next step."""
        turns = self.sharing is not None and place in self.sharing.turning and self.role(place[0]) == "state"
        return f"next_{identifier(place)}" if turns else self.base(place)

    def offset(self, place: Place, indices: tuple[Index, ...]) -> str:
        """Where an element is, in numbers from the base; '' for the first."""
        order = self.layout(indices)
        text = ""
        for index in order:
            here = loop_variable(index)
            length = self.row(index.dim) if index == order[-1] else f"dims.{index.dim}"
            whole = f"({text})" if " + " in text else text
            text = f"{whole} * {length} + {here}" if text else here
        if self.rows and self.role(place[0]) in ("state", "temporary"):
            return f"row * {self.batch_row(place, order)} + {text}" if text else "row"
        return text

    def batch_row(self, place: Place, order: tuple[Index, ...]) -> str:
        """The distance from one batch row of an array to the next."""
        beside = self.beside.get(place[0])
        return self.size(order) if beside is None else f"{beside.count} * {self.size(order)}"

    def far(self, indices: tuple[Index, ...], lane: Index) -> str:
        """Where `lane` is not the dense axis: the distance of neighbours along it, and how many there are."""
        order = self.layout(indices)
        after = self.size(order[order.index(lane) + 1 :])
        return f"{after}, dims.{lane.dim} - {loop_variable(lane)}"
