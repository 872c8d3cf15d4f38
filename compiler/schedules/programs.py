"""The programs of a spec: what the forward step, the recording step and the backstep store.

In: a `Recurrence`. Out: `Programs`. A recording step keeps what the gradient asked for: it writes the new states
beside the old ones, or, where rows are streamed, the old ones as rows like any output. The backstep overwrites the
cotangents of the states in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rekern import ir
from rekern.gradient import Backstep, cotangent, gradient
from rekern.ir import Index, Node, Read, Reduce, Size
from rekern.loops.padding import Padding, initial, padding
from rekern.loops.program import NEXT, Assign, Place, Program, Role
from rekern.rewrite import substitute
from rekern.rules import STABLE, rewrite
from rekern.schedules.carry import Carried, carry
from rekern.schedules.pairs import pair
from rekern.spec import Recurrence, derived
from rekern.trace import Cell, Dim, named

Keep = Literal["blocks", "steps"]
SAVED = "saved:"  # the value of a state before a step, as a row of its own for the gradient
LEFT, RIGHT = "left:", "right:"  # the two sides of a weight's gradient, kept for one matrix product


@dataclass(frozen=True)
class WeightTerm:
    """One product of a weight's gradient: `d W[o, j] += sum over steps of left[o] * right[j]`.

    No two products of a weight have one right side.
    """

    weight: Place
    left: str
    right: str


@dataclass(frozen=True)
class Programs:
    """All that a spec's kernels compute in one step, before sizes are chosen.

    lane: the axis whose columns never meet inside a step, so that tasks can own some of them; None for none.
    rows: whether a weight is multiplied with a state, so that batch rows should share it.
    """

    spec: Recurrence
    lane: str | None
    rows: bool

    @cached_property
    def backstep(self) -> Backstep:
        return gradient(self.spec)

    @property
    def keep(self) -> Keep:
        """What the forward pass keeps for the gradient.

        Every step's states and sums where no state has more than one named axis (they are no larger than the
        inputs), else one state a block.
        """
        return "steps" if all(len(o.axes) <= 1 for o in self.spec.states) else "blocks"

    @property
    def streamed(self) -> bool:
        """Whether a step does little more than read rows and write rows, each number once: memory is the limit."""
        return self.keep == "steps" and not self.rows

    @cached_property
    def heads_are_columns(self) -> bool:
        """Whether the heads of a call could be one with longer rows: operands are rows, formulas read no length."""
        spec = self.spec
        dims = [o.dims for o in spec.operands] + list(spec.step.output_dims.values())
        sizes = any(isinstance(node, Size) for node in ir.walk(spec.step.roots()))
        return self.streamed and not sizes and all(d == (self.lane,) for d in dims)

    @cached_property
    def saved(self) -> Mapping[Place, tuple[Index, ...]]:
        """Rows that a streamed step keeps: the old states and the sums that the gradient reads, with their axes."""
        back = [*self.backstep.states.values(), *self.backstep.inputs.values(), *self.backstep.params.values()]
        nodes = ir.walk([node for cells in back for node in cells.values()])
        read = {(n.operand, n.component) for n in nodes if isinstance(n, Read)}
        states = [((o.name, cell), o) for o in self.spec.states for cell in self.spec.step.states[o.name]]
        return {
            **{(SAVED + name, cell): ir.canonical_axes(o.axes) for (name, cell), o in states if (name, cell) in read},
            **{(k.name, ()): k.axes for k in self.backstep.kept},
        }

    @property
    def tiled(self) -> bool:
        """Whether a task owns a fixed number of columns: there are other axes to walk for each of them."""
        return self.lane is not None and any(
            self.lane in o.axes and len(o.axes) > 1 for o in self.spec.states
        )

    def _base_roles(self) -> dict[str, Role]:
        kinds: dict[str, Role] = {"state": "state", "input": "row", "param": "param", "scalar": "scalar"}
        return {o.name: kinds[o.kind] for o in self.spec.operands}

    def _program(self, name: str, assigns: list[Assign], extra: Mapping[str, Role]) -> Program:
        roles = {**self._base_roles(), **extra}
        return Program(f"{self.spec.name} {name}", tuple(assigns), roles, self.lane, self.rows, self.padding)

    @cached_property
    def padding(self) -> Mapping[str, Padding]:
        """What the arrays hold behind the last column of the lane.

        Operands and cotangents are read with zeros there. Of what steps write, it is the least that holds for
        the first step and that a step keeps. Rows that are streamed are read with whatever lies behind them.
        """
        lane, spec, back = self.lane, self.spec, self.backstep
        if lane is None or self.streamed:
            return {}
        step = spec.step
        written: dict[str, list[Node]] = {o.name: [*step.states[o.name].values()] for o in spec.states}
        written |= {cotangent(n): [*cells.values()] for n, cells in back.states.items()}
        written |= {k.name: [k.value] for k in back.kept}
        known = {o.name: Padding.ZERO for o in spec.operands}
        known |= {cotangent(n): Padding.ZERO for n in step.outputs}
        known |= dict.fromkeys(written, Padding.ZERO)
        known |= {o.name: initial(o.init) for o in spec.states}
        before: dict[str, Padding] = {}
        while known != before:
            before = dict(known)
            for name, nodes in written.items():
                known[name] = max(known[name], *(padding(n, lane, known) for n in nodes))
        return known | {NEXT + o.name: known[o.name] for o in spec.states}

    @cached_property
    def forward(self) -> Program:
        """New states in place of the old ones, and the outputs."""
        step = self.spec.step
        assigns = [a for o in self.spec.states for a in _assigns(o.name, o.dims, step.states[o.name])]
        return self._program("forward", assigns + self._outputs(), dict.fromkeys(step.outputs, "result"))

    @cached_property
    def carried_forward(self) -> Carried | None:
        """The forward step with sums that the step before has taken, where that saves a walk over a state."""
        return carry(self.forward, {o.name: o.name for o in self.spec.states}) if self.tiled else None

    @cached_property
    def carried_recording(self) -> Carried | None:
        """The same of a step of a block that the gradient goes through again."""
        return carry(self.silent_recording, {o.name: NEXT + o.name for o in self.spec.states}) if self.tiled else None

    @cached_property
    def carried_backward(self) -> Carried | None:
        """The same of the backstep: the sums over the cotangents are those of the step before it in time."""
        cotangents = [cotangent(o.name) for o in self.spec.states]
        return carry(self.backward, {n: n for n in cotangents}) if self.tiled else None

    @cached_property
    def forward_pair(self) -> Program | None:
        """Two forward steps in one walk over a state, where a step has one walk."""
        return pair(self.forward, [o.name for o in self.spec.states]) if self.tiled else None

    @property
    def loop_steps(self) -> tuple[tuple[Program, int], ...]:
        """What a call with its gradient runs, and for how many steps at a time."""
        both = (
            (self.forward, self.carried_forward),
            (self.silent_recording, self.carried_recording),
            (self.backward, self.carried_backward),
        )
        single = tuple((carried.step if carried else plain, 1) for plain, carried in both)
        return ((self.forward_pair, 2), *single[1:]) if self.forward_pair else single

    @cached_property
    def recording(self) -> Program:
        """New states, what the gradient reads again, and the outputs."""
        if self.streamed:
            kept: dict[Place, Node] = {(k.name, ()): k.value for k in self.backstep.kept}
            assigns = [
                Assign(place, axes, kept.get(place) or ir.read(place[0].removeprefix(SAVED), place[1], axes))
                for place, axes in self.saved.items()
            ]
            results = [*self.spec.step.outputs, *(name for name, _ in self.saved)]
            return self._program("recording", [*self.forward.assigns, *assigns], dict.fromkeys(results, "result"))
        silent = self.silent_recording
        return Program(
            f"{self.spec.name} recording",
            (*silent.assigns, *self._outputs()),
            {**silent.roles, **dict.fromkeys(self.spec.step.outputs, "result")},
            self.lane,
            self.rows,
            self.padding,
        )

    @cached_property
    def silent_recording(self) -> Program:
        """A recording step without outputs, for a block of steps that the gradient goes through again.

        It has the states at hand, so it finds the cotangents that need nothing from later steps, such as that of
        a query.
        """
        step = self.spec.step
        assigns = [a for o in self.spec.states for a in _assigns(NEXT + o.name, o.dims, step.states[o.name])]
        assigns += [Assign((k.name, ()), k.axes, k.value) for k in self.backstep.kept]
        names = [*(NEXT + o.name for o in self.spec.states), *(k.name for k in self.backstep.kept)]
        roles: dict[str, Role] = dict.fromkeys(names, "state")
        for o in self.spec.of_kind("input"):
            if o.name in self.early:
                assigns += _assigns(cotangent(o.name), o.dims, self._found_again(self.backstep.inputs[o.name]))
                roles[cotangent(o.name)] = "result"
                roles |= dict.fromkeys(map(cotangent, step.outputs), "row")
        return self._program("again", assigns, roles)

    @cached_property
    def early(self) -> frozenset[str]:
        """Inputs whose cotangents need nothing from later steps, where a block of steps is gone through again."""
        later = {cotangent(o.name) for o in self.spec.states}
        if self.keep == "steps":
            return frozenset()
        inputs = self.backstep.inputs.items()
        return frozenset(n for n, cells in inputs if not ir.operands_read(cells.values()) & later)

    @property
    def reads_slots(self) -> bool:
        """Whether the walk backwards reads states or kept values, and not only what the block's second run found."""
        names = {o.name for o in self.spec.states} | {k.name for k in self.backstep.kept}
        return bool(ir.operands_read(a.value for a in self.backward.assigns) & names)

    def _found_again(self, cells: Mapping[Cell, Node]) -> dict[Cell, Node]:
        """The formulas with what is kept written out: the step computes it anyway."""
        kept: dict[Node, Node] = {}
        values = {k.name: k for k in self.backstep.kept}
        for node in ir.walk(cells.values()):
            if isinstance(node, Read) and node.operand in values:
                k = values[node.operand]
                kept[node] = ir.rename(k.value, dict(zip(k.axes, node.indices, strict=True)))
        return dict(zip(cells, substitute([*cells.values()], kept), strict=True))

    def _outputs(self) -> list[Assign]:
        step = self.spec.step
        return [a for n, cells in step.outputs.items() for a in _assigns(n, step.output_dims[n], cells)]

    @cached_property
    def weight_terms(self) -> tuple[tuple[WeightTerm, ...], dict[str, tuple[Index, Node]]]:
        """Weight gradients as matrix products after the loop, and the vectors of a step that they need."""
        terms: list[WeightTerm] = []
        vectors: dict[str, tuple[Index, Node]] = {}
        inputs = {
            _factors_of(node): (cotangent(n), cell)
            for n, cells in self.backstep.inputs.items()
            for cell, node in cells.items()
            if len(self.spec.operand(n).axes) == 1
        }
        names: dict[tuple[str, ...], str] = {}

        def vector(prefix: str, node: Node, index: Index) -> str:
            """The name under which the vector is found: a cotangent of an input, if it is one."""
            plain = ir.rename(node, {index: Index(index.dim)})
            key = _factors_of(plain)
            if key in inputs:
                return encode(inputs[key])
            if key not in names:
                names[key] = f"{prefix}{len(names)}"
                vectors[names[key]] = (Index(index.dim), plain)
            return names[key]

        for name, cells in self.backstep.params.items():
            for cell, node in cells.items():
                axes = ir.canonical_axes(self.spec.operand(name).axes)
                by_right: dict[str, list[Node]] = {}
                for left, right in self._separated(name, node) or ():
                    by_right.setdefault(vector(RIGHT, right, axes[1]), []).append(left)
                for found, lefts in by_right.items():
                    terms.append(WeightTerm((name, cell), vector(LEFT, ir.total(lefts), axes[0]), found))
        return tuple(terms), vectors

    def _separated(self, name: str, node: Node) -> list[tuple[Node, Node]] | None:
        """The gradient of a weight as a sum of `left[o] * right[j]`; None if it is not one."""
        axes = ir.canonical_axes(self.spec.operand(name).axes)
        if not self.rows or len(axes) != 2 or ir.is_number(node, 0):
            return None
        pairs = []
        for term in ir.terms(node):
            right, left = ir.split_product(term, lambda f: axes[1] in f.free)
            if any(axes[0] in f.free for f in right):
                return None
            pairs.append((ir.product(left), ir.product(right)))
        return pairs

    @cached_property
    def backward(self) -> Program:
        """Cotangents of the states in place, of the inputs as rows, of the parameters added up."""
        spec, back = self.spec, self.backstep
        assigns = [a for o in spec.states for a in _assigns(cotangent(o.name), o.dims, back.states[o.name])]
        roles: dict[str, Role] = dict.fromkeys((cotangent(o.name) for o in spec.states), "state")
        kept = [*(k.name for k in back.kept), *(o.name for o in spec.states)]
        roles.update(dict.fromkeys(kept, "row" if self.streamed else "state"))
        roles.update(dict.fromkeys(map(cotangent, spec.step.outputs), "row"))
        for o in spec.of_kind("input"):
            if o.name not in self.early:
                assigns += _assigns(cotangent(o.name), o.dims, back.inputs[o.name])
                roles[cotangent(o.name)] = "result"
        terms, vectors = self.weight_terms
        for o in spec.of_kind("param"):
            added = {
                cell: node
                for cell, node in back.params[o.name].items()
                if not ir.is_number(node, 0) and not any(t.weight == (o.name, cell) for t in terms)
            }
            assigns += _assigns(cotangent(o.name), o.dims, added, add=True)
            roles[cotangent(o.name)] = "state"
        for name, (index, node) in vectors.items():
            assigns.append(Assign((name, ()), (index,), node))
            roles[name] = "result"
        return self._program("backward", assigns, roles)


