"""How outputs read states: which numbers of a state an output needs, before or after the update.

In: a spec. Out: for each output (and literal cell) its linear reads, such as `sum[k](q[k] * S[k, v])`, and an
epilogue, the output as a formula of these reads and of the operands of the step. A schedule that knows only
how to form linear reads can form every output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rekern import ir
from rekern.analysis.linear import (
    Linear,
    NotLinear,
    Term,
    expand,
    factors_of,
    reads_any,
    replace_everywhere,
    summed,
)
from rekern.analysis.wording import listing, short
from rekern.ir import Index, Node, Read
from rekern.rewrite import rebuild, substitute
from rekern.spec import Recurrence
from rekern.trace import Cell

When = Literal["before", "after"]
AFTER = "+"  # `S+` is the new value of the state S; no operand has such a name
READ = "@"  # names of linear reads in an epilogue are @0, @1, ...


@dataclass(frozen=True)
class StateRead:
    """`sum over summed of query * state`: one linear read of one cell of a state, before or after the update.

    `indices` say where the state is read; those in `summed` are contracted, the others are free in the
    result. In an epilogue the read is called `name`, with the indices `free`.
    """

    name: str
    state: str
    cell: Cell
    when: When
    query: Node
    indices: tuple[Index, ...]
    summed: tuple[Index, ...]

    @property
    def free(self) -> tuple[Index, ...]:
        """The indices of the result."""
        return tuple(sorted((self.query.free | set(self.indices)) - set(self.summed)))

    def value(self, spec: Recurrence, at: tuple[Index, ...]) -> Node:
        """The read as a formula of the operands, at other names of its free indices."""
        axes = ir.canonical_axes(spec.operand(self.state).axes)
        new = spec.step.states[self.state][self.cell]
        state = ir.read(self.state, self.cell, axes) if self.when == "before" else new
        whole = summed(self.summed, ir.mul(self.query, ir.rename(state, dict(zip(axes, self.indices)))))
        return ir.rename(whole, dict(zip(self.free, at)))

    def __str__(self) -> str:
        whole = summed(self.summed, ir.mul(self.query, ir.read(self.state, self.cell, self.indices)))
        return f"{self.name} = {short(whole)}, {self.when} the update"


@dataclass(frozen=True)
class Readout:
    """One literal cell of an output: `epilogue` over the linear `reads` and the operands of the step."""

    output: str
    cell: Cell
    reads: tuple[StateRead, ...]
    epilogue: Node

    def when(self, state: str) -> When | Literal["both", "never"]:
        """Whether this output sees `state` before or after the update."""
        seen = {r.when for r in self.reads if r.state == state}
        return "both" if len(seen) == 2 else next(iter(seen), "never")

    @property
    def is_linear(self) -> bool:
        """Whether the output is a sum of its reads, times values of the step, and of terms of the step."""
        return self._linear() is not None

    @property
    def bonus(self) -> Node:
        """What a linear output adds that reads no state: the bonus of the current token; 0 for none."""
        linear = self._linear()
        return ir.number(0) if linear is None else linear.rest

    def _linear(self) -> Linear | None:
        try:
            linear = expand(self.epilogue, {r.name for r in self.reads})
        except NotLinear:
            return None
        return None if any(t.bound for t in linear.terms) else linear

    def formula(self, spec: Recurrence) -> Node:
        """The output as a formula of the operands again."""
        by_name = {r.name: r for r in self.reads}
        mapping: dict[Node, Node] = {}
        for node in ir.walk([self.epilogue]):
            if isinstance(node, Read) and node.operand in by_name:
                mapping[node] = by_name[node.operand].value(spec, node.indices)
        return substitute([self.epilogue], mapping)[0]

    def __str__(self) -> str:
        cell = f"[{', '.join(map(str, self.cell))}]" if self.cell else ""
        by_time: dict[str, list[str]] = {}
        for state in dict.fromkeys(r.state for r in self.reads):
            by_time.setdefault(self.when(state).replace("both", "before and after"), []).append(state)
        if not by_time:
            return f"{self.output}{cell} reads no state"
        seen = listing(f"{listing(names)} {when} the update" for when, names in by_time.items())
        text = f"{self.output}{cell} reads {seen}"
        if self.is_linear:
            return text + ("" if ir.is_number(self.bonus, 0) else ", plus a term of the current step")
        return text + ", through an epilogue"


def readouts(spec: Recurrence) -> tuple[Readout, ...]:
    """Every output, cell by cell.

    >>> from rekern.zoo import gla, mlstm, rwkv6
    >>> print(*readouts(gla), *readouts(rwkv6), *readouts(mlstm), sep="\\n")
    out reads S after the update
    out reads S before the update, plus a term of the current step
    out reads C, n and m after the update, through an epilogue
    """
    outputs = spec.step.outputs.items()
    return tuple(_readout(spec, name, cell, node) for name, cells in outputs for cell, node in cells.items())


def _readout(spec: Recurrence, output: str, cell: Cell, node: Node) -> Readout:
    """One output. A new state that it reads in part (before the last scaling) is taken apart."""
    left_out: set[str] = set()
    while True:
        outline = _Outline(spec, left_out)
        epilogue = outline.epilogue(outline.marked(node))
        if not outline.refused:
            return Readout(output, cell, tuple(outline.reads), epilogue)
        left_out |= outline.refused


class _Outline:
    """Takes the linear reads out of one output, where `S+` stands for the new value of the state S."""

    def __init__(self, spec: Recurrence, left_out: set[str]) -> None:
        self.states = {o.name for o in spec.states}
        self.names = self.states | {s + AFTER for s in self.states}
        self.cores: list[tuple[Read, Node]] = []  # the mark of a new state, and what stays together of it
        self.scales: dict[tuple[str, Cell], list[Node]] = {}  # scalar factors in front of it
        self.reads: list[StateRead] = []
        self.refused: set[str] = set()
        for o in spec.states:
            for cell, new in spec.step.states[o.name].items():
                mark = ir.read(o.name + AFTER, cell, ir.canonical_axes(o.axes))
                core, scale = _core(new)
                whole = core.free == mark.free and not isinstance(core, Read) and reads_any(core, self.states)
                if whole and o.name not in left_out:
                    self.cores.append((mark, core))
                    self.scales[mark.operand, cell] = scale

    def marked(self, node: Node) -> Node:
        """`node` with the new states marked, those first that contain others."""
        for mark, core in sorted(self.cores, key=lambda item: -sum(1 for _ in ir.walk([item[1]]))):
            node = replace_everywhere(node, core, mark)
        return node

    def epilogue(self, node: Node) -> Node:
        """`node` with its largest linear parts replaced by reads."""
        if not reads_any(node, self.names):
            return node
        term = self._single_term(node)
        if term is not None:
            return self._read(term)
        return rebuild(node, tuple(self.epilogue(part) for part in ir.children(node)))

    def _single_term(self, node: Node) -> Term | None:
        """`node` as one linear term, unless it is better seen as a sum over such (the mean of a read)."""
        try:
            linear = expand(node, self.names)
        except NotLinear:
            return None
        if len(linear.terms) != 1 or not ir.is_number(linear.rest, 0):
            return None
        term = linear.terms[0]
        if not term.bound:  # the state itself, in its place: its factors belong to the epilogue
            scale = self.scales.get((term.read.operand, term.read.component), [])
            alone = node is term.read or sorted(map(id, term.factors)) == sorted(map(id, scale))
            return term if alone else None
        idle = [i for i in term.bound if not any(i in f.free for f in term.factors)]
        return None if idle and len(idle) < len(term.bound) else term

    def _read(self, term: Term) -> Node:
        """The name of a linear read, at its indices; one name for reads that differ in their indices only."""
        factors = list(term.factors)
        for scale in self.scales.get((term.read.operand, term.read.component), []):
            if scale not in factors:
                self.refused.add(term.read.operand.removesuffix(AFTER))
                return ir.number(0)
            factors.remove(scale)
        query = ir.product(factors)
        outside = sorted((query.free | term.read.free) - set(term.bound))
        names = dict(zip([*outside, *term.bound], ir.canonical_axes(i.dim for i in [*outside, *term.bound])))
        found = StateRead(
            f"{READ}{len(self.reads)}",
            term.read.operand.removesuffix(AFTER),
            term.read.component,
            "after" if term.read.operand.endswith(AFTER) else "before",
            ir.rename(query, names),
            tuple(names[i] for i in term.read.indices),
            tuple(names[i] for i in term.bound),
        )
        same = next((r for r in self.reads if replace(r, name=found.name) == found), None)
        if same is None:
            self.reads.append(found)
        return ir.read((same or found).name, (), tuple(outside))


def _core(new: Node) -> tuple[Node, list[Node]]:
    """A new state as (what stays together under a sum, the scalar factors in front that a sum lets pass)."""
    parts = list(factors_of(new))
    inner = [p for p in parts if p.free]
    return (inner[0], [p for p in parts if not p.free]) if len(inner) == 1 and len(parts) > 1 else (new, [])
