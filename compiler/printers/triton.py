"""The formulas of one step as lines of Triton.

In: the assignments of a `Program`, and how its arrays lie. Out: `StepText`: lines that compute, and for each target the
expression that holds its new value. A value is a tensor with one axis for every index of its formula, in one order for
all; where several sequences share a weight, they are the first axis of all that depends on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from rekern import ir
from rekern.functions import COMPARISONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.loops.lower import label, regroup
from rekern.loops.program import Assign, Place, Role
from rekern.printers.triton_names import Names

INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2)}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
BUILT_IN = {"exp": "tl.exp", "log": "tl.log", "sqrt": "tl.sqrt", "abs": "tl.abs", "sin": "tl.sin", "cos": "tl.cos",
            "erf": "tl.erf", "rsqrt": "tl.rsqrt"}  # fmt: skip
ATOM, SIGNED, COMPARED = 9, 3, 0  # how tightly a text holds together, beside the ranks of INFIX
LONG = 60  # characters of an expression that gets a name
ROWS = "rows"  # the axis of sequences


@dataclass(frozen=True)
class Held:
    """How the arrays of a kernel are held.

    Args:
        roles: What each array is, by name.
        axes: Named axes in the order of tensors, the one that blocks share out last.
        padded: Axes whose tensors are longer than they are; there is a mask `in_<axis>` for each.
        lengths: Of the axes.
        rows: Whether a block has several sequences.
        precision: How products of float32 are made ("tf32x3", "ieee").
    """

    roles: Mapping[str, Role]
    axes: tuple[str, ...]
    padded: frozenset[str]
    lengths: Mapping[str, int]
    rows: bool
    precision: str

    def of_sequence(self, node: Node) -> bool:
        """Whether a value differs between sequences of a block."""
        reads = (n for n in ir.walk([node]) if isinstance(n, Read))
        return self.rows and any(self.roles[n.operand] not in ("param", "scalar") for n in reads)

    def product(self, node: Node) -> tuple[Read, Node] | None:
        """`sum_j W[o, j] x[j]` with a matrix parameter W and x of each sequence: W and x; None: it is none.

        As a tensor, x is the same whatever its index is called, so it gets the name of an axis that occurs once: what
        a product and a result both read is computed once.
        """
        if not self.rows or not isinstance(node, Reduce) or node.operation != "sum":
            return None
        parts = ir.factors(node.body)
        weights = [p for p in parts if isinstance(p, Read) and self.roles[p.operand] == "param" and len(p.indices) == 2]
        if len(weights) != 1 or weights[0].free != node.body.free:
            return None
        vector = ir.product(p for p in parts if p is not weights[0])
        if vector.free != {node.index} or not self.of_sequence(vector):
            return None
        return weights[0], ir.rename(vector, {node.index: Index(node.index.dim)})

    def children(self, node: Node) -> Sequence[Node]:
        """What a node is computed from: a product of matrices does not read its matrix as a tensor of the step."""
        found = self.product(node)
        return ir.children(node) if found is None else found[1:]

    def order(self, free: Iterable[Index]) -> tuple[Index, ...]:
        """Indices in the order of a tensor's axes."""
        return tuple(sorted(free, key=lambda i: (self.axes.index(i.dim), i.number)))


@dataclass(frozen=True)
class StepText:
    """What one pass over a step prints.

    Args:
        lines: In order; they read the names of `Names.of`.
        values: The text of every target's new value.
        value_axes: The axes of that tensor.
        weights: Matrices that are multiplied with, and whether their second axis is summed over.
        functions: Names of functions that have to be defined.
        axes: Of the tensors that lines define or read, by name.
    """

    lines: tuple[str, ...]
    values: Mapping[Place, str]
    value_axes: Mapping[Place, tuple[Index | str, ...]]
    weights: tuple[tuple[Place, bool], ...]
    functions: frozenset[str]
    axes: Mapping[str, tuple[Index | str, ...]]


