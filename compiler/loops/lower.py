"""From a program to statements: reductions get arrays of their own, shared small work is hoisted.

In: a `Program`. Out: `Statement`s in any order that their arrays allow, and the temporaries that they made.

What is decided here: every reduction is computed once, into a temporary; a part of a formula that runs over
fewer axes than the formula is computed once outside it, if it runs along the vector axis or is expensive;
a weight times a vector becomes a contraction.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from rekern import ir
from rekern.functions import CHEAP
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.loops.chains import cuts
from rekern.loops.program import CARRIED, TEMPORARY, Assign, Program, Statement
from rekern.rewrite import rebuild, substitute

Space = frozenset[Index]


class Lowering:
    """The state of one lowering: the statements so far, and the temporary of every node that has one."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.statements: list[Statement] = []
        self.temporaries: dict[str, tuple[Index, ...]] = {}
        self.named: dict[Node, str] = {}  # canonical node -> temporary
        self.vectors: dict[Space, Index | None] = {}
        reads = [n for n in ir.walk([a.value for a in program.assigns]) if isinstance(n, Read)]
        targets = [ir.read(*a.target) for a in program.assigns]
        self.taken = {*map(plain, program.roles), *map(_spell, [*reads, *targets])}

    def run(self) -> tuple[Statement, ...]:
        assigns = self._computed_once(self.program.assigns)
        values = regroup([a.value for a in assigns])
        values = self._cut_chains(self._extract_reductions(values))
        drafts = [
            Statement(a.target, a.axes, v, frozenset(a.axes), a.add)
            for a, v in zip(assigns, values, strict=True)
        ]
        drafts = self._same_products(drafts) + drafts
        self.statements = []
        self._choose_vectors(drafts)
        for draft in drafts:
            self.statements.append(self._hoisted(draft))
        return self._without_copies()

    # -- temporaries

    def _computed_once(self, assigns: tuple[Assign, ...]) -> tuple[Assign, ...]:
        """What must not be computed twice is computed aside.

        That is what a maximum is taken over, where it is compared with the maximum: the two may differ in the last bit,
        and then no number would equal it. And what is handed to the next step, which this step may use already.
        """
        nodes = list(ir.walk([a.value for a in assigns]))
        over = {n.body for n in nodes if isinstance(n, Reduce) and n.operation == "max"}
        if not any(isinstance(n, Apply) and n.function == "eq" for n in nodes):
            over = set()
        over |= {a.value for a in assigns if a.target[0].startswith(CARRIED) and isinstance(a.value, Apply)}
        wanted = {self._canonical(n)[0] for n in over if not isinstance(n, Read)}
        if not wanted:
            return assigns
        new: dict[Node, Node] = {}
        aside: list[Assign] = []
        for node in nodes:
            parts = tuple(new[c] for c in ir.children(node))
            value = node if parts == ir.children(node) else rebuild(node, parts)
            if self._canonical(node)[0] in wanted:
                name, indices, is_new = self._temporary(value, label(value))
                if is_new:
                    axes = self.temporaries[name]
                    renamed = ir.rename(value, dict(zip(indices, axes, strict=True)))
                    aside.append(Assign((name, ()), axes, renamed))
                value = ir.read(name, (), indices)
            new[node] = value
        return (*aside, *(replace(a, value=new[a.value]) for a in assigns))

    def _canonical(self, node: Node) -> tuple[Node, tuple[Index, ...]]:
        """`node` over the first indices of its axes, and the indices that it has."""
        indices = self._ordered(node.free)
        axes = ir.canonical_axes(i.dim for i in indices)
        return ir.rename(node, dict(zip(indices, axes, strict=True))), indices

    def _temporary(self, node: Node, base: str) -> tuple[str, tuple[Index, ...], bool]:
        """The temporary for `node`, its axes, and whether it is new. Index names do not tell nodes apart."""
        canonical, indices = self._canonical(node)
        new = canonical not in self.named
        if new:
            name = self.fresh(base)
            self.named[canonical] = name
            self.temporaries[name] = ir.canonical_axes(i.dim for i in indices)
        return self.named[canonical], indices, new

    def fresh(self, base: str) -> str:
        """A name for a temporary: `base`, or `base_2` and so on where it is taken."""
        word, number = base, 2
        while word in self.taken:
            word, number = f"{base}_{number}", number + 1
        self.taken.add(word)
        return TEMPORARY + word

    def _ordered(self, free: Space) -> tuple[Index, ...]:
        """Axes in memory order: the lane last."""
        return tuple(sorted(free, key=lambda i: (i.dim == self.program.lane, i.dim, i.number)))

    def _extract_reductions(self, roots: list[Node]) -> list[Node]:
        """Every reduction becomes a read of a temporary, inner ones first."""
        mapping: dict[Node, Node] = {}
        for node in [n for n in ir.walk(roots) if isinstance(n, Reduce)]:
            name, indices, new = self._temporary(node, base=f"{node.operation}_{label(node.body)}")
            mapping[node] = ir.read(name, (), indices)
            if new:
                axes = self.temporaries[name]
                renaming = dict(zip(indices, axes, strict=True))
                same = ir.rename(node, renaming)
                assert isinstance(same, Reduce)
                (body,) = substitute([node.body], mapping)
                body = ir.rename(body, {**renaming, node.index: same.index})
                self.statements.append(_in_memory_order(self._reduction((name, ()), axes, same, body)))
        return substitute(roots, mapping)

    def _cut_chains(self, roots: list[Node]) -> list[Node]:
        """What chains of functions are cut at becomes reads of temporaries, in `roots` and in the statements so far."""
        targets = {v: f"new_{_spell(ir.read(*a.target))}" for a, v in zip(self.program.assigns, roots, strict=False)}
        walks = [s for s in self.statements if s.matrix is None]
        mapping: dict[Node, Node] = {}
        made: list[Statement] = []
        for node in cuts([*roots, *(s.value for s in walks)]):
            name, indices, new = self._temporary(node, targets.get(node) or label(node))
            if new:
                axes = self.temporaries[name]
                (value,) = substitute([node], mapping)
                value = ir.rename(value, dict(zip(indices, axes, strict=True)))
                made.append(Statement((name, ()), axes, value, frozenset(axes)))
            mapping[node] = ir.read(name, (), indices)
        values = iter(substitute([s.value for s in walks], mapping))
        self.statements = [s if s.matrix else replace(s, value=next(values)) for s in self.statements] + made
        return substitute(roots, mapping)

    def _reduction(
        self, target: tuple[str, tuple[int, ...]], axes: tuple[Index, ...], node: Reduce, body: Node
    ) -> Statement:
        matrix, vector = self._contraction(node, body)
        space = node.body.free
        if matrix is None:
            return Statement(target, axes, body, space, reduce=(node.operation, node.index))
        if not isinstance(vector, Read):
            vector = self._hoist_to_temporary(vector)
        return Statement(
            target, axes, body, space, reduce=(node.operation, node.index), matrix=matrix, vector=vector
        )

    def _contraction(self, node: Reduce, body: Node) -> tuple[Read | None, Node]:
        """`sum_j W[o, j] x[j]` with a weight W: the weight and the vector."""
        if not self.program.rows or node.operation != "sum":
            return None, body
        parts = ir.factors(body)
        weights = [p for p in parts if isinstance(p, Read) and self._is_weight(p)]
        if len(weights) != 1 or weights[0].free != node.body.free:
            return None, body
        rest = [p for p in parts if p is not weights[0]]
        vector = ir.product(rest)
        if vector.free != {node.index}:
            return None, body
        return weights[0], vector

    def _is_weight(self, node: Read) -> bool:
        return self.program.roles.get(node.operand) == "param" and len(node.indices) == 2

    def _same_products(self, assigned: list[Statement]) -> list[Statement]:
        """The statements so far; one that computes a product that is assigned too, in another order, takes its order.

        The cotangents of gates are results, and what a weight is multiplied with: computed alike, they are computed
        once.
        """
        known = {(s.axes, _factors(s.value)): s.value for s in assigned if not s.add}
        return [
            replace(s, value=known.get((s.axes, _factors(s.value)), s.value)) if s.reduce is None else s
            for s in self.statements
        ]

    def _without_copies(self) -> tuple[Statement, ...]:
        """The statements; a sum that is only copied into an array of the step goes there at once."""
        nodes = [n for s in self.statements for n in ir.walk(s.reads())]
        reads = Counter(n.operand for n in nodes if isinstance(n, Read))
        copies = {
            s.value.operand: s
            for s in self.statements
            if isinstance(s.value, Read)
            and s.value.indices == s.axes
            and s.reduce is None
            and not s.add
            and s.value.operand in self.temporaries
            and reads[s.value.operand] == 1
            and self.program.roles[s.target[0]] == "state"
        }
        sums = {s.target[0] for s in self.statements if s.reduce is not None and s.matrix is None}
        copies = {name: s for name, s in copies.items() if name in sums}
        result = []
        for s in self.statements:
            if s.target[0] in copies:
                del self.temporaries[s.target[0]]
                result.append(replace(s, target=copies[s.target[0]].target))
            elif s not in copies.values():
                result.append(s)
        return tuple(result)

    # -- vector axes

    def _choose_vectors(self, drafts: list[Statement]) -> None:
        """For each space the index along which vectors run: the lane, else where memory is dense."""
        votes: dict[Space, Counter[Index]] = {}
        for s in drafts:
            if s.matrix is not None:
                continue
            votes.setdefault(s.space, Counter())
            for node in ir.walk([s.value]):
                if isinstance(node, Read) and len(node.indices) > 1:
                    votes[s.space][self.layout(node)[-1]] += 1
            if len(s.axes) > 1:
                votes[s.space][self._ordered(frozenset(s.axes))[-1]] += 1
        for space, count in votes.items():
            lanes = sorted(i for i in space if i.dim == self.program.lane)
            best = sorted(space, key=lambda i: (-count[i], i.dim, -i.number))
            self.vectors[space] = lanes[-1] if lanes else best[0] if best else None

    def layout(self, node: Read) -> tuple[Index, ...]:
        """The indices of a read in memory order of its array."""
        return tuple(sorted(node.indices, key=lambda i: i.dim == self.program.lane))

    def vector(self, space: Space) -> Index | None:
        if space not in self.vectors:
            lanes = sorted(i for i in space if i.dim == self.program.lane)
            rest = sorted(space, key=lambda i: (i.dim, i.number))
            self.vectors[space] = lanes[-1] if lanes else rest[-1] if rest else None
        return self.vectors[space]

    # -- hoisting

    def _hoisted(self, s: Statement) -> Statement:
        if s.matrix is not None:
            return s
        value = self._hoist(s.value, s.space, {})
        return Statement(s.target, s.axes, value, s.space, s.add, s.reduce)

    def _hoist(self, node: Node, space: Space, done: dict[Node, Node]) -> Node:
        if node in done:
            return done[node]
        result: Node
        if isinstance(node, Number | Size | Read):
            result = node
        elif node.free != space and self._wants_temporary(node, space):
            result = self._hoist_to_temporary(node)
        else:
            parts = tuple(self._hoist(c, space, done) for c in ir.children(node))
            result = node if parts == ir.children(node) else rebuild(node, parts)
        done[node] = result
        return result

    def _wants_temporary(self, node: Node, space: Space) -> bool:
        if not node.free:
            return any(isinstance(n, Read | Size) for n in ir.walk([node]))
        return self.vector(space) in node.free or any(
            isinstance(n, Apply) and n.function not in CHEAP for n in ir.walk([node])
        )

    def _hoist_to_temporary(self, node: Node) -> Read:
        name, indices, new = self._temporary(node, label(node))
        if new:
            axes = self.temporaries[name]
            value = ir.rename(node, dict(zip(indices, axes, strict=True)))
            space = frozenset(axes)
            self.vector(space)
            draft = Statement((name, ()), axes, value, space)
            self.statements.append(self._hoisted(draft))
        return ir.read(name, (), indices)


