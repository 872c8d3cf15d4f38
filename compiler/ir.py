"""The language of one step of time: scalar formulas in indexed symbols, five node types.

In: numbers, reads of operands, functions of them. Out: immutable, interned nodes: two formulas that are
written the same are the same object, so comparison is `is` and shared work is shared by construction.

A formula such as `S[k, v] + beta * k[k] * (v[v] - sum_k' k[k'] * S[k', v])` is a node whose `free` indices
are {k, v}. Broadcasting, transposes and outer products are only a matter of which index stands where.
Axes with a literal size are unrolled before they get here: `x[2]` of `Input(4, "D")` is a read with
component (2,).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from rekern.digests import digest_of

Reduction = Literal["sum", "max"]
COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "eq", "ne"})


@dataclass(frozen=True, slots=True, order=True)
class Index:
    """A running index over the named axis `dim`; `number` tells several indices of one axis apart."""

    dim: str
    number: int = 0

    def __str__(self) -> str:
        return self.dim.lower() + "'" * self.number


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Number:
    """A constant."""

    value: float
    free: frozenset[Index] = field(repr=False)
    digest: str = field(repr=False)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Size:
    """The length of a named axis, as a number (`mean` divides by it)."""

    dim: str
    free: frozenset[Index] = field(repr=False)
    digest: str = field(repr=False)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Read:
    """One number of an operand: `component` on its literal axes, `indices` on its named axes, in order."""

    operand: str
    component: tuple[int, ...]
    indices: tuple[Index, ...]
    free: frozenset[Index] = field(repr=False)
    digest: str = field(repr=False)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Apply:
    """An elementwise function of the table in `rekern.functions`, at one point of the index space."""

    function: str
    arguments: tuple[Node, ...]
    free: frozenset[Index] = field(repr=False)
    digest: str = field(repr=False)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Reduce:
    """`sum` or `max` of `body` over all values of `index`."""

    operation: Reduction
    index: Index
    body: Node
    free: frozenset[Index] = field(repr=False)
    digest: str = field(repr=False)


Node = Number | Size | Read | Apply | Reduce  # the whole language

Predicate = Callable[[Node], bool]
_interned: weakref.WeakValueDictionary[object, Node] = weakref.WeakValueDictionary()


def number(value: float) -> Number:
    """A constant. `-0.0` and `0.0` are told apart."""
    key = ("number", repr(float(value)))
    found = _interned.get(key)
    if not isinstance(found, Number):
        found = Number(float(value), frozenset(), digest_of(*key))
        _interned[key] = found
    return found


def size(dim: str) -> Size:
    key = ("size", dim)
    found = _interned.get(key)
    if not isinstance(found, Size):
        found = Size(dim, frozenset(), digest_of(*key))
        _interned[key] = found
    return found


def read(operand: str, component: tuple[int, ...] = (), indices: tuple[Index, ...] = ()) -> Read:
    if len(set(indices)) != len(indices):
        raise ValueError(f"{operand} is read on its diagonal, {indices}; the language has no diagonals")
    key = ("read", operand, component, indices)
    found = _interned.get(key)
    if not isinstance(found, Read):
        names = ",".join(f"{i.dim}#{i.number}" for i in indices)
        digest = digest_of("read", operand, repr(component), names)
        found = Read(operand, component, indices, frozenset(indices), digest)
        _interned[key] = found
    return found


def apply(function: str, *arguments: Node) -> Apply:
    """`function` of `arguments`. The digest does not see the order of a commutative pair."""
    key = ("apply", function, *map(id, arguments))
    found = _interned.get(key)
    if not isinstance(found, Apply) or found.arguments != arguments:
        digests = [a.digest for a in arguments]
        if function in COMMUTATIVE:
            digests.sort()
        free = frozenset[Index]().union(*(a.free for a in arguments))
        found = Apply(function, arguments, free, digest_of("apply", function, *digests))
        _interned[key] = found
    return found


def reduce(operation: Reduction, index: Index, body: Node) -> Node:
    """`operation` of `body` over `index`.

    Factors that do not run with `index` stand outside a sum. The bound index gets the smallest number that is
    not free in the result, so formulas that differ only in the name of a bound index are one node.
    """
    if index not in body.free:
        return mul(size(index.dim), body) if operation == "sum" else body
    if operation == "sum":
        outside, inside = split_product(body, lambda factor: index not in factor.free)
        if outside:
            return product([*outside, reduce(operation, index, product(inside))])
    free = body.free - {index}
    fresh = index
    for candidate in range(len(free) + 1):
        fresh = Index(index.dim, candidate)
        if fresh not in free:
            break
    if fresh != index:
        body = rename(body, {index: fresh})
    return _reduction(operation, fresh, body)


def _reduction(operation: Reduction, index: Index, body: Node) -> Reduce:
    key = ("reduce", operation, index, id(body))
    found = _interned.get(key)
    if not isinstance(found, Reduce) or found.body is not body:
        digest = digest_of("reduce", operation, f"{index.dim}#{index.number}", body.digest)
        found = Reduce(operation, index, body, body.free - {index}, digest)
        _interned[key] = found
    return found


# -- small algebra: what every caller may rely on to hold exactly --------------------------------------------


def is_number(node: Node, value: float) -> bool:
    return isinstance(node, Number) and node.value == value


def add(a: Node, b: Node) -> Node:
    if is_number(a, 0):
        return b
    if is_number(b, 0):
        return a
    if isinstance(a, Number) and isinstance(b, Number):
        return number(a.value + b.value)
    if isinstance(b, Apply) and b.function == "neg":
        return sub(a, b.arguments[0])
    return apply("add", a, b)


def sub(a: Node, b: Node) -> Node:
    if is_number(b, 0):
        return a
    if is_number(a, 0):
        return neg(b)
    if isinstance(a, Number) and isinstance(b, Number):
        return number(a.value - b.value)
    if isinstance(b, Apply) and b.function == "neg":
        return add(a, b.arguments[0])
    return apply("sub", a, b)


def mul(a: Node, b: Node) -> Node:
    if is_number(a, 1):
        return b
    if is_number(b, 1):
        return a
    if is_number(a, -1):
        return neg(b)
    if is_number(b, -1):
        return neg(a)
    if isinstance(a, Number) and isinstance(b, Number):
        return number(a.value * b.value)
    if isinstance(a, Apply) and a.function == "neg":
        return neg(mul(a.arguments[0], b))
    if isinstance(b, Apply) and b.function == "neg":
        return neg(mul(a, b.arguments[0]))
    return apply("mul", a, b)


def div(a: Node, b: Node) -> Node:
    if is_number(b, 1):
        return a
    if isinstance(a, Number) and isinstance(b, Number) and b.value != 0:
        return number(a.value / b.value)
    if isinstance(a, Apply) and a.function == "neg":
        return neg(div(a.arguments[0], b))
    return apply("div", a, b)


def neg(a: Node) -> Node:
    if isinstance(a, Number):
        return number(-a.value)
    if isinstance(a, Apply) and a.function == "neg":
        return a.arguments[0]
    return apply("neg", a)


SIMPLIFYING: dict[str, Callable[..., Node]] = {"add": add, "sub": sub, "mul": mul, "div": div, "neg": neg}


def build(function: str, *arguments: Node) -> Node:
    """`apply` with the simplifications of the arithmetic constructors."""
    simplified = SIMPLIFYING.get(function)
    return simplified(*arguments) if simplified is not None else apply(function, *arguments)


def total(nodes: Iterable[Node]) -> Node:
    """The sum of `nodes`; 0 for none."""
    result: Node = number(0)
    for node in nodes:
        result = add(result, node)
    return result


def product(nodes: Iterable[Node]) -> Node:
    """The product of `nodes`; 1 for none."""
    result: Node = number(1)
    for node in nodes:
        result = mul(result, node)
    return result


def factors(node: Node) -> list[Node]:
    """The factors of a product, signs as -1: `-a * b` gives [-1, a, b].

    >>> factors(neg(mul(read("a"), read("b")))) == [number(-1), read("a"), read("b")]
    True
    """
    if isinstance(node, Apply) and node.function == "mul":
        return [f for a in node.arguments for f in factors(a)]
    if isinstance(node, Apply) and node.function == "neg":
        return [number(-1), *factors(node.arguments[0])]
    return [node]


def split_product(node: Node, belongs: Predicate) -> tuple[list[Node], list[Node]]:
    """The factors of `node` for which `belongs` holds, and the others.

    A quotient counts as its factors and the inverse of its divisor.
    """
    if isinstance(node, Apply) and node.function == "div" and belongs(node.arguments[1]):
        inside, outside = split_product(node.arguments[0], belongs)
        return [*inside, div(number(1), node.arguments[1])], outside
    parts = factors(node)
    if len(parts) == 1:
        return (parts, []) if belongs(node) else ([], parts)
    chosen: list[Node] = []
    rest: list[Node] = []
    for part in parts:
        taken, left = split_product(part, belongs)
        chosen += taken
        rest += left
    return chosen, rest


def terms(node: Node) -> list[Node]:
    """The summands of a sum: `a - b + c` gives [a, -b, c]."""
    if isinstance(node, Apply) and node.function == "add":
        return [t for a in node.arguments for t in terms(a)]
    if isinstance(node, Apply) and node.function == "sub":
        return [*terms(node.arguments[0]), *(neg(t) for t in terms(node.arguments[1]))]
    if isinstance(node, Apply) and node.function == "neg":
        inner = terms(node.arguments[0])
        return [neg(t) for t in inner] if len(inner) > 1 else [node]
    return [node]


# -- walking and renaming ------------------------------------------------------------------------------------


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Number() | Size() | Read():
            return ()
        case Apply():
            return node.arguments
        case Reduce():
            return (node.body,)
        case _:
            assert_never(node)


def walk(
    roots: Iterable[Node], below: Callable[[Node], Sequence[Node]] = children
) -> Iterator[Node]:
    """Every node below `roots` once, arguments before the nodes that use them; `below` says what a node uses."""
    done: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((c, False) for c in reversed(below(node)) if c not in done)


def rename(node: Node, mapping: Mapping[Index, Index]) -> Node:
    """`node` with its free indices renamed, all at once; bound indices step aside."""
    done: dict[tuple[Node, tuple[tuple[Index, Index], ...]], Node] = {}

    def go(node: Node, mapping: Mapping[Index, Index]) -> Node:
        live = {i: mapping[i] for i in node.free if i in mapping and mapping[i] != i}
        if not live:
            return node
        key = (node, tuple(sorted(live.items())))
        if key in done:
            return done[key]
        result: Node
        match node:
            case Read():
                result = read(node.operand, node.component, tuple(live.get(i, i) for i in node.indices))
            case Apply():
                result = apply(node.function, *(go(a, live) for a in node.arguments))
            case Reduce():
                taken = {live.get(i, i) for i in node.free}
                candidates = (Index(node.index.dim, n) for n in range(len(taken) + 1))
                fresh = next(j for j in candidates if j not in taken)
                body = go(node.body, {**live, node.index: fresh})
                result = _reduction(node.operation, fresh, body)
            case _:
                raise AssertionError(f"{node} has no free index")
        done[key] = result
        return result

    return go(node, mapping)


def canonical_axes(dims: Iterable[str]) -> tuple[Index, ...]:
    """The indices of an array with these axes: numbered by rank among axes of the same name.

    >>> [str(i) for i in canonical_axes(["K", "K", "V"])]
    ['k', "k'", 'v']
    """
    seen: dict[str, int] = {}
    result = []
    for dim in dims:
        result.append(Index(dim, seen.get(dim, 0)))
        seen[dim] = seen.get(dim, 0) + 1
    return tuple(result)


def operands_read(roots: Iterable[Node]) -> set[str]:
    return {n.operand for n in walk(roots) if isinstance(n, Read)}
