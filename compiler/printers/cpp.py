"""Loop nests as C++ text.

In: `Loops`. Out: the lines of one step, as a person would type them: scalars hoisted to the loop in which they
are known, vectors in the innermost loop, one name for each shared value.

Conventions of the generated code (see templates/cpp): `dims.K` is the length of axis K and `dims.K_row` the same
rounded up to whole vectors; loops run `at_k`; the vector loop steps by LANES; with several batch rows in hand
(`rows`) every array has a leading row axis, run by `row`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rekern import ir
from rekern.functions import COMPARISONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.loops.program import Loops, Nest, Place, Statement

INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2)}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
ATOM, TERNARY = 9, 0
CXX_WORDS = frozenset(
    [
        "alignas",
        "alignof",
        "and",
        "asm",
        "auto",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "class",
        "const",
        "continue",
        "default",
        "delete",
        "do",
        "double",
        "else",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "mutable",
        "namespace",
        "new",
        "not",
        "operator",
        "or",
        "private",
        "protected",
        "public",
        "register",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "true",
        "try",
        "typedef",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
        "xor",
        "real",
        "vec",
        "ivec",
        "load",
        "store",
        "all",
        "select",
        "first",
        "fill",
        "contract",
        "dims",
        "sizes",
        "call",
        "work",
        "row",
        "rows",
        "batch",
        "time",
        "unit",
        "head",
        "part",
        "tile",
        "group",
        "arena",
        "sequence",
        "step",
        "steps",
        "block",
        "slot",
        "next",
        "first_column",
        "first_columns",
        "reverse",
        "LANES",
        "ROWS",
        "BLOCK",
        "INFINITE",
        "packed",
        "count",
        "stream",
        "element",
        "padded",
    ]
)


def identifier(place: Place) -> str:
    """The C++ name of an array: `x_2` for cell 2 of x."""
    name = re.sub(r"\W", "_", "_".join([place[0], *map(str, place[1])]))
    return name + "_" if name in CXX_WORDS or name.startswith("at_") else name


@dataclass(frozen=True)
class Packed:
    """A weight laid out for a contraction: rows run over the summed axis, `transposed` if memory has it last."""

    place: Place
    dims: tuple[str, str]
    transposed: bool

    @property
    def name(self) -> str:
        return identifier(self.place) + ("_t" if self.transposed else "_n")

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
        self.program = loops.program
        self.tile = tile
        self.text = StepText()
        arrays = {a.target for a in loops.program.assigns} | {
            (n, ()) for n in [*loops.program.roles, *loops.temporaries]
        }
        self.names = {identifier(place) for place in arrays}
        self.stored: dict[Node, str] = {}  # value -> temporary that holds it already

    def run(self) -> StepText:
        for nest in self.loops.nests:
            if nest.statements[0].matrix is not None:
                self._contraction(nest.statements[0])
            else:
                lines = NestPrinter(self, nest).run()
                if self.program.rows:
                    lines = ["for (int row = 0; row < rows; ++row) {", *indent(lines), "}"]
                self.text.lines += lines
            for s in nest.statements:
                if s.reduce is None and s.target[0] in self.loops.temporaries:
                    self.stored[s.value] = s.target[0]
        return self.text

    # -- memory

    def row(self, dim: str) -> str:
        """The padded length of a row along `dim`."""
        return self.tile.get(dim, f"dims.{dim}_row")

    def layout(self, place: Place, indices: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(sorted(indices, key=lambda i: i.dim == self.program.lane))

    def size(self, dims: tuple[str, ...]) -> str:
        """Elements of one array with these axes in memory order."""
        return " * ".join([*(f"dims.{d}" for d in dims[:-1]), self.row(dims[-1])]) if dims else "1"

    def role(self, name: str) -> str:
        return "temporary" if name in self.loops.temporaries else self.program.roles[name]

    def base(self, place: Place) -> str:
        """The pointer to an array, of batch row `row` where there are several."""
        name = identifier(place)
        if not self.program.rows or self.role(place[0]) in ("param", "scalar"):
            return name
        return f"{name}[row]" if self.role(place[0]) in ("row", "result") else name

    def offset(self, place: Place, indices: tuple[Index, ...]) -> str:
        """Where an element is, in numbers from the base."""
        order = self.layout(place, indices)
        text = ""
        for n, index in enumerate(order):
            last = n == len(order) - 1
            here = f"at_{loop_name(index)}"
            length = self.row(index.dim) if last else f"dims.{index.dim}"
            text = f"{_factor(text)} * {length} + {here}" if text else here
        if self.program.rows and self.role(place[0]) in ("state", "temporary"):
            stride = self.size(tuple(i.dim for i in order))
            return f"row * {stride} + {text}" if text else "row"
        return text

    def _contraction(self, s: Statement) -> None:
        assert s.matrix is not None and s.vector is not None and s.reduce is not None
        bound = s.reduce[1]
        transposed = s.matrix.indices[1] == bound
        packed = Packed(
            (s.matrix.operand, s.matrix.component),
            (s.matrix.indices[0].dim, s.matrix.indices[1].dim),
            transposed,
        )
        self.text.packed[packed.name] = packed
        vector = (s.vector.operand, s.vector.component)
        x, x_row = identifier(vector), self.row(bound.dim)
        if self.role(vector[0]) == "row":
            self.text.copied.add(vector)
            x = f"work.{x}"
        elif self.role(vector[0]) == "param":
            x_row = "0"
        target = identifier(s.target)
        self.text.lines.append(
            f"contract<false>({target}, {self.row(packed.width)}, {x}, {x_row}, {packed.name}, "
            f"{self.row(packed.width)}, rows, dims.{packed.depth}, {self.row(packed.width)});"
        )


class NestPrinter:
    """Prints one nest: declarations before each loop, values at the loop where they are known, stores last."""

    def __init__(self, step: StepPrinter, nest: Nest) -> None:
        self.step = step
        self.nest = nest
        self.levels = {index: n + 1 for n, index in enumerate(nest.outer)}
        self.depth = len(nest.outer)
        if nest.lane is not None:
            self.depth += 1
            self.levels[nest.lane] = self.depth
        self.before: list[list[str]] = [[] for _ in range(self.depth + 1)]  # at level n, before loop n + 1
        self.after: list[list[str]] = [[] for _ in range(self.depth + 1)]  # at level n, after loop n + 1
        self.cache: dict[Node, str] = {}
        self.uses = Counter[Node]()
        for node in ir.walk([s.value for s in nest.statements]):
            self.uses.update(ir.children(node))
        self.uses.update(s.value for s in nest.statements)

    def run(self) -> list[str]:
        values = [self._value(s.value, self.depth)[0] for s in self.nest.statements]
        for s, value in zip(self.nest.statements, values, strict=True):
            if s.reduce is None:
                self._store(s, value)
            else:
                self._join(s, value)
        lines = self.before[self.depth] + self.after[self.depth]
        for level in range(self.depth, 0, -1):
            loop = self._loop(level)
            lines = [*self.before[level - 1], loop, *indent(lines), "}", *self.after[level - 1]]
        return lines

    def _loop(self, level: int) -> str:
        index = next(i for i, n in self.levels.items() if n == level)
        at = f"at_{loop_name(index)}"
        if index == self.nest.lane:
            return f"for (int64_t {at} = 0; {at} < {self.step.row(index.dim)}; {at} += LANES) {{"
        return f"for (int64_t {at} = 0; {at} < dims.{index.dim}; ++{at}) {{"

    # -- stores

    def _store(self, s: Statement, value: str) -> None:
        body = self.after[self.depth]
        base, offset = self.step.base(s.target), self.step.offset(s.target, s.axes)
        if self.nest.lane is None:
            if s.target[0] in self.step.loops.temporaries and not self.step.program.rows:
                body.append(f"const real {base} = {value};")
            else:
                body.append(f"{base}[{offset or '0'}] {'+=' if s.add else '='} {value};")
            return
        wide = self._wide(s.value, value)
        place = f"{base} + {offset}"
        if self.step.layout(s.target, s.axes)[-1] == self.nest.lane:
            old = f"load({place}) + " if s.add else ""
            body.append(f"store({place}, {old}{wide});")
        else:
            body.append(f"scatter_rows({place}, {self._far(s.target, s.axes)}, {wide});")

    def _join(self, s: Statement, value: str) -> None:
        """Add `value` to the result of a reduction."""
        assert s.reduce is not None and self.nest.lane is not None
        operation, bound = s.reduce
        is_sum = operation == "sum"
        start = "all(0)" if is_sum else "all(-INFINITE)"
        base, offset = self.step.base(s.target), self.step.offset(s.target, s.axes)
        rank0 = not s.axes and not self.step.program.rows
        wide = self._wide(s.value, value)
        if bound == self.nest.lane:
            total = self._name(identifier(s.target) + "_lanes")
            mask = f"load_mask(mask_{bound.dim} + at_{loop_name(bound)})"
            self.step.text.masks.add(bound.dim)
            self.before[self.depth - 1].append(f"vec {total} = {start};")
            kept = f"select({mask}, {wide}, {start})"
            self.after[self.depth].append(
                f"{total} += {kept};" if is_sum else f"{total} = rk_maximum({total}, {kept});"
            )
            joined = f"{'sum' if is_sum else 'max'}_lanes({total})"
            self.after[self.depth - 1].append(
                f"const real {base} = {joined};" if rank0 else f"{base}[{offset or '0'}] = {joined};"
            )
            return
        level = self.levels[bound]
        lane = self.nest.lane
        row = self.step.row(lane.dim)
        if level == self.depth - 1 and lane.dim in self.step.tile and lane in s.axes:
            total = self._name(identifier(s.target) + "_sum" if is_sum else identifier(s.target) + "_max")
            here = f"{total}[at_{loop_name(lane)} / LANES]"
            self.before[level - 1].append(f"vec {total}[{row} / LANES];")
            self.before[level - 1].append(f"for (vec& lane : {total}) lane = {start};")
            self.after[self.depth].append(
                f"{here} += {wide};" if is_sum else f"{here} = rk_maximum({here}, {wide});"
            )
            self.after[level - 1].append(
                f"for (int64_t at_{loop_name(lane)} = 0; at_{loop_name(lane)} < {row}; at_{loop_name(lane)} += LANES) "
                f"store({base} + {offset}, {here});"
            )
            return
        place = f"{base} + {offset}"
        if level == self.depth - 1:
            first = re.sub(rf"\bat_{loop_name(lane)}\b", "0", offset)
            self.before[level - 1].append(f"fill({base} + {first}, {row}, {start.removeprefix('all')});")
        else:
            size = self.step.size(tuple(i.dim for i in self.step.layout(s.target, s.axes)))
            self.before[0].append(
                f"fill({base}{f' + row * {size}' if self.step.program.rows else ''}, {size}, {start.removeprefix('all')});"
            )
        joined = f"load({place}) + {wide}" if is_sum else f"rk_maximum(load({place}), {wide})"
        self.after[self.depth].append(f"store({place}, {joined});")

    # -- values

    def _depth(self, node: Node) -> int:
        return max((self.levels[i] for i in node.free), default=0)

    def _is_vector(self, node: Node) -> bool:
        return self.nest.lane is not None and self.nest.lane in node.free

    def _wide(self, node: Node, text: str) -> str:
        """`text` as a vector."""
        return text if self._is_vector(node) else f"all({text})"

    def _value(self, node: Node, depth: int) -> tuple[str, int]:
        """The text of `node` and its precedence, as read in a loop of level `depth`."""
        if node in self.cache:
            return self.cache[node], ATOM
        own = self._depth(node)
        text, rank = self._text(node, own)
        leaf = isinstance(node, Number | Size) or (
            isinstance(node, Read) and rank == ATOM and "[" not in text and "(" not in text
        )
        keep = self.uses[node] > 1 or own < depth or len(text) > 70
        if leaf or not keep:
            return text, rank
        name = self._name(self._local(node))
        self.before[own].append(f"const {'vec' if self._is_vector(node) else 'real'} {name} = {text};")
        self.cache[node] = name
        return name, ATOM

    def _text(self, node: Node, own: int) -> tuple[str, int]:
        if node in self.step.stored and not isinstance(node, Read | Number | Size):
            axes = self.step.loops.temporaries[self.step.stored[node]]
            return self._text(ir.read(self.step.stored[node], (), axes), own)
        match node:
            case Number():
                return literal(node.value), ATOM
            case Size():
                return f"real(sizes.{node.dim})", ATOM
            case Read():
                return self._read(node), ATOM
            case Apply():
                return self._apply(node, own)
            case Reduce():
                raise AssertionError("reductions have been given arrays")

    def _read(self, node: Read) -> str:
        place = (node.operand, node.component)
        role = self.step.role(node.operand)
        base = self.step.base(place)
        if role == "scalar":
            return base
        if not node.indices and (
            role in ("param", "row") or (role == "temporary" and not self.step.program.rows)
        ):
            return base
        offset = self.step.offset(place, node.indices)
        lane = self.nest.lane
        if lane is None or lane not in node.free:
            return f"{base}[{offset or '0'}]"
        if self.step.layout(place, node.indices)[-1] == lane:
            return f"load({base} + {offset})"
        return f"gather_rows({base} + {offset}, {self._far(place, node.indices)})"

    def _far(self, place: Place, indices: tuple[Index, ...]) -> str:
        """For an array in which the vector axis is not the dense one: the distance of neighbours, and how many."""
        lane = self.nest.lane
        assert lane is not None
        order = self.step.layout(place, indices)
        after = self.step.size(tuple(i.dim for i in order[order.index(lane) + 1 :]))
        return f"{after}, dims.{lane.dim} - at_{loop_name(lane)}"

    def _apply(self, node: Apply, own: int) -> tuple[str, int]:
        name, arguments = node.function, node.arguments
        vector = self._is_vector(node)
        if name in INFIX:
            sign, rank = INFIX[name]
            (a, a_rank), (b, b_rank) = (self._value(x, own) for x in arguments)
            left = a if a_rank >= rank else f"({a})"
            right = b if b_rank > rank or (b_rank == rank and name == "add") else f"({b})"
            if name == "mul" and b_rank == rank and "/" not in b:
                right = b
            return f"{left} {sign} {right}", rank
        if name == "neg":
            a, rank = self._value(arguments[0], own)
            return f"-{a}" if rank == ATOM else f"-({a})", 3
        if name in COMPARISONS:
            one, zero = ("all(1)", "all(0)") if vector else ("real(1)", "real(0)")
            return f"select({self._condition(node, own)}, {one}, {zero})", ATOM
        if name == "where":
            condition = self._condition(arguments[0], own)
            a, b = (self._value(x, own)[0] for x in arguments[1:])
            if vector:
                a, b = self._wide(arguments[1], a), self._wide(arguments[2], b)
            if vector and not self._is_vector(arguments[0]):
                return f"{condition} ? {a} : {b}", TERNARY
            return f"select({condition}, {a}, {b})", ATOM
        texts = [self._value(x, own)[0] for x in arguments]
        if vector:
            texts = [self._wide(x, text) for x, text in zip(arguments, texts, strict=True)]
        elif len(texts) > 1:
            texts = [
                f"real({t})" if isinstance(x, Number) else t for x, t in zip(arguments, texts, strict=True)
            ]
        return f"rk_{name}({', '.join(texts)})", ATOM

    def _condition(self, node: Node, own: int) -> str:
        if not (isinstance(node, Apply) and node.function in COMPARISONS):
            return f"({self._value(node, own)[0]} != real(0))"
        (a, a_rank), (b, b_rank) = (self._value(x, own) for x in node.arguments)
        a, b = (t if rank > TERNARY else f"({t})" for t, rank in ((a, a_rank), (b, b_rank)))
        if self._is_vector(node):
            a, b = self._wide(node.arguments[0], a), self._wide(node.arguments[1], b)
        return f"{a} {COMPARE[node.function]} {b}"

    # -- names

    def _name(self, base: str) -> str:
        names = self.step.names
        name, count = base, 2
        while name in names:
            name, count = f"{base}_{count}", count + 1
        names.add(name)
        return name

    def _local(self, node: Node) -> str:
        if isinstance(node, Read):
            return f"{identifier((node.operand, node.component))}_at" + "".join(
                f"_{loop_name(i)}" for i in node.indices
            )
        if isinstance(node, Apply) and len(node.arguments) == 1 and isinstance(node.arguments[0], Read):
            return f"{node.function}_{identifier((node.arguments[0].operand, node.arguments[0].component))}"
        if isinstance(node, Apply) and node.function not in INFIX and node.function not in COMPARISONS:
            return f"{node.function}_value"
        return "value"


def loop_name(index: Index) -> str:
    return index.dim.lower() + (str(index.number + 1) if index.number else "")


def literal(value: float) -> str:
    """A number as C++ of the working precision."""
    if math.isnan(value):
        return "NOT_A_NUMBER"
    if math.isinf(value):
        return "INFINITE" if value > 0 else "-INFINITE"
    return f"real({int(value)})" if value == int(value) and abs(value) < 1e6 else f"real({value!r})"


def _factor(text: str) -> str:
    return f"({text})" if " + " in text else text


def indent(lines: list[str], by: int = 1) -> list[str]:
    return ["    " * by + line if line else line for line in lines]
