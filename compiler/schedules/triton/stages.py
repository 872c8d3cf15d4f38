"""A step as stages: what is known before any product with a weight, what the first products add, and so on.

In: the assignments of a step. Out: `Stages`: products as `Multiply`s, the assignments with a read in place of every
product, and after how many products each of them can be made. Products of one vector lie side by side in one row; a sum
of products with the cells of one weight is one product with a longer vector. What inputs alone decide does not wait
for the state, and is made for all steps at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rekern import ir
from rekern.ir import Apply, Index, Node, Read, Reduce
from rekern.loops.program import NEXT, TEMPORARY, Assign, Place
from rekern.printers.triton import Held
from rekern.rewrite import rebuild
from rekern.trace import Dim

Weight = tuple[Place, bool]  # a matrix, and whether its second axis is summed over


@dataclass(frozen=True)
class Multiply:
    """One product of matrices: `out[row, :] = vectors[row, :] @ weights`, for all rows of a step or call.

    Several weights and one vector: outputs lie side by side. As many vectors as weights: their products are added.

    Args:
        out: The array of the result, `outputs` times `axis` numbers in a row.
        vectors: What is multiplied: cells of an array that a kernel has written, or of the caller's.
        depth: How many products come one after the other before its vector is known, this one included.
        early: Whether inputs alone decide it.
    """

    out: str
    axis: str
    vectors: tuple[Place, ...]
    vector_axis: str
    weights: tuple[Weight, ...]
    depth: int
    early: bool

    @property
    def outputs(self) -> int:
        """Products side by side."""
        return len(self.weights) if len(self.vectors) == 1 else 1

    @property
    def dims(self) -> tuple[Dim, ...]:
        """Of a row of the result."""
        return self.outputs, self.axis


@dataclass
class _Product:
    """A product as it is found: `name` is what formulas read in its place."""

    name: str
    out: Index
    vector_axis: str
    weights: tuple[Weight, ...]
    vectors: tuple[Node, ...]
    depth: int
    early: bool


@dataclass(frozen=True)
class Stages:
    """A step in stages.

    Args:
        assigns: What a stage makes, by its number; vectors of products among it.
        inputs: The same of what inputs alone decide: vectors of products, for all steps at once.
        multiplies: In an order in which they can be made.
        places: Where the numbers of a product are, by the name that formulas read: an array and its cell.
        vectors: The arrays that vectors are written to: how many cells, and their axis and weight.
    """

    assigns: tuple[tuple[Assign, ...], ...]
    inputs: tuple[tuple[Assign, ...], ...]
    multiplies: tuple[Multiply, ...]
    places: Mapping[str, Place]
    vectors: Mapping[str, tuple[tuple[Dim, ...], str]]

    @property
    def depth(self) -> int:
        """The number of the last stage."""
        return len(self.assigns) - 1

    def after(self, stage: int, early: bool = False) -> list[Multiply]:
        """The products that can be made once a stage is done."""
        return [m for m in self.multiplies if m.depth == stage + 1 and m.early == early]

    def array(self, name: str) -> Multiply | None:
        """The product that writes an array."""
        return next((m for m in self.multiplies if m.out == name), None)


def stages(assigns: Sequence[Assign], held: Held, rows: frozenset[str], kind: Callable[[str], Hashable]) -> Stages:
    """Put the work of a step in order.

    Args:
        rows: Arrays that are known for all steps before the loop.
        kind: Of a weight: only those of one kind can be multiplied together.
    """
    found = _Finder(held, rows, kind)
    values = found.converted([a.value for a in assigns])
    return found.finish([replace(a, value=v) for a, v in zip(assigns, values, strict=True)])


class _Finder:
    """Finds the products of a step."""

    def __init__(self, held: Held, rows: frozenset[str], kind: Callable[[str], Hashable]) -> None:
        self.held, self.rows, self.kind = held, rows, kind
        self.products: dict[str, _Product] = {}
        self.names: dict[Node, str] = {}
        self.new: dict[Node, Node] = {}

    # -- formulas without products

    def converted(self, roots: list[Node]) -> list[Node]:
        """The formulas with reads in place of products."""
        uses = Counter(c for n in ir.walk(roots) for c in ir.children(n)) + Counter(roots)
        chains = {n: self._joined(n, uses) for n in ir.walk(roots)}

        def below(node: Node) -> Sequence[Node]:
            if chains.get(node):
                return [t for t in self._terms(node, uses, True) if t not in chains[node]]
            return () if self.held.product(node) else ir.children(node)

        for node in ir.walk(roots, below):
            if node in self.new:
                continue
            if joined := chains.get(node):
                self.new[node] = ir.total([*(self.new[t] for t in below(node)), *self._sums(joined)])
            elif self.held.product(node):
                self.new[node] = self._read([node])
            else:
                parts = tuple(self.new[c] for c in ir.children(node))
                self.new[node] = node if parts == ir.children(node) else rebuild(node, parts)
        return [self.new[r] for r in roots]

    def _terms(self, node: Node, uses: Mapping[Node, int], top: bool) -> list[Node]:
        """The summands of a sum, as far as nothing else uses a part of it."""
        if isinstance(node, Apply) and node.function in ("add", "sub") and (top or uses[node] == 1):
            left, right = (self._terms(a, uses, False) for a in node.arguments)
            return [*left, *(right if node.function == "add" else map(ir.neg, right))]
        return [node]

    def _joined(self, node: Node, uses: Mapping[Node, int]) -> dict[Node, Hashable]:
        """The products in a sum that are one product, each with the key of its group; none: the sum stays."""
        if not isinstance(node, Apply) or node.function not in ("add", "sub"):
            return {}
        found: dict[Node, Hashable] = {}
        cells: set[Hashable] = set()
        for term in self._terms(node, uses, True):
            product = self.held.product(term)
            if product is None or not isinstance(term, Reduce) or uses[term] > 1:
                continue
            weight, _ = product
            key = weight.operand, weight.indices[1] == term.index, tuple(term.free), term.index.dim
            if (key, weight.component) not in cells:  # two products with one cell are two rows
                cells.add((key, weight.component))
                found[term] = key
        sizes = Counter(found.values())
        return {t: key for t, key in found.items() if sizes[key] > 1}

    def _sums(self, joined: Mapping[Node, Hashable]) -> list[Node]:
        return [self._read([t for t, own in joined.items() if own == key]) for key in dict.fromkeys(joined.values())]

    # -- products

    def _read(self, nodes: list[Node]) -> Node:
        """The read that stands for the sum of products with one weight."""
        (out,) = nodes[0].free
        plain = ir.rename(ir.total(nodes), {out: Index(out.dim)})
        if plain not in self.names:
            self.names[plain] = self._product(nodes, out)
        return ir.read(self.names[plain], (), (out,))

    def _product(self, nodes: list[Node], out: Index) -> str:
        weights: list[Weight] = []
        vectors: list[Node] = []
        sums = [n for n in nodes if isinstance(n, Reduce)]
        found = [(*p, n.index) for n in sums if (p := self.held.product(n)) is not None]
        for weight, vector, axis in sorted(found, key=lambda p: p[0].component):
            weights.append(((weight.operand, weight.component), weight.indices[1] == axis))
            vectors.append(vector)
        vectors = self.converted(vectors)
        reads = [n.operand for n in ir.walk(vectors) if isinstance(n, Read)]
        depth = 1 + max((self.products[n].depth for n in reads if n in self.products), default=0)
        early = all(self.products[n].early if n in self.products else self._is_known(n) for n in reads)
        if not early:
            loop = (self.products[n] for n in reads if n in self.products and not self.products[n].early)
            depth = 1 + max((p.depth for p in loop), default=0)
        name = self._name(weights, vectors)
        self.products[name] = _Product(name, out, axis.dim, tuple(weights), tuple(vectors), depth, early)
        return name

    def _is_known(self, name: str) -> bool:
        return name in self.rows or self.held.roles.get(name) in ("param", "scalar")

    def _name(self, weights: list[Weight], vectors: list[Node]) -> str:
        (operand, cell), _ = weights[0]
        words = [operand, *(map(str, cell) if len(weights) == 1 else ())]
        vector = vectors[0]
        words.append(vector.operand.replace(":", "_") if isinstance(vector, Read) and len(vectors) == 1 else "product")
        base, number = TEMPORARY + "_".join(words), 2
        name = base
        while name in self.products or name in self.held.roles:
            name, number = f"{base}_{number}", number + 1
        return name

    # -- stages

    def finish(self, assigns: list[Assign]) -> Stages:
        """What is made when."""
        written: dict[str, tuple[tuple[Dim, ...], str]] = {}
        multiplies: list[Multiply] = []
        places: dict[str, Place] = {}
        vectors: list[tuple[bool, int, Assign]] = []
        groups: dict[Hashable, list[_Product]] = {}
        for p in self.products.values():
            key: Hashable = p.name
            if len(p.weights) == 1:
                (weight, _), second = p.weights[0]
                key = p.vectors, p.out.dim, p.vector_axis, second, self.kind(weight)
            groups.setdefault(key, []).append(p)
        for group in groups.values():
            group.sort(key=lambda p: p.weights[0][0])  # as they lie in memory, so that they need not be gathered
            first = group[0]
            array = f"{TEMPORARY}products_{len(multiplies)}"
            places |= {p.name: (array, (n,)) for n, p in enumerate(group)}
            sources = self._sources(first, f"{TEMPORARY}vector_{len(multiplies)}")
            if sources[0][0].startswith(TEMPORARY):
                dims = len(sources), first.vector_axis
                written[sources[0][0]] = dims, first.weights[0][0][0]
                axes = (Index(first.vector_axis),)
                for place, vector in zip(sources, first.vectors, strict=True):
                    vectors.append((first.early, first.depth - 1, Assign(place, axes, vector)))
            weights = tuple(w for p in group for w in p.weights)
            multiplies.append(
                Multiply(array, first.out.dim, sources, first.vector_axis, weights, first.depth, first.early)
            )
        multiplies.sort(key=lambda m: (not m.early, m.depth))
        early = [(depth, a) for is_early, depth, a in vectors if is_early]
        in_loop = [*((depth, a) for is_early, depth, a in vectors if not is_early)]
        in_loop += self._stages_of(assigns, in_loop)
        count = max((m.depth for m in multiplies if not m.early), default=0) + 1
        inputs = max((m.depth for m in multiplies if m.early), default=0)
        return Stages(
            tuple(tuple(a for n, a in in_loop if n == s) for s in range(count)),
            tuple(tuple(a for n, a in early if n == s) for s in range(inputs)),
            tuple(multiplies), places, written,
        )  # fmt: skip

    def _sources(self, product: _Product, array: str) -> tuple[Place, ...]:
        """Where the vectors are: in the caller's array, if that is what is multiplied."""
        vector = product.vectors[0]
        if product.early and len(product.vectors) == 1 and isinstance(vector, Read) and vector.operand in self.rows:
            return ((vector.operand, vector.component),)
        return tuple((array, (n,)) for n in range(len(product.vectors)))

    def depth(self, node: Node) -> int:
        """After how many products of the loop a value can be computed."""
        reads = (n.operand for n in ir.walk([node]) if isinstance(n, Read))
        found = (self.products[n] for n in reads if n in self.products)
        return max((p.depth for p in found if not p.early), default=0)

    def _stages_of(self, assigns: list[Assign], vectors: list[tuple[int, Assign]]) -> list[tuple[int, Assign]]:
        """The stage of every assignment: as soon as its products are there; a state not before its last reader."""
        found = [self.depth(a.value) for a in assigns]
        reads = [_reads(a.value) for a in assigns]
        states = {
            n: (a.target[0].removeprefix(NEXT), a.target[1])
            for n, a in enumerate(assigns)
            if self.held.roles.get(a.target[0].removeprefix(NEXT)) == "state" and not a.add
        }
        while True:
            last: dict[Place, int] = {}
            for stage, places in [*((s, _reads(a.value)) for s, a in vectors), *zip(found, reads, strict=True)]:
                last |= {place: max(stage, last.get(place, 0)) for place in places}
            late = {n: last[place] for n, place in states.items() if last.get(place, 0) > found[n]}
            if not late:
                return list(zip(found, assigns, strict=True))
            found = [late.get(n, stage) for n, stage in enumerate(found)]


def _reads(node: Node) -> set[Place]:
    return {(n.operand, n.component) for n in ir.walk([node]) if isinstance(n, Read)}


def reductions(assigns: Iterable[Assign]) -> bool:
    """Whether anything is summed inside of a row."""
    return any(isinstance(n, ir.Reduce) for n in ir.walk([a.value for a in assigns]))
