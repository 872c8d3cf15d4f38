"""A formula as a linear function of some reads, with everything else as coefficients.

In: a formula and the operands that count as variables. Out: `Linear`, a sum of `coefficient * read` under
sums, plus a rest that reads no variable; or `NotLinear`, with the place that is not.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rekern import ir
from rekern.analysis.wording import short
from rekern.ir import Apply, Index, Node, Number, Read, Reduce
from rekern.rewrite import substitute

BOUND_FROM = 1 << 20  # bound indices are numbered from here on, so that none meets another
MOST_TERMS = 256
ZERO, ONE = ir.number(0), ir.number(1)


class NotLinear(Exception):
    """The formula is not linear in the variables; the message says where."""


class TooLong(NotLinear):
    """Multiplied out, the formula has more terms than were allowed."""


@dataclass(frozen=True)
class Term:
    """`sum over bound of product(factors) * read`."""

    factors: tuple[Node, ...]
    bound: tuple[Index, ...]
    read: Read

    def scaled(self, by: Node) -> Term:
        return Term((*self.factors, *factors_of(by)), self.bound, self.read)

    def formula(self) -> Node:
        return summed(self.bound, ir.mul(ir.product(self.factors), self.read))


@dataclass(frozen=True)
class Linear:
    """`terms + rest`; the rest reads no variable."""

    terms: tuple[Term, ...]
    rest: Node

    def formula(self) -> Node:
        return ir.total([*(t.formula() for t in self.terms), self.rest])


def reads_any(node: Node, names: Collection[str]) -> bool:
    return not ir.operands_read([node]).isdisjoint(names)


def expand(root: Node, names: Collection[str], most_terms: int = MOST_TERMS) -> Linear:
    """`root` as a linear function of the reads of `names`.

    Raises:
        NotLinear: a product, a quotient or another function makes the formula more than linear in a variable.
        TooLong: there are more than `most_terms` terms.

    >>> k, v = ir.canonical_axes("KV")
    >>> S, w = ir.read("S", (), (k, v)), ir.read("w", (), (k,))
    >>> found = expand(ir.sub(S, ir.mul(w, ir.reduce("sum", k, ir.mul(w, S)))), {"S"})
    >>> [(len(t.factors), len(t.bound)) for t in found.terms]
    [(0, 0), (3, 1)]
    """
    return _Expansion(root, names, most_terms).of(root)


class _Expansion:
    """One call of `expand`: what each node became, and the next bound index."""

    def __init__(self, root: Node, names: Collection[str], most_terms: int) -> None:
        self.names = names
        self.most_terms = most_terms
        self.done: dict[Node, Linear] = {}
        self.numbers = itertools.count(BOUND_FROM)
        self.depends: set[Node] = set()
        for node in ir.walk([root]):
            here = isinstance(node, Read) and node.operand in names
            if here or any(c in self.depends for c in ir.children(node)):
                self.depends.add(node)

    def of(self, root: Node) -> Linear:
        for node in ir.walk([root]):
            if node in self.depends:
                self.done[node] = self._node(node)
                if len(self.done[node].terms) > self.most_terms:
                    raise TooLong(f"more than {self.most_terms} terms when multiplied out")
        return self._part(root)

    def _part(self, node: Node) -> Linear:
        return self.done[node] if node in self.depends else Linear((), node)

    def _node(self, node: Node) -> Linear:
        match node:
            case Read():
                return Linear((Term((), (), node),), ZERO)
            case Apply(function="add", arguments=(a, b)):
                return _plus(self._part(a), self._part(b))
            case Apply(function="sub", arguments=(a, b)):
                return _plus(self._part(a), self._scaled(self._part(b), ir.number(-1)))
            case Apply(function="neg", arguments=(a,)):
                return self._scaled(self._part(a), ir.number(-1))
            case Apply(function="mul", arguments=(a, b)) if not (a in self.depends and b in self.depends):
                return self._scaled(self._part(b), a) if b in self.depends else self._scaled(self._part(a), b)
            case Apply(function="div", arguments=(a, b)) if b not in self.depends:
                return self._scaled(self._part(a), ir.div(ONE, b))
            case Apply(function="where", arguments=(c, a, b)) if c not in self.depends:
                return self._chosen(c, self._part(a), self._part(b))
            case Reduce(operation="sum"):
                return self._summed(node.index, self._part(node.body))
            case _:
                raise NotLinear(f"not linear in {', '.join(sorted(self._variables(node)))}: {short(node)}")

    def _variables(self, node: Node) -> set[str]:
        return ir.operands_read([node]) & set(self.names)

    def _scaled(self, linear: Linear, by: Node) -> Linear:
        if ir.is_number(by, 0):
            return Linear((), ZERO)
        return Linear(tuple(t.scaled(by) for t in linear.terms), times(by, linear.rest))

    def _chosen(self, condition: Node, a: Linear, b: Linear) -> Linear:
        """`where(condition, a, b)`: what both sides read alike keeps one coefficient."""
        others = list(b.terms)
        terms = []
        for term in a.terms:
            twin = next((t for t in others if t.read is term.read and t.bound == term.bound), None)
            if twin is not None:
                others.remove(twin)
            terms.append(_choice(condition, term, twin))
        terms += [_choice(condition, t, None, turned=True) for t in others]
        rest = a.rest if a.rest is b.rest else ir.apply("where", condition, a.rest, b.rest)
        return Linear(tuple(terms), rest)

    def _summed(self, index: Index, linear: Linear) -> Linear:
        terms = []
        for term in linear.terms:
            if index not in term.read.free and not any(index in f.free for f in term.factors):
                terms.append(term.scaled(ir.size(index.dim)))
                continue
            fresh = {index: Index(index.dim, next(self.numbers))}
            renamed = ir.rename(term.read, fresh)
            assert isinstance(renamed, Read)
            factors = tuple(ir.rename(f, fresh) for f in term.factors)
            terms.append(Term(factors, (*term.bound, fresh[index]), renamed))
        rest = linear.rest if ir.is_number(linear.rest, 0) else ir.reduce("sum", index, linear.rest)
        return Linear(tuple(terms), rest)


def _choice(condition: Node, first: Term, second: Term | None, turned: bool = False) -> Term:
    """`first` where the condition holds (`turned`: fails), else `second`; what both have stays outside."""
    mine, shared = list(first.factors), list[Node]()
    other: list[Node] = list(second.factors) if second is not None else [ZERO]
    for factor in first.factors:
        if factor in other and not isinstance(factor, Number):
            shared.append(factor)
            mine.remove(factor)
            other.remove(factor)
    if first.bound:  # a mixture has to stay a product of its two vectors
        shared += [f for f in mine if second is None]
        mine = mine if second is not None else []
    a, b = ir.product(mine), ir.product(other)
    sides = (b, a) if turned else (a, b)
    chosen = [] if a is b else [ir.apply("where", condition, *sides)]
    return Term((*shared, *(chosen or mine)), first.bound, first.read)


def _plus(a: Linear, b: Linear) -> Linear:
    return Linear((*a.terms, *b.terms), ir.add(a.rest, b.rest))


def times(a: Node, b: Node) -> Node:
    """`a * b`, 0 where one is 0."""
    return ZERO if ir.is_number(a, 0) or ir.is_number(b, 0) else ir.mul(a, b)


def summed(bound: tuple[Index, ...], node: Node) -> Node:
    for index in bound:
        node = ir.reduce("sum", index, node)
    return node


def factors_of(node: Node) -> Iterator[Node]:
    """The factors of a product or quotient; 1 is none.

    >>> a, b = ir.read("a"), ir.read("b")
    >>> [short(f) for f in factors_of(ir.neg(ir.div(a, b)))]
    ['-1', 'a', '1 / b']
    """
    for part in ir.factors(node):
        if isinstance(part, Apply) and part.function == "div" and not ir.is_number(part.arguments[0], 1):
            yield from factors_of(part.arguments[0])
            yield from (ir.div(ONE, f) for f in factors_of(part.arguments[1]))
        elif not ir.is_number(part, 1):
            yield part


def replace_everywhere(root: Node, part: Node, marker: Read) -> Node:
    """`root` with `part`, under every name of its free indices, replaced by a read of `marker` there."""
    axes = marker.indices
    here: dict[str, set[Index]] = {}
    for node in ir.walk([root]):
        for index in node.free:
            here.setdefault(index.dim, set()).add(index)
    mapping: dict[Node, Node] = {}
    for names in itertools.product(*(sorted(here.get(a.dim, {a})) for a in axes)):
        if len(set(names)) == len(names):
            renamed = ir.rename(part, dict(zip(axes, names)))
            mapping[renamed] = ir.read(marker.operand, marker.component, names)
    return substitute([root], mapping)[0]


def sum_of_products(products: list[tuple[Node, ...]]) -> Node:
    """The sum of products of factors, with what all of them share in front: `a*b - c*b` is `b * (a - c)`.

    Equal products are counted; what cancels is gone.

    >>> a, b, c = (ir.read(n) for n in "abc")
    >>> short(sum_of_products([(b, a), (ir.number(-1), c, b)]))
    'b * (a - c)'
    """
    counted: list[tuple[float, list[Node]]] = []
    for product in products:
        count = 1.0
        letters: list[Node] = []
        for factor in product:
            if isinstance(factor, Number):
                count *= factor.value
            else:
                letters.append(factor)
        key = sorted(map(id, letters))
        twin = next((n for n, (_, other) in enumerate(counted) if sorted(map(id, other)) == key), None)
        if twin is None:
            counted.append((count, letters))
        else:
            counted[twin] = (counted[twin][0] + count, counted[twin][1])
    counted = [(count, letters) for count, letters in counted if count != 0]
    if not counted:
        return ZERO
    shared: list[Node] = []
    for factor in list(counted[0][1]):
        if all(factor in letters for _, letters in counted):
            shared.append(factor)
            for _, letters in counted:
                letters.remove(factor)
    if all(count == counted[0][0] for count, _ in counted):
        shared.insert(0, ir.number(counted[0][0]))
        counted = [(1.0, letters) for _, letters in counted]
    elif all(count < 0 for count, _ in counted):
        shared.insert(0, ir.number(-1))
        counted = [(-count, letters) for count, letters in counted]
    counted.sort(key=lambda item: item[0] < 0)  # 1 - z, not -z + 1
    rest = ir.total(ir.product([ir.number(count), *letters]) for count, letters in counted)
    return ir.product([*shared, rest])
