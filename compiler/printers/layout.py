"""Which lines a printed recurrence has: new states, outputs, and the values in between that deserve a name.

In: a `Recurrence`. Out: a `Layout`: lines in an order in which each uses only lines above it, and the name of
every formula that has one. How a line looks is the business of `text` and `latex`.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from types import FrameType
from typing import TYPE_CHECKING

from rekern import ir
from rekern.ir import Index, Node, Number, Read, Reduce, Size
from rekern.rewrite import substitute
from rekern.trace import Array, Cell, Dim, operand

if TYPE_CHECKING:
    from rekern.spec import Recurrence

LETTERS = "uwyspraebcdfghijklmnoqtvxz"  # for values that the author of the spec did not name
SMALL = 3  # leaves of a formula that is written out rather than named, where it stands in one place only


@dataclass(frozen=True, slots=True)
class Label:
    """The line `name[...] = node`: the cell `cell` of an array of shape `dims`."""

    name: str
    dims: tuple[Dim, ...]
    cell: Cell
    node: Node

    @property
    def axes(self) -> tuple[Index, ...]:
        return ir.canonical_axes(d for d in self.dims if isinstance(d, str))

    @property
    def trivial(self) -> bool:
        """Whether the right-hand side is no longer than a name."""
        return isinstance(self.node, Read | Number | Size)


@dataclass(frozen=True, slots=True)
class Row:
    """A line as drawn; with a letter it stands for the cells `first` to `last` of an array."""

    text: str
    letter: str = ""
    first: int = 0
    last: int = 0


Draw = Callable[[Label, str], str]  # (line, letter for its cell or "") -> its text


def locals_of(spec: Recurrence) -> dict[str, Array]:
    """The arrays that the body of `spec` holds when it returns, by the names that its author gave them.

    Empty while a profiler is watching, because it is the profiler's hook that shows them.
    """
    found: dict[str, Array] = {}

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code is spec.function.__code__:
            found.update((n, v) for n, v in frame.f_locals.items() if isinstance(v, Array))

    if sys.getprofile() is not None:
        return {}
    arrays = {o.name: operand(o.name, o.dims) for o in spec.operands}
    sys.setprofile(watch)
    try:
        spec.function(**arrays)
    finally:
        sys.setprofile(None)
    return found


def labels_of(name: str, array: Array) -> Iterator[Label]:
    """One label for each cell; axes that the formulas do not run along are left out."""
    running = iter(ir.canonical_axes(d for d in array.dims if isinstance(d, str)))
    axes = [(d, None if isinstance(d, int) else next(running)) for d in array.dims]
    free = frozenset[Index]().union(*(n.free for n in array.cells.values()))
    kept = [(d, i) for d, i in axes if i is None or i in free]
    old = [i for _, i in kept if i is not None]
    mapping = dict(zip(old, ir.canonical_axes(i.dim for i in old)))
    for cell, node in array.cells.items():
        yield Label(name, tuple(d for d, _ in kept), cell, ir.rename(node, mapping))


class Layout:
    """`lines` top down, and `find`, which says what the formula of a place is called."""

    def __init__(self, spec: Recurrence) -> None:
        step = spec.step
        self._places: dict[Node, tuple[str, tuple[Index, ...]]] = {}
        self._names: dict[str, Label] = {}  # by key
        self._lines: list[Label] = []
        dims = {o.name: o.dims for o in spec.states} | dict(step.output_dims)
        for name, cells in (*step.states.items(), *step.outputs.items()):
            self._add(Label(name, dims[name], cell, node) for cell, node in cells.items())
        self._roots = list(self._lines)
        taken = {o.name for o in spec.operands} | dims.keys()
        authors = {n: a for n, a in locals_of(spec).items() if n not in taken}
        self._name_locals(authors)
        self._name_shared()
        self.lines = self._in_order(authors)
        taken |= authors.keys() | {d.lower() for d in spec.axes}
        self._letters = [c for c in LETTERS if c not in taken]
        self._give_letters()

    def find(self, node: Node, line: Label | None = None) -> tuple[Label, list[Index]] | None:
        """The label of `node` and its indices here; none for the formula of `line` itself."""
        if isinstance(node, Read | Number | Size):
            return None
        text, indices = self._place(node)
        label = self._names.get(text)
        if label is None or (label is line and node is line.node):
            return None
        here = dict(zip(self._place(label.node)[1], indices))
        return label, [here[i] for i in label.axes]

    def rows(self, draw: Draw) -> Iterator[Row]:
        """The lines as drawn; neighbouring cells of an array that read alike are one row."""
        letter = next(c for c in ("j", "i", *self._letters) if c in self._letters)
        groups: list[list[Label]] = []
        for line in self.lines:
            if groups and groups[-1][0].name == line.name:
                groups[-1].append(line)
            else:
                groups.append([line])
        for group in groups:
            cells = sorted(line.cell for line in group)
            first, last = cells[0], cells[-1]
            run = len(first) == 1 and len(group) > 1 and last[0] - first[0] == len(group) - 1
            if run and len({draw(line, letter) for line in group}) == 1:
                yield Row(draw(group[0], letter), letter, first[0], last[0])
            else:
                yield from (Row(draw(line, "")) for line in group)

    # -- which values have names

    def _place(self, node: Node) -> tuple[str, tuple[Index, ...]]:
        """A key, equal for formulas that differ only in the names of free indices, and these in its order."""
        if node not in self._places:
            choices = []
            for order in permutations(sorted(node.free)):
                if [i.dim for i in order] == sorted(i.dim for i in order):
                    choices.append((_numbered(node, order).digest, order))
            self._places[node] = min(choices)
        return self._places[node]

    def _key(self, node: Node) -> str:
        return self._place(node)[0]

    def _add(self, labels: Iterable[Label]) -> None:
        for label in labels:
            self._lines.append(label)
            if not label.trivial and label.node.free == set(label.axes):
                self._names.setdefault(self._key(label.node), label)

    def _drop(self, name: str) -> None:
        self._lines = [label for label in self._lines if label.name != name]
        self._names = {key: label for key, label in self._names.items() if label.name != name}

    def _below(self, line: Label) -> Iterator[Node]:
        """The nodes of a line, each once; not what stands inside a named one."""
        done: set[Node] = set()
        stack = [line.node]
        while stack:
            node = stack.pop()
            if node not in done:
                done.add(node)
                yield node
                if self.find(node, line) is None:
                    stack.extend(ir.children(node))

    def _uses(self) -> Counter[str]:
        """How often each formula is an argument, or is the whole of a line that has another name; by key."""
        opened = {n for line in self._lines for n in self._below(line) if self.find(n, line) is None}
        counts = Counter(self._key(c) for n in opened for c in ir.children(n))
        counts.update(self._key(line.node) for line in self._lines if self.find(line.node, line) is not None)
        return counts

    def _leaves(self, line: Label) -> int:
        """How many things the reader of a line meets."""
        below = self._below(line)
        return sum(isinstance(n, Read | Size | Reduce) or self.find(n, line) is not None for n in below)

    def _name_locals(self, arrays: Mapping[str, Array]) -> None:
        """Use the author's names, but write out what is unused, or is small and stands in one place."""
        # where an array and its parts both have names, the parts win
        for name in sorted(arrays, key=lambda name: len(arrays[name].cells)):
            labels = [label for label in labels_of(name, arrays[name]) if not label.trivial]
            self._add(label for label in labels if self._key(label.node) not in self._names)
        for name in arrays:
            uses = self._uses()
            lines = [(line, uses[self._key(line.node)]) for line in self._lines if line.name == name]
            if all(n == 0 or (n == 1 and self._leaves(line) <= SMALL) for line, n in lines):
                self._drop(name)

    def _name_shared(self) -> None:
        """Name what several places share, and sums that do not run with all indices of their line."""
        while found := self._shared():
            families: dict[Node, list[tuple[Cell, Node]]] = defaultdict(list)
            for node in found:
                cell, pattern = _pattern(node)
                families[pattern].append((cell, node))
            for members in families.values():
                name = f"?{len(self._lines)}"  # the letter is given when the order is known
                for cell, node in sorted(members, key=lambda member: member[0]):
                    own = cell if len(members) > 1 else ()
                    dims: tuple[Dim, ...] = (*(1 for _ in own), *(i.dim for i in sorted(node.free)))
                    self._add([Label(name, dims, own, node)])

    def _shared(self) -> list[Node]:
        """The outermost formulas that want a name, each once."""
        uses = self._uses()
        found: dict[str, Node] = {}
        for line in self._lines:
            stack = [(line.node, line.node.free)]
            done: set[Node] = set()
            while stack:
                node, running = stack.pop()
                if node in done or self.find(node, line) is not None:
                    continue
                done.add(node)
                fewer = isinstance(node, Reduce) and node.free < running
                if node is not line.node and (fewer or (uses[self._key(node)] > 1 and self._big(node))):
                    found.setdefault(self._key(node), _numbered(node, sorted(node.free)))
                    continue
                inner = running | {node.index} if isinstance(node, Reduce) else running
                stack.extend((c, inner) for c in reversed(ir.children(node)))
        return list(found.values())

    def _big(self, node: Node) -> bool:
        line = Label("", (), (), node)
        sums = any(isinstance(n, Reduce) and self.find(n) is None for n in self._below(line))
        return sums or self._leaves(line) > SMALL

    # -- in which order

    def _in_order(self, authors: Iterable[str]) -> list[Label]:
        """Each line after those it uses; else the author's values, then states and outputs as declared."""
        needs = {line: {f[0] for n in self._below(line) if (f := self.find(n, line))} for line in self._lines}
        given = [line for name in authors for line in self._lines if line.name == name]
        wish = list(dict.fromkeys((*given, *self._roots, *self._lines)))
        done: dict[Label, None] = {}
        while len(done) < len(wish):
            done[next(line for line in wish if line not in done and needs[line] <= done.keys())] = None
        return list(done)

    def _give_letters(self) -> None:
        """Name the values that have no name yet, from the top of the page down."""
        unnamed = list(dict.fromkeys(line.name for line in self.lines if line.name.startswith("?")))
        some = self._letters if len(unnamed) <= len(self._letters) else [f"u{n}" for n in range(len(unnamed))]
        names = dict(zip(unnamed, some))
        new = {line: replace(line, name=names.get(line.name, line.name)) for line in self.lines}
        self.lines = list(new.values())
        self._names = {key: new[label] for key, label in self._names.items()}
        self._letters = [c for c in self._letters if c not in names.values()]


def _numbered(node: Node, order: Iterable[Index]) -> Node:
    order = list(order)
    return ir.rename(node, dict(zip(order, ir.canonical_axes(i.dim for i in order))))


def _pattern(node: Node) -> tuple[Cell, Node]:
    """The one cell of literal axes that a formula reads, and the formula with that cell blanked out."""
    reads = [n for n in ir.walk([node]) if isinstance(n, Read) and n.component]
    cells = {n.component for n in reads}
    if len(cells) != 1:
        return (), node
    blank: dict[Node, Node] = {n: ir.read(n.operand, (-1,) * len(n.component), n.indices) for n in reads}
    return cells.pop(), substitute([node], blank)[0]
