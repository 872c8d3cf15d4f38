"""Where a loop over a row is cut: chains of functions, one of the result of another.

In: formulas. Out: the nodes that are computed in a loop of their own, before what needs them.

`tanh(f c + i z)` waits for the three functions in f, i and z. In one loop a processor holds too few elements at a time
to fill that wait with the work of others; in two loops every function of a loop is ready at once, and the work of
many elements overlaps (an LSTM: 63 cycles for each vector of units, against 78 in one loop).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from rekern import ir
from rekern.functions import CHEAP
from rekern.ir import Apply, Node


def cuts(roots: Sequence[Node]) -> list[Node]:
    """What is computed aside, inner nodes first: links of chains, and functions that are needed before and after a cut.

    >>> from rekern.ir import Index, add, apply, read
    >>> x = read("x", (), (Index("D"),))
    >>> grown = apply("exp", x)
    >>> waiting = add(x, grown)
    >>> cuts([apply("tanh", waiting)]) == [waiting]
    True
    >>> cuts([apply("tanh", waiting), add(grown, grown)]) == [waiting]
    True
    >>> cuts([ir.mul(grown, apply("tanh", waiting)), waiting]) == [grown, waiting]
    True
    """
    depths = _depths(roots)
    links = {c for node in depths if _is_long(node) for c in ir.children(node) if depths[c] and c.free == node.free}
    if not links:
        return []
    levels: dict[Node, set[int]] = {}  # in which loops a function is needed
    for root in [*roots, *links]:
        other = links - {root}
        own = list(ir.walk([root], partial(_up_to, other)))
        level = max((depths[n] for n in own if n in other), default=0)
        for node in own:
            if _is_long(node):
                levels.setdefault(node, set()).add(level)
    return [n for n in depths if n in links or len(levels.get(n, ())) > 1]


def _depths(roots: Sequence[Node]) -> Mapping[Node, int]:
    """How many functions wait for each other below each node, itself included; along the axes that it has itself."""
    depths: dict[Node, int] = {}
    for node in ir.walk(roots):
        below = [depths[c] for c in ir.children(node) if c.free == node.free]
        depths[node] = max(below, default=0) + _is_long(node)
    return depths


def _up_to(ends: Collection[Node], node: Node) -> Sequence[Node]:
    return () if node in ends else ir.children(node)


def _is_long(node: Node) -> bool:
    """Whether a node is a function that takes many instructions one after the other, for each number of a row."""
    return isinstance(node, Apply) and node.function not in CHEAP and len(node.free) == 1
