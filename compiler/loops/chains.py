"""Where a loop over a row is cut: chains of functions, one of the result of another.

In: formulas. Out: the nodes that are computed in a loop of their own, before what needs them.

`tanh(f c + i z)` waits for the three functions in f, i and z. In one loop a processor holds too few elements at a time
to fill that wait with the work of others; in two loops every function of a loop is ready at once, and the work of
many elements overlaps (an LSTM: 63 cycles for each vector of units, against 78 in one loop).
"""

from __future__ import annotations

from collections.abc import Sequence

from rekern import ir
from rekern.functions import CHEAP
from rekern.ir import Apply, Node


def links(roots: Sequence[Node]) -> list[Node]:
    """The arguments of functions along one axis that wait for another function along it, inner ones first.

    >>> from rekern.ir import Index, add, apply, read
    >>> x = read("x", (), (Index("D"),))
    >>> waiting = add(x, apply("exp", x))
    >>> links([apply("tanh", waiting), apply("exp", add(x, x))]) == [waiting]
    True
    """
    waits: dict[Node, bool] = {}
    found: dict[Node, None] = {}
    for node in ir.walk(roots):
        waits[node] = _is_long(node) or any(waits[c] and c.free == node.free for c in ir.children(node))
        if _is_long(node):
            found.update(dict.fromkeys(c for c in ir.children(node) if waits[c] and c.free == node.free))
    return list(found)


def _is_long(node: Node) -> bool:
    """Whether a node is a function that takes many instructions one after the other, for each number of a row."""
    return isinstance(node, Apply) and node.function not in CHEAP and len(node.free) == 1
