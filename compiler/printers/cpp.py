"""Loop nests as C++ text.

In: `Loops`. Out: the lines of one step, as a person would type them: scalars hoisted to the loop in which
they are known, vectors in the innermost loop, one name for each shared value.

Conventions of the generated code (see templates/cpp): `dims.K` is the length of axis K and `dims.K_row` the
same rounded up to whole vectors; loops run `at_k`; the vector loop steps by LANES; with several batch rows in
hand (`rows`) every array has a leading row axis, run by `row`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rekern import ir
from rekern.ir import Node, Read
from rekern.loops.program import Loops, Nest, Place, Statement, is_early
from rekern.loops.team import Sharing
from rekern.printers.cpp_memory import Beside, Memory
from rekern.printers.cpp_names import TAKEN, Names, identifier, indent, literal, own_part
from rekern.printers.cpp_nests import NestPrinter

WAIT = "team.wait();"

__all__ = ["Packed", "StepPrinter", "StepText", "identifier", "indent", "literal"]


@dataclass(frozen=True)
class Part:
    """One of the weights of a product; `transposed` if memory has the summed axis last."""

    place: Place
    transposed: bool


@dataclass(frozen=True)
class Packed:
    """Weights laid out side by side for one product: panels with a row for each number that is summed over."""

    parts: tuple[Part, ...]
    depth: str
    width: str

    @property
    def weights(self) -> str:
        """The weights in one word: `R_0_to_3`."""
        places = [p.place for p in self.parts]
        first = places[0]
        run = [(first[0], (*first[1][:-1], first[1][-1] + n)) for n in range(len(places))] if first[1] else []
        if len(places) > 1 and places == run:
            return f"{identifier(first)}_to_{places[-1][1][-1]}"
        return "_".join(identifier(p) for p in places)

    @property
    def name(self) -> str:
        turned = {p.transposed for p in self.parts}
        if len(turned) == 1:
            return self.weights + ("_turned" if True in turned else "_packed")
        return "_".join([self.weights, *("turned" if p.transposed else "packed" for p in self.parts)])


@dataclass(frozen=True)
class Early:
    """A product with an input: it is done for the steps of `call.ahead` at once, outside the step.

    text: the product, of `lines` rows. targets: the temporaries that it fills, with the length of one batch row of all
    of them together.
    """

    vector: Place
    text: str
    targets: tuple[str, ...]
    row: str


@dataclass
class StepText:
    """The lines of one step, and what they need around them."""

    lines: list[str] = field(default_factory=list)
    packed: dict[str, Packed] = field(default_factory=dict)
    masks: set[str] = field(default_factory=set)  # axes along which lanes are summed
    row_sums: dict[str, str] = field(default_factory=dict)  # arrays of vectors to be summed, and how many
    copied: set[Place] = field(default_factory=set)  # rows that must lie in working memory
    ahead: set[Place] = field(default_factory=set)  # rows of the caller that are prefetched
    early: list[Early] = field(default_factory=list)  # products that do not wait for the state
    beside: dict[str, Beside] = field(default_factory=dict)  # temporaries that share an array
    walks: set[str] = field(default_factory=set)  # axes along which rows are streamed
    joins_lanes: bool = False  # whether what lies behind a row could get into a sum


class StepPrinter:
    """Prints the nests of one step.

    Args:
        tile: The name of the compile-time row length of the lane, if it has one.
        vectors: How many vectors that is.
        registers: How many the machine has.
        streams: Where rows are streamed, the views that write them, by array; else None.
        early: Whether products with inputs are done outside the step.
        sharing: How a team of threads shares the step, if it can.
    """

    def __init__(
        self,
        loops: Loops,
        tile: Mapping[str, str],
        vectors: int,
        registers: int,
        streams: Mapping[Place, str] | None = None,
        early: bool = False,
        sharing: Sharing | None = None,
    ) -> None:
        self.loops = loops
        self.early = early
        self.sharing = sharing
        self.memory = Memory(loops, tile, vectors, registers, streams, sharing)
        self.text = StepText()
        arrays: list[Place] = [(name, ()) for name in (*loops.program.roles, *loops.temporaries)]
        arrays += [s.target for nest in loops.nests for s in nest.statements]
        values = [v for nest in loops.nests for s in nest.statements for v in s.reads()]
        arrays += [(n.operand, n.component) for n in ir.walk(values) if isinstance(n, Read)]
        self.names = Names({*map(identifier, arrays), *TAKEN})
        for nest in loops.nests:
            if nest.statements[0].matrix is not None and len(nest.statements) > 1:
                self._lay_beside(nest.statements)
        self.text.beside = self.memory.beside
        self.stored: dict[Node, str] = {}  # value -> temporary that holds it already

    def run(self) -> StepText:
        walks: list[str] = []  # of one batch row: what one nest hands to the next stays in the first-level cache
        for n, nest in enumerate(self.loops.nests):
            waits = self.sharing is not None and n in self.sharing.waits
            product = nest.statements[0].matrix is not None
            if waits or product:
                self._each_row(walks)
            if waits:
                self.text.lines.append(WAIT)
            if product:
                self._product(nest.statements)
            else:
                walks += self._walk(nest, self.sharing is None or n in self.sharing.whole)
        self._each_row(walks)
        return self.text

    def _each_row(self, walks: list[str]) -> None:
        """Ends the loops of one batch row."""
        if walks and self.memory.rows:
            self.text.lines += ["for (int row = 0; row < rows; ++row) {", *indent(walks), "}"]
        else:
            self.text.lines += walks
        walks.clear()

    def _walk(self, nest: Nest, whole: bool) -> list[str]:
        """The loops of one nest, for one batch row; `whole`: over all units, whatever is this member's part."""
        printer = NestPrinter(self.memory, self.names, self.stored, nest, whole)
        lines = printer.run()
        self.text.masks |= printer.masks
        self.text.ahead.update(printer.ahead)
        self.text.row_sums |= printer.row_sums
        self.text.walks |= printer.walks
        self.text.joins_lanes |= printer.joins_lanes
        for s in nest.statements:
            if s.reduce is None and s.target[0] in self.loops.temporaries:
                self.stored[s.value] = s.target[0]
        return lines

    def _lay_beside(self, statements: tuple[Statement, ...]) -> None:
        array = self.names.fresh(f"sum_{packing(statements).weights}")
        for n, s in enumerate(statements):
            self.memory.beside[s.target[0]] = Beside(array, n, len(statements))

    def _product(self, statements: tuple[Statement, ...]) -> None:
        """`target[o] = sum_j matrix[o, j] * vector[j]` for all batch rows and several weights at once."""
        (vector,) = {s.vector for s in statements}
        packed = packing(statements)
        assert vector is not None
        self.text.packed[packed.name] = packed
        place = (vector.operand, vector.component)
        x, x_row = identifier(place), self.memory.batch_row(place, vector.indices)
        rows = "rows"
        early = self.early and is_early(self.loops.program, statements[0])
        if self.memory.role(place[0]) == "row":
            if early:
                rows = "lines"
            else:
                self.text.copied.add(place)
            x = f"work.{x}"
        elif self.memory.role(place[0]) == "param":
            x_row = "0"
        first = statements[0].target
        y, y_row = identifier(first), self.memory.batch_row(first, statements[0].axes)
        if early:
            beside = self.memory.beside.get(first[0])
            y = f"work.{beside.array if beside else y}"
        own = "" if self.sharing is None else f", {own_part(packed.width)}"
        text = f"contract({y}, {y_row}, {x}, {x_row}, {packed.name}, {rows}{own});"
        if early:
            self.text.early.append(Early(place, text, tuple(s.target[0] for s in statements), y_row))
        else:
            self.text.lines.append(text)


def packing(statements: tuple[Statement, ...]) -> Packed:
    """How the weights of a product lie in memory."""
    parts = []
    for s in statements:
        assert s.matrix is not None and s.reduce is not None
        depth = s.reduce[1]
        parts.append(Part((s.matrix.operand, s.matrix.component), s.matrix.indices[1] == depth))
    return Packed(tuple(parts), depth.dim, statements[0].axes[0].dim)