class StepPrinter:
    """Prints the assignments of one step."""

    def __init__(self, held: Held, names: Names) -> None:
        self.held = held
        self.names = names
        self.weights: dict[tuple[Place, bool], None] = {}
        self.functions: set[str] = set()
        self.named: dict[Node, str] = {}
        self.lines: list[str] = []
        self.uses: Counter[Node] = Counter()
        self.axes_of: dict[str, tuple[Index | str, ...]] = {}
        self.axes = cache(lambda node: held.order(node.free))
        self.rows = cache(held.of_sequence)

    def print(self, assigns: tuple[Assign, ...]) -> StepText:
        """The lines of `assigns`, and where their values are."""
        roots = regroup([a.value for a in assigns])
        self.uses = Counter(roots)
        for node in ir.walk(roots, self.held.children):
            self.uses.update(self.held.children(node))
        targets = {root: a.target for a, root in zip(reversed(assigns), reversed(roots), strict=True)}
        for node in ir.walk(roots, self.held.children):
            if isinstance(node, Read | Number | Size):
                continue
            if isinstance(node, Reduce) or node in targets or self._deserves_a_name(node):
                text, _ = self._expression(node)
                base = f"new_{self.names.word(targets[node])}" if node in targets else label(node)
                name = self.names.fresh(base)
                self.lines.append(f"{name} = {text}")
                self.named[node] = name
                self.axes_of[name] = self._tensor_axes(node)
        values = {a.target: self.text(root) for a, root in zip(assigns, roots, strict=True)}
        axes = {a.target: self._tensor_axes(root) for a, root in zip(assigns, roots, strict=True)}
        return StepText(
            tuple(self.lines), values, axes, tuple(self.weights), frozenset(self.functions), self.axes_of
        )

    def _deserves_a_name(self, node: Node) -> bool:
        if self.uses[node] > 1:
            return not (isinstance(node, Apply) and node.function == "neg")
        return len(self._expression(node)[0]) > LONG

    def text(self, node: Node) -> str:
        """The text of a value, as a tensor of its own axes."""
        return self._value(node)[0]

    def _value(self, node: Node) -> tuple[str, int]:
        if node in self.named:
            return self.named[node], ATOM
        return self._expression(node)

    def _inside(self, node: Node, parent: Node) -> tuple[str, int]:
        """The text of a value as an operand of `parent`, which may have more axes."""
        text, rank = self._value(node)
        own, whole = self._tensor_axes(node), self._tensor_axes(parent)
        if not own or own == whole:
            return text, rank
        places = ", ".join(":" if axis in own else "None" for axis in whole)
        return f"{text if rank == ATOM else f'({text})'}[{places}]", ATOM

    def _tensor_axes(self, node: Node) -> tuple[Index | str, ...]:
        return (ROWS, *self.axes(node)) if self.rows(node) else self.axes(node)

    def _expression(self, node: Node) -> tuple[str, int]:
        match node:
            case Number():
                return _number(node.value)
            case Size():
                return repr(float(self.held.lengths[node.dim])), ATOM
            case Read():
                return self._read(node), ATOM
            case Apply():
                return self._apply(node)
            case Reduce():
                return self._reduce(node), ATOM

    def _read(self, node: Read) -> str:
        """The value of an array; turned, where an axis that it has twice is read the other way round."""
        name = self.names.of((node.operand, node.component))
        own = ir.canonical_axes(i.dim for i in node.indices)
        by_own = dict(zip(own, node.indices, strict=True))
        held = [by_own[i] for i in self.held.order(own)]
        wanted = self.axes(node)
        self.axes_of[name] = self._tensor_axes(node)
        if held == [*wanted]:
            return name
        rows = [0] if self.rows(node) else []
        turned = [len(rows) + held.index(i) for i in wanted]
        return f"tl.permute({name}, {', '.join(map(str, [*rows, *turned]))})"

    def _apply(self, node: Apply) -> tuple[str, int]:
        function = node.function
        if function in INFIX:
            sign, rank = INFIX[function]
            left = self._operand(node.arguments[0], node, rank)
            # Floating point sums and products have an order, so a right side of the same rank keeps its brackets.
            return f"{left} {sign} {self._operand(node.arguments[1], node, rank + 1)}", rank
        if function == "neg":
            return f"-{self._operand(node.arguments[0], node, SIGNED)}", SIGNED
        if function in COMPARISONS:
            return f"tl.where({self._condition(node)}, 1.0, 0.0)", ATOM
        arguments = [self._inside(a, node)[0] for a in node.arguments]
        if function == "where":
            arguments[0] = self._condition(node.arguments[0], node)
            return f"tl.where({', '.join(arguments)})", ATOM
        if function in ("maximum", "minimum"):
            return f"tl.{function}({', '.join(arguments)}, propagate_nan=tl.PropagateNan.ALL)", ATOM
        if function in BUILT_IN:
            return f"{BUILT_IN[function]}({arguments[0]})", ATOM
        self.functions.add(function)
        return f"{function}({', '.join(arguments)})", ATOM

    def _operand(self, node: Node, parent: Node, rank: int) -> str:
        text, own = self._inside(node, parent)
        return text if own >= rank else f"({text})"

    def _condition(self, node: Node, parent: Node | None = None) -> str:
        parent = parent or node
        if isinstance(node, Apply) and node.function in COMPARISONS and node not in self.named:
            left, right = (self._operand(a, parent, COMPARED + 1) for a in node.arguments)
            return f"{left} {COMPARE[node.function]} {right}"
        return f"{self._operand(node, parent, COMPARED + 1)} != 0"

    def _reduce(self, node: Reduce) -> str:
        product = self._product(node)
        if product is not None:
            return product
        body, _ = self._value(node.body)
        axes = self._tensor_axes(node.body)
        if node.index.dim in self.held.padded:
            nothing = "0.0" if node.operation == "sum" else 'float("-inf")'
            body = f"tl.where({self.mask(node.index, axes)}, {body}, {nothing})"
        return f"tl.{node.operation}({body}, axis={axes.index(node.index)})"

    def mask(self, index: Index, axes: tuple[Index | str, ...]) -> str:
        """Which places along `index` are inside, for a tensor of `axes`."""
        if len(axes) == 1:
            return f"in_{index.dim}"
        return f"in_{index.dim}[{', '.join(':' if a == index else 'None' for a in axes)}]"

    def _product(self, node: Reduce) -> str | None:
        """A product of matrices, for all sequences of the block."""
        found = self.held.product(node)
        if found is None:
            return None
        weight, vector = found
        place, second = (weight.operand, weight.component), weight.indices[1] == node.index
        self.weights[place, second] = None
        name = self.names.weight(place, second)
        text, rank = self._value(vector)
        if node.index.dim in self.held.padded:
            text, rank = f"tl.where({self.mask(node.index, (ROWS, node.index))}, {text}, 0.0)", ATOM
        text = text if rank == ATOM else f"({text})"
        return f'tl.dot({text}.to({name}.dtype), {name}, input_precision="{self.held.precision}")'


def _number(value: float) -> tuple[str, int]:
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")', ATOM
    return repr(value), ATOM if value >= 0 else SIGNED
