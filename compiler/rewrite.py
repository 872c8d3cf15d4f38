"""One formula in place of another.

In: formulas, and what stands for what. Out: formulas, simplified as the constructors of `rekern.ir` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from rekern.ir import Apply, Node, Number, Read, Reduce, Size, build, children, reduce, walk


def rebuild(node: Node, parts: tuple[Node, ...]) -> Node:
    """`node` with other arguments."""
    match node:
        case Number() | Size() | Read():
            return node
        case Apply():
            return build(node.function, *parts)
        case Reduce():
            return reduce(node.operation, node.index, parts[0])
        case _:
            assert_never(node)


def substitute(roots: Iterable[Node], mapping: Mapping[Node, Node]) -> list[Node]:
    """`roots` with every node of `mapping` replaced, by one that has the same free indices or fewer."""
    roots = list(roots)
    new: dict[Node, Node] = {}
    for node in walk(roots):
        if node in mapping:
            new[node] = mapping[node]
        else:
            parts = tuple(new[c] for c in children(node))
            new[node] = node if parts == children(node) else rebuild(node, parts)
    return [new[r] for r in roots]
