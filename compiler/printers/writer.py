"""Formulas to text for people: what plain text and LaTeX have in common, which is where brackets are needed.

In: a line of a `Layout`. Out: its text; a final class says how symbols, sums and functions look.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple, assert_never

from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.printers.layout import Label, Layout
from rekern.trace import Cell, Dim

if TYPE_CHECKING:
    from rekern.spec import Operand

# How tightly things bind. A sum swallows the factors on its right.
COMPARISON, TERM, SUM, FACTOR, POWER, ATOM = range(6)
BINDS = {"add": TERM, "sub": TERM, "mul": FACTOR, "div": FACTOR}

Scope = Mapping[Index, Index]  # a running index -> how it is written here


class Written(NamedTuple):
    text: str
    binds: int


class Writer(ABC):
    """Writes the formulas of one line; `letter` stands for the line's own cell, if it has one."""

    signs: ClassVar[Mapping[str, str]]  # between the arguments of functions that are written so

    def __init__(
        self,
        operands: Iterable[Operand] = (),
        layout: Layout | None = None,
        line: Label | None = None,
        letter: str = "",
    ) -> None:
        self.operands = {o.name: o for o in operands}
        self.layout = layout
        self.line = line
        self.letter = letter

    @abstractmethod
    def symbol(self, name: str, previous: bool, where: list[str]) -> str:
        """`name` at the subscripts `where`; `previous`: as it was before the step."""

    @abstractmethod
    def number(self, value: float) -> str: ...

    @abstractmethod
    def reduction(self, operation: str, index: Index) -> str:
        """What stands before the body."""

    @abstractmethod
    def call(self, function: str, arguments: list[str]) -> str:
        """A function that is not written with a sign."""

    @abstractmethod
    def enclosed(self, text: str) -> str: ...

    @abstractmethod
    def squared(self, base: str) -> str: ...

    def sides(self) -> tuple[str, str]:
        """The left and the right of the line's equation."""
        assert self.line is not None
        scope = {i: i for i in self.line.axes}
        left = self._at(self.line.name, False, self.line.dims, self.line.cell, self.line.axes)
        return left, self.write(self.line.node, scope).text

    def write(self, node: Node, scope: Scope) -> Written:
        """`node` where the indices of `scope` run."""
        if self.layout and (named := self.layout.find(node, self.line)):
            label, indices = named
            here = [scope[i] for i in indices]
            return Written(self._at(label.name, False, label.dims, label.cell, here), ATOM)
        match node:
            case Number():
                return Written(self.number(node.value), ATOM if node.value >= 0 else TERM)
            case Size():
                return Written(self.symbol(node.dim, False, []), ATOM)
            case Read():
                declared = self.operands.get(node.operand)
                dims: tuple[Dim, ...] = (*node.component, *(i.dim for i in node.indices))
                dims = declared.dims if declared else dims
                previous = declared is not None and declared.kind == "state"
                here = [scope[i] for i in node.indices]
                return Written(self._at(node.operand, previous, dims, node.component, here), ATOM)
            case Reduce():
                taken = set(scope.values())  # no index is hidden by another of the same name
                choices = (Index(node.index.dim, n) for n in range(len(taken) + 1))
                index = next(i for i in choices if i not in taken)
                body = self.write(node.body, {**scope, node.index: index})
                return Written(f"{self.reduction(node.operation, index)} {self._fit(body, SUM)}", SUM)
            case Apply():
                return self._apply(node.function, [self.write(a, scope) for a in node.arguments])
            case _:
                assert_never(node)

    def _apply(self, function: str, arguments: list[Written]) -> Written:
        a, b = arguments[0], arguments[-1]
        if function == "neg":
            return Written(f"-{self._fit(a, SUM)}", TERM)
        if function == "square":
            return Written(self.squared(self._fit(a, ATOM)), POWER)
        if function not in self.signs:
            text = self.call(function, [argument.text for argument in arguments])
            return Written(text, BINDS.get(function, ATOM))
        binds = BINDS.get(function, COMPARISON)
        associative = function in ("add", "mul")  # but a - (b - c) is not a - b - c
        right = self._fit(b, SUM if function == "mul" else binds if associative else binds + 1)
        if right.startswith("-"):
            right = self.enclosed(right)
        text = self._fit(a, binds + (binds == COMPARISON)) + self.signs[function] + right
        return Written(text, SUM if function == "mul" and b.binds == SUM else binds)

    def _fit(self, part: Written, binds: int) -> str:
        return part.text if part.binds >= binds else self.enclosed(part.text)

    def _at(
        self, name: str, previous: bool, dims: Iterable[Dim], cell: Cell, indices: Iterable[Index]
    ) -> str:
        own = bool(self.letter) and self.line is not None and cell == self.line.cell
        literal, running = iter(cell), iter(indices)
        where = []
        for dim in dims:
            if isinstance(dim, int):
                position = next(literal)
                where.append(self.letter if own else str(position))
            else:
                where.append(str(next(running)))
        return self.symbol(name, previous, where)
