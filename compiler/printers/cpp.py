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
from rekern.loops.program import Loops, Place, Statement
from rekern.printers.cpp_memory import Memory
from rekern.printers.cpp_names import TAKEN, Names, identifier, indent, literal
from rekern.printers.cpp_nests import NestPrinter

__all__ = ["Packed", "StepPrinter", "StepText", "identifier", "indent", "literal"]


@dataclass(frozen=True)
class Packed:
    """A weight laid out for a contraction: rows over the summed axis, `transposed` if memory has it last."""

    place: Place
    dims: tuple[str, str]
    transposed: bool

    @property
    def name(self) -> str:
        return identifier(self.place) + ("_turned" if self.transposed else "_packed")

    @property
    def depth(self) -> str:
        return self.dims[1] if self.transposed else self.dims[0]

    @property
    def width(self) -> str:
        return self.dims[0] if self.transposed else self.dims[1]


@dataclass
class StepText:
    """The lines of one step, and what they need around them."""

    lines: list[str] = field(default_factory=list)
    packed: dict[str, Packed] = field(default_factory=dict)
    masks: set[str] = field(default_factory=set)  # axes along which lanes are summed
    copied: set[Place] = field(default_factory=set)  # rows that must lie in working memory


class StepPrinter:
    """Prints the nests of one step. `tile` names the compile-time row length of the lane, if it has one."""

    def __init__(self, loops: Loops, tile: Mapping[str, str]) -> None:
        self.loops = loops
        self.memory = Memory(loops, tile)
        self.text = StepText()
        arrays: list[Place] = [(name, ()) for name in (*loops.program.roles, *loops.temporaries)]
        arrays += [s.target for nest in loops.nests for s in nest.statements]
        values = [v for nest in loops.nests for s in nest.statements for v in s.reads()]
        arrays += [(n.operand, n.component) for n in ir.walk(values) if isinstance(n, Read)]
        self.names = Names({*map(identifier, arrays), *TAKEN})
        self.stored: dict[Node, str] = {}  # value -> temporary that holds it already

    def run(self) -> StepText:
        for nest in self.loops.nests:
            if nest.statements[0].matrix is not None:
                self._contraction(nest.statements[0])
            else:
                printer = NestPrinter(self.memory, self.names, self.stored, nest)
                lines = printer.run()
                if self.memory.rows:
                    lines = ["for (int row = 0; row < rows; ++row) {", *indent(lines), "}"]
                self.text.lines += lines
                self.text.masks |= printer.masks
            for s in nest.statements:
                if s.reduce is None and s.target[0] in self.loops.temporaries:
                    self.stored[s.value] = s.target[0]
        return self.text

    def _contraction(self, s: Statement) -> None:
        """`target[o] = sum_j matrix[o, j] * vector[j]` for all batch rows at once."""
        assert s.matrix is not None and s.vector is not None and s.reduce is not None
        rows, columns = s.matrix.indices
        transposed = columns == s.reduce[1]
        packed = Packed((s.matrix.operand, s.matrix.component), (rows.dim, columns.dim), transposed)
        self.text.packed[packed.name] = packed
        vector = (s.vector.operand, s.vector.component)
        x, x_row = identifier(vector), self.memory.row(packed.depth)
        if self.memory.role(vector[0]) == "row":
            self.text.copied.add(vector)
            x = f"work.{x}"
        elif self.memory.role(vector[0]) == "param":
            x_row = "0"
        width = self.memory.row(packed.width)
        self.text.lines.append(
            f"contract<false>({identifier(s.target)}, {width}, {x}, {x_row}, {packed.name}, {width}, "
            f"rows, dims.{packed.depth}, {width});"
        )
