"""Sums over a state that the step before takes: a step walks its state once less.

In: a `Program`, and which of its arrays hold the state before the step and the state after it. Out: `Carried`: the
same step, reading its leading sums from arrays that the step before has left, and leaving those of the next step.

A step such as `S + k (v - k @ S)` walks its state twice, since `k @ S` must be known before anything is written. But
the sum reads nothing except the state, which the step before has had in registers, and inputs, which are known ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from rekern import ir
from rekern.functions import CHEAP
from rekern.ir import Apply, Node, Read, Reduce
from rekern.loops.lower import label
from rekern.loops.order import arrange
from rekern.loops.padding import padding
from rekern.loops.program import CARRIED, NEXT, Assign, Place, Program
from rekern.rewrite import substitute

KNOWN = frozenset({"row", "param", "scalar"})  # what does not wait for the state


@dataclass(frozen=True)
class Carried:
    """A step whose leading sums the step before has taken.

    first: Takes them from the state itself, where no step was before.
    step: The step, which ends with the sums of the next one.
    axes: The axes of every carried array.
    """

    first: Program
    step: Program
    axes: Mapping[str, tuple[ir.Index, ...]]

    @property
    def ahead(self) -> tuple[Place, ...]:
        """The rows of the next step that the step reads, as the next step calls them."""
        nodes = ir.walk(a.value for a in self.step.assigns)
        read = {(n.operand, n.component) for n in nodes if isinstance(n, Read) and n.operand.startswith(NEXT)}
        return tuple(sorted((name.removeprefix(NEXT), cell) for name, cell in read))


def carry(program: Program, states: Mapping[str, str]) -> Carried | None:
    """The step with sums carried over, where that saves a walk; None where it does not.

    Args:
        states: The array of a state before the step -> the array of the same state after it.
    """
    walked = walk_count(program)
    if walked < 2:
        return None
    sums = [n for n in ir.walk(a.value for a in program.assigns) if _leads(n, program, states)]
    for chosen in [*([one] for one in sums), sums]:
        if walk_count(_carried(program, states, chosen).step) < walked:
            return _carried(*_apart(program, states, chosen))
    return None


def walk_count(program: Program) -> int:
    """How often a step walks over rows along the lane."""
    return sum(bool(nest.outer) and nest.lane is not None for nest in arrange(program).nests)


def _leads(node: Node, program: Program, states: Mapping[str, str]) -> TypeGuard[Reduce]:
    """Whether a node is a sum over rows of a state as it stands before the step, and of what is known ahead."""
    if not isinstance(node, Reduce) or not node.free or len(node.body.free) < 2:
        return False
    read = ir.operands_read([node])
    if not read & states.keys() or any(program.roles[n] not in KNOWN for n in read - states.keys()):
        return False
    inner = (n for n in ir.walk([node.body]) if isinstance(n, Reduce))
    return not any(ir.operands_read([n]) & states.keys() for n in inner)


def _apart(
    program: Program, states: Mapping[str, str], sums: Iterable[Reduce]
) -> tuple[Program, Mapping[str, str], list[Reduce]]:
    """The program with sums such as `sum_k k[k] (S[k, v] + q[k] u[v])` taken apart: `k @ S + (k @ q) u[v]`.

    The second sum needs no walk over the rows of the state. The sums that are left are the last of the three.
    """
    new: dict[Node, Node] = {s: _separated(s, states) for s in sums}
    values = substitute([a.value for a in program.assigns], new)
    assigns = tuple(replace(a, value=value) for a, value in zip(program.assigns, values, strict=True))
    left = [n for n in ir.walk(new.values()) if isinstance(n, Reduce) and ir.operands_read([n]) & states.keys()]
    return replace(program, assigns=assigns), states, left


def _separated(node: Reduce, states: Mapping[str, str]) -> Node:
    factors = ir.factors(node.body)
    sums = [f for f in factors if len(ir.terms(f)) > 1 and ir.operands_read([f]) & states.keys()]
    if node.operation != "sum" or len(sums) != 1:
        return node
    outside = ir.product(f for f in factors if f is not sums[0])
    kept, apart = [], []
    for term in ir.terms(sums[0]):
        alone = ir.reduce("sum", node.index, ir.mul(outside, term))
        wide = any(isinstance(n, Reduce) and len(n.body.free) > 1 for n in ir.walk([alone]))
        if wide or ir.operands_read([term]) & states.keys():
            kept.append(term)
        else:
            apart.append(alone)
    return ir.total([ir.reduce("sum", node.index, ir.mul(outside, ir.total(kept))), *apart])


def _carried(program: Program, states: Mapping[str, str], sums: Sequence[Reduce]) -> Carried:
    values = [a.value for a in program.assigns]
    names: dict[Node, str] = {}
    axes: dict[str, tuple[ir.Index, ...]] = {}

    def carried(node: Node) -> Read:
        """The array that carries `node`; nodes that differ in the names of indices have one."""
        indices = tuple(sorted(node.free, key=lambda i: (i.dim == program.lane, i)))
        own = ir.canonical_axes(i.dim for i in indices)
        plain = ir.rename(node, dict(zip(indices, own, strict=True)))
        if plain not in names:
            word = name = CARRIED + label(plain)
            while name in axes:
                name = f"{word}_{len(axes) + 1}"
            names[plain], axes[name] = name, own
        return ir.read(names[plain], (), indices)

    reads: dict[Node, Node] = {s: carried(s) for s in sums}
    without = substitute(values, reads)
    costly = _costly(sums, program)
    shared = [n for n in ir.walk(without) if n in costly]
    reads |= {n: carried(n) for n in shared}
    values = substitute(values, reads)
    new = {a.target: (a.axes, value) for a, value in zip(program.assigns, values, strict=True)}

    first = [Assign((name, ()), axes[name], node) for node, name in names.items()]
    after = [replace(a, value=following(a.value, program, states, new)) for a in first]
    roles = dict(program.roles)
    rows = [n for n, role in program.roles.items() if role == "row"]
    roles |= dict.fromkeys((NEXT + n for n in rows), "row")
    roles |= dict.fromkeys(axes, "state")
    known = {**program.padding, **{NEXT + n: program.padding[n] for n in rows}}
    if program.lane is not None:
        known |= {name: padding(node, program.lane, known) for node, name in names.items()}
    step = [replace(a, value=value) for a, value in zip(program.assigns, values, strict=True)]
    return Carried(
        replace(program, name=f"{program.name}, first sums", assigns=tuple(first), roles=roles, padding=known),
        replace(program, name=f"{program.name}, carried", assigns=(*step, *after), roles=roles, padding=known),
        axes,
    )


def following(
    node: Node,
    program: Program,
    states: Mapping[str, str],
    new: Mapping[Place, tuple[tuple[ir.Index, ...], Node]],
) -> Node:
    """`node` as the next step has it: of the states after this step, `new` with their axes, and of its own rows."""
    swap: dict[Node, Node] = {}
    for n in ir.walk([node]):
        if isinstance(n, Read) and n.operand in states:
            axes, value = new[states[n.operand], n.component]
            swap[n] = ir.rename(value, dict(zip(axes, n.indices, strict=True)))
        elif isinstance(n, Read) and program.roles[n.operand] == "row":
            swap[n] = ir.read(NEXT + n.operand, n.component, n.indices)
    return substitute([node], swap)[0]


def _costly(sums: Iterable[Node], program: Program) -> set[Node]:
    """Exponentials and the like of what is known ahead: a step that has them for the next one should hand them on."""
    nodes = list(ir.walk(sums))
    found: set[Node] = {
        n
        for n in nodes
        if isinstance(n, Apply)
        and n.function not in CHEAP
        and all(program.roles[name] in KNOWN for name in ir.operands_read([n]))
    }
    inner = {c for n in found for c in ir.walk(ir.children(n))}
    return found - inner