def regroup(roots: list[Node]) -> list[Node]:
    """Reorder products so that factors over fewer axes meet first.

    `(a[v] * k[k]) * s` becomes `(s * a[v]) * k[k]`.
    """
    uses = Counter(c for n in ir.walk(roots) for c in ir.children(n)) + Counter(roots) + Counter(roots)
    new: dict[Node, Node] = {}

    def chain(node: Node, top: bool) -> list[Node]:
        if isinstance(node, Apply) and node.function == "mul" and (top or uses[node] == 1):
            return [f for a in node.arguments for f in chain(a, False)]
        return [node]

    inside: set[Node] = set()
    for node in ir.walk(roots):
        if isinstance(node, Apply) and node.function == "mul":
            products = [a for a in node.arguments if isinstance(a, Apply) and a.function == "mul"]
            inside.update(a for a in products if uses[a] == 1)
    for node in ir.walk(roots):
        if isinstance(node, Apply) and node.function == "mul" and node not in inside:
            new[node] = _grouped([new.get(f, f) for f in chain(node, True)])
        elif node not in inside:
            parts = tuple(new.get(c, c) for c in ir.children(node))
            new[node] = node if parts == ir.children(node) else rebuild(node, parts)
    return [new[r] for r in roots]


def _grouped(factors: list[Node]) -> Node:
    """The product of `factors`, equal index sets first, then the smaller sets into the larger ones."""
    groups: dict[Space, Node] = {}
    for f in sorted(factors, key=_standing):  # the same factors always make the same product
        groups[f.free] = ir.mul(groups[f.free], f) if f.free in groups else f
    order = sorted(groups, key=lambda s: (len(s), sorted(s)))
    while len(order) > 1:
        small = order.pop(0)
        larger = [s for s in order if small < s]
        host = larger[0] if larger else order[0]
        union = small | host
        joined = ir.mul(groups.pop(small), groups.pop(host))
        order.remove(host)
        groups[union] = ir.mul(joined, groups[union]) if union in groups else joined
        order = sorted({*order, union}, key=lambda s: (len(s), sorted(s)))
    return groups[order[0]]


