"""Cotangents of states at the end of a segment of time as factors of those at its beginning.

In: `Programs` of a spec whose states go through a segment number by number. Out: for each factor that is not always 0,
how a step backwards changes it. Cotangents are linear in cotangents, so these are the steps of the cotangents
themselves, with those that are not followed left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rekern import ir
from rekern.gradient import cotangent
from rekern.ir import Apply, Node, Read, Reduce
from rekern.loops.program import Assign, Place
from rekern.schedules.programs import Programs

MARK = cotangent("")
Found = Callable[[Read], Node | None]


def sources(programs: Programs) -> list[Place]:
    """The cotangents at an exit, by the states that they belong to."""
    return [(o.name, cell) for o in programs.spec.states for cell in programs.spec.step.states[o.name]]


def factor(name: str, source: Place) -> str:
    """By what the cotangent of `source` at an exit counts in that of `name` on entry.

    >>> factor("a", ("m", ()))
    'd:a:from:m'
    """
    return ":".join([cotangent(name), "from", source[0], *map(str, source[1])])


def factors(programs: Programs) -> dict[Place, Assign]:
    """The steps of all factors that are not always 0."""
    steps = {a.target: a for a in programs.backward.assigns}
    found: dict[Place, Assign] = {}
    for source in sources(programs):
        reached, before = {source}, set[Place]()
        while reached != before:
            before = set(reached)
            for target in sources(programs):
                assign = steps[cotangent(target[0]), target[1]]
                value = linear(assign.value, _of(source, reached))
                if value is not None:
                    reached.add(target)
                if target in reached:
                    place = factor(target[0], source), target[1]
                    found[place] = Assign(place, assign.axes, ir.number(0) if value is None else value)
    return found


def _of(source: Place, reached: set[Place]) -> Found:
    """The factor in the place of a cotangent of a state; nothing in that of what the source does not reach."""

    def found(node: Read) -> Node | None:
        place = node.operand.removeprefix(MARK), node.component
        return ir.read(factor(place[0], source), node.component, node.indices) if place in reached else None

    return found


def linear(root: Node, found: Found) -> Node | None:
    """A formula that is linear in cotangents with each of them replaced; None: nothing is left.

    What is left out is not multiplied by 0: the other factor may be infinite.
    """
    new: dict[Node, Node | None] = {}  # of the nodes that read cotangents
    for node in ir.walk([root]):
        if isinstance(node, Read) and node.operand.startswith(MARK):
            new[node] = found(node)
        elif any(c in new for c in ir.children(node)):
            new[node] = _rebuilt(node, new)
    return new.get(root)


def _rebuilt(node: Node, new: Mapping[Node, Node | None]) -> Node | None:
    """A node over what has become of its arguments. In a sum, what reads no cotangents can only be 0."""
    match node:
        case Reduce():
            body = new[node.body]
            return None if body is None else ir.reduce(node.operation, node.index, body)
        case Apply(function="neg"):
            value = new[node.arguments[0]]
            return None if value is None else ir.neg(value)
        case Apply(function="add" | "sub"):
            left, right = (new.get(a) for a in node.arguments)
            if right is None:
                return left
            if left is None:
                return ir.neg(right) if node.function == "sub" else right
            return ir.build(node.function, left, right)
        case Apply(function="where"):
            condition, *cases = node.arguments
            values = [new.get(c) for c in cases]
            if all(v is None for v in values):
                return None
            return ir.build("where", condition, *(ir.number(0) if v is None else v for v in values))
        case Apply(function="mul" | "div"):
            parts = [new.get(a, a) for a in node.arguments]
            return None if None in parts else ir.build(node.function, *(p for p in parts if p is not None))
    raise AssertionError(f"a cotangent is not linear in cotangents: {node}")
