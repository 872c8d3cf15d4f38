"""Formulas as C++ expressions.

In: the values of one `Nest`. Out: their text, and the declarations of what deserves a name: a value that is
used twice, is known before the innermost loop, or is long, and a number that the nest overwrites. It is declared
at the loop where it is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rekern import ir
from rekern.functions import COMPARISONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.loops.program import Nest
from rekern.printers.cpp_memory import Memory
from rekern.printers.cpp_names import Names, identifier, literal, suffix

INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2)}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
ATOM, SIGNED = 9, 3  # how tightly a text holds together, beside the ranks of INFIX
LONG = 70  # characters of an expression that gets a name


class NestText:
    """The lines of one nest: `before[n]` stand in loop n, before loop n + 1; `after[n]` after that loop."""

    def __init__(self, nest: Nest) -> None:
        self.loops = [*nest.outer, nest.lane] if nest.lane is not None else [*nest.outer]
        self.levels = {index: n + 1 for n, index in enumerate(self.loops)}
        self.depth = len(self.loops)
        self.before: list[list[str]] = [[] for _ in range(self.depth + 1)]
        self.after: list[list[str]] = [[] for _ in range(self.depth + 1)]

    def level(self, node: Node) -> int:
        """The loop in which `node` is known; 0 is outside all."""
        return max((self.levels[i] for i in node.free), default=0)


class ValuePrinter:
    """Prints the values of one nest. `stored` gives the temporary that holds a value already."""

    def __init__(
        self, memory: Memory, names: Names, stored: Mapping[Node, str], nest: Nest, text: NestText
    ) -> None:
        self.memory = memory
        self.names = names
        self.stored = stored
        self.lane = nest.lane
        self.text = text
        self.named: dict[Node, str] = {}
        self.held: dict[Node, str] = {}  # rows along the lane that are in registers
        self.overwritten = {s.target for s in nest.statements}
        values = [s.value for s in nest.statements]
        self.uses = Counter(values)
        for node in ir.walk(values):
            self.uses.update(ir.children(node))

    def value(self, node: Node) -> str:
        """The text of `node`, as read in the innermost loop."""
        return self._value(node, self.text.depth)[0]

    def rows_along(self, lane: Index) -> list[Read]:
        """The rows that the nest reads and does not write, those that it reads most often first."""
        found = [n for n in self.uses if isinstance(n, Read) and n.free == {lane}]
        own = [n for n in found if (n.operand, n.component) not in self.overwritten]
        return sorted(own, key=lambda n: -self.uses[n])

    def wide(self, node: Node, text: str) -> str:
        """The text of `node` as a vector."""
        return text if self._is_vector(node) else f"all({text})"

    def _is_vector(self, node: Node) -> bool:
        return self.lane is not None and self.lane in node.free

    def _value(self, node: Node, level: int) -> tuple[str, int]:
        """The text of `node` and its rank, as read in loop `level`."""
        if node in self.named:
            return self.named[node], ATOM
        own = self.text.level(node)
        text, rank = self._expression(node, own)
        is_name = isinstance(node, Number | Size) or (isinstance(node, Read) and not {"[", "("} & set(text))
        old = isinstance(node, Read) and (node.operand, node.component) in self.overwritten
        keep = old or self.uses[node] > 1 or own < level or len(text) > LONG
        if is_name or not keep:
            return text, rank
        name = self.names.fresh(self._local(node))
        self.text.before[own].append(f"const {'vec' if self._is_vector(node) else 'real'} {name} = {text};")
        self.named[node] = name
        return name, ATOM

    def _expression(self, node: Node, own: int) -> tuple[str, int]:
        if node in self.stored and not isinstance(node, Read | Number | Size):
            name = self.stored[node]
            return self.read(ir.read(name, (), self.memory.loops.temporaries[name])), ATOM
        match node:
            case Number():
                return literal(node.value), ATOM
            case Size():
                return f"real(sizes.{node.dim})", ATOM
            case Read():
                return self.read(node), ATOM
            case Apply():
                return self._apply(node, own)
            case Reduce():
                raise AssertionError("reductions have been given arrays")

    def read(self, node: Read) -> str:
        """The text of `node`, where it is in memory or in registers."""
        memory, lane = self.memory, self.lane
        place = (node.operand, node.component)
        role, base = memory.role(node.operand), memory.base(place)
        a_number = role in ("param", "row") or (role == "temporary" and not memory.rows)
        if role == "scalar" or (a_number and not node.indices):
            return base
        offset = memory.offset(place, node.indices)
        if node in self.held:
            return f"{self.held[node]}[{offset} / LANES]"
        if lane is None or lane not in node.free:
            return f"{base}[{offset or '0'}]"
        if memory.layout(node.indices)[-1] == lane:
            return f"load({base} + {offset})"
        return f"gather_rows({base} + {offset}, {memory.far(node.indices, lane)})"

    def _apply(self, node: Apply, own: int) -> tuple[str, int]:
        match node.function:
            case "add" | "sub" | "mul" | "div":
                return self._infix(node, own)
            case "neg":
                text, rank = self._value(node.arguments[0], own)
                return f"-{text}" if rank == ATOM else f"-({text})", SIGNED
            case "where":
                return self._where(node, own)
            case name if name in COMPARISONS:
                one, zero = ("all(1)", "all(0)") if self._is_vector(node) else ("real(1)", "real(0)")
                return f"select({self._condition(node, own)}, {one}, {zero})", ATOM
            case name:
                return f"rk_{name}({', '.join(self._arguments(node, own))})", ATOM

    def _infix(self, node: Apply, own: int) -> tuple[str, int]:
        sign, rank = INFIX[node.function]
        (a, a_rank), (b, b_rank) = (self._value(x, own) for x in node.arguments)
        regroups = node.function == "add" or (node.function == "mul" and "/" not in b)
        left = a if a_rank >= rank else f"({a})"
        right = b if b_rank > rank or (b_rank == rank and regroups) else f"({b})"
        return f"{left} {sign} {right}", rank

    def _where(self, node: Apply, own: int) -> tuple[str, int]:
        test, yes, no = node.arguments
        condition = self._condition(test, own)
        a, b = (self._value(x, own)[0] for x in (yes, no))
        if self._is_vector(node):
            a, b = self.wide(yes, a), self.wide(no, b)
            if not self._is_vector(test):
                return f"({condition} ? {a} : {b})", ATOM
        return f"select({condition}, {a}, {b})", ATOM

    def _condition(self, node: Node, own: int) -> str:
        if not (isinstance(node, Apply) and node.function in COMPARISONS):
            return f"({self._value(node, own)[0]} != real(0))"
        a, b = (self._value(x, own)[0] for x in node.arguments)
        if self._is_vector(node):
            a, b = self.wide(node.arguments[0], a), self.wide(node.arguments[1], b)
        return f"{a} {COMPARE[node.function]} {b}"

    def _arguments(self, node: Apply, own: int) -> list[str]:
        """The arguments of a function call, all of one type."""
        texts = [self._value(x, own)[0] for x in node.arguments]
        if self._is_vector(node):
            return [self.wide(x, text) for x, text in zip(node.arguments, texts, strict=True)]
        if len(texts) == 1:
            return texts
        return [f"real({t})" if isinstance(x, Number) else t for x, t in zip(node.arguments, texts)]

    def _local(self, node: Node) -> str:
        """What a person would call the value of `node`."""
        match node:
            case Read():
                return "_".join([spell(node), "at", *map(suffix, node.indices)])
            case Apply(arguments=(Read() as argument,)):
                return f"{node.function}_{spell(argument)}"
            case Apply() if node.function not in INFIX and node.function not in COMPARISONS:
                return f"{node.function}_value"
            case _:
                return "value"


def spell(node: Read) -> str:
    return identifier((node.operand, node.component))