def _factors_of(node: Node) -> tuple[str, ...]:
    """What tells products apart, however they were multiplied out."""
    return tuple(sorted(factor.digest for factor in ir.factors(node)))


def encode(place: Place) -> str:
    """A place as one word: `d:x.0`."""
    return ".".join([place[0], *map(str, place[1])])


def decode(word: str) -> Place:
    name, *cell = word.split(".")
    return name, tuple(map(int, cell))


def _assigns(
    target: str, dims: tuple[Dim, ...], cells: Mapping[Cell, Node], add: bool = False
) -> list[Assign]:
    axes = ir.canonical_axes(named(dims))
    return [Assign((target, cell), axes, node, add) for cell, node in cells.items()]


def programs(spec: Recurrence) -> Programs:
    """Choose the lane and whether batch rows are worked on together; formulas take their stable forms."""
    spec = _stable(spec)
    rows = _multiplies_weight(spec)
    return Programs(spec, None if rows else _free_axis(spec), rows)


def _stable(spec: Recurrence) -> Recurrence:
    """The same recurrence with the formulas rewritten that overflow or cancel as they stand."""
    step = spec.step
    roots = iter(rewrite(step.roots(), STABLE))
    states = {n: {cell: next(roots) for cell in cells} for n, cells in step.states.items()}
    outputs = {n: {cell: next(roots) for cell in cells} for n, cells in step.outputs.items()}
    return derived(spec.name, spec.operands, replace(step, states=states, outputs=outputs), spec.bindings)


def _multiplies_weight(spec: Recurrence) -> bool:
    """Whether a step multiplies a parameter with two axes with a vector that depends on the batch row."""
    weights = {o.name for o in spec.of_kind("param")}
    for node in ir.walk(spec.step.roots()):
        if isinstance(node, Reduce) and node.operation == "sum":
            parts = ir.factors(node.body)
            matrices = [
                p for p in parts if isinstance(p, Read) and p.operand in weights and len(p.indices) == 2
            ]
            rest = ir.product(p for p in parts if p not in matrices)
            if len(matrices) == 1 and rest.free == {node.index} and not ir.operands_read([rest]) <= weights:
                return True
    return False


def _free_axis(spec: Recurrence) -> str | None:
    """The last axis that no step sums over and that occurs once wherever it occurs."""
    nodes = list(ir.walk(spec.step.roots()))
    for dim in reversed(spec.axes):
        summed = any(isinstance(n, Reduce) and n.index.dim == dim for n in nodes)
        twice = any(sum(i.dim == dim for i in n.free) > 1 for n in nodes)
        twice = twice or any(o.axes.count(dim) > 1 for o in spec.operands)
        if not summed and not twice and any(dim in o.axes for o in spec.states):
            return dim
    return None