def _standing(node: Node) -> str:
    """What a node is, whatever its indices are called."""
    indices = sorted(node.free)
    axes = ir.canonical_axes(i.dim for i in indices)
    return ir.rename(node, dict(zip(indices, axes, strict=True))).digest


def _factors(node: Node) -> tuple[str, ...]:
    """What tells products apart, however they are multiplied out."""
    return tuple(sorted(f.digest for f in ir.factors(node)))


def label(node: Node) -> str:
    """A short name for what a node computes, from the arrays that it reads."""
    if isinstance(node, Apply) and len(node.arguments) == 1:
        return f"{node.function}_{label(node.arguments[0])}"
    reads = list(dict.fromkeys(_spell(n) for n in ir.walk([node]) if isinstance(n, Read)))
    return "_".join(reads[:3]) + ("_etc" if len(reads) > 3 else "") if reads else "constant"


def _spell(node: Read) -> str:
    return plain("_".join([node.operand, *map(str, node.component)]))


def plain(name: str) -> str:
    """A name without the marks of internal arrays: `d:x` -> `d_x`."""
    return name.removeprefix(TEMPORARY).replace(":", "_")


def _in_memory_order(s: Statement) -> Statement:
    """Rename the two indices of an axis that occurs twice so that most arrays are read as they lie.

    A sum over the first axis of `z[k, k']` then shares the nest that updates `z[k, k']`.
    """
    twice = [i for i in s.space if i.number == 0 and Index(i.dim, 1) in s.space]
    for first in twice:
        second = Index(first.dim, 1)
        swap = {first: second, second: first}
        renamed = ir.rename(s.value, swap)
        if s.matrix is None and s.reduce is not None and _in_order(renamed) > _in_order(s.value):
            operation, bound = s.reduce
            axes = tuple(swap.get(i, i) for i in s.axes)
            s = replace(s, axes=axes, value=renamed, reduce=(operation, swap.get(bound, bound)))
    return s


def _in_order(node: Node) -> int:
    """How many reads have their indices in the order in which they are numbered."""
    found = [n for n in ir.walk([node]) if isinstance(n, Read) and len(n.indices) > 1]
    return sum(list(n.indices) == sorted(n.indices, key=lambda i: (i.dim, i.number)) for n in found)


def lower(program: Program) -> tuple[Lowering, tuple[Statement, ...]]:
    """The statements of `program`, with the lowering that knows their temporaries and vector axes."""
    lowering = Lowering(program)
    statements = lowering.run()
    return lowering, statements
