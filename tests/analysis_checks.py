"""Formulas as values, and the law of the analysis: what was taken apart gives the formulas again."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rekern import ir, zoo
from rekern.analysis.facts import facts
from rekern.analysis.kinds import Affine, MaxPlus, independent_axes, kind
from rekern.analysis.readout import readouts
from rekern.analysis.stages import stages
from rekern.analysis.transition import Transition
from rekern.functions import FUNCTIONS
from rekern.ir import Apply, Index, Node, Number, Read, Reduce, Size
from rekern.spec import Operand, Recurrence

SIZES = {"K": 3, "V": 4, "D": 5, "N": 2, "M": 3, "n": 2}
Values = Mapping[str, Tensor]


def load(name: str) -> Recurrence:
    spec = zoo.load(name)
    return spec.bind(n=2) if "n" in spec.axes else spec


ZOO = [load(name) for name in zoo.names()]


def evaluate(node: Node, spec: Recurrence, values: Values) -> Tensor:
    """The value of `node`: one axis for each free index, sorted."""
    done: dict[Node, Tensor] = {}

    def aligned(part: Node, order: list[Index]) -> Tensor:
        return done[part][tuple(slice(None) if i in part.free else None for i in order)]

    for n in ir.walk([node]):
        match n:
            case Number():
                done[n] = torch.tensor(n.value, dtype=torch.float64)
            case Size():
                done[n] = torch.tensor(float(SIZES[n.dim]), dtype=torch.float64)
            case Read():
                component = iter(n.component)
                dims = spec.operand(n.operand).dims
                at = tuple(next(component) if isinstance(d, int) else slice(None) for d in dims)
                order = sorted(range(len(n.indices)), key=lambda a: n.indices[a])
                done[n] = values[n.operand][at].permute(order)
            case Apply():
                order = sorted(n.free)
                done[n] = FUNCTIONS[n.function].torch(*(aligned(a, order) for a in n.arguments))
            case Reduce():
                place = sorted(n.body.free).index(n.index)
                done[n] = done[n.body].sum(place) if n.operation == "sum" else done[n.body].amax(place)
    return done[node]


def random_operand(o: Operand, generator: torch.Generator) -> Tensor:
    shape = [d if isinstance(d, int) else SIZES[d] for d in o.dims]
    value = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    if o.unit_norm:
        value = value / value.norm(dim=-1, keepdim=True)
    elif o.at_most is not None and o.at_least is not None:
        place = torch.rand(shape, generator=generator, dtype=torch.float64)
        value = o.at_least + (o.at_most - o.at_least) * place
    elif o.at_most is not None:
        value = o.at_most - value.abs()
    elif o.at_least is not None:
        value = o.at_least + value.abs()
    return value


def random_values(spec: Recurrence, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {o.name: random_operand(o, generator) for o in spec.operands}


def assert_same(a: Node, b: Node, spec: Recurrence, seed: int = 0) -> None:
    values = random_values(spec, seed)
    order = sorted(a.free | b.free)  # a factor of 0 may have taken an axis away

    def spread(node: Node) -> Tensor:
        at = tuple(slice(None) if i in node.free else None for i in order)
        return evaluate(node, spec, values)[at].expand([SIZES[i.dim] for i in order])

    torch.testing.assert_close(spread(a), spread(b), rtol=1e-9, atol=1e-9, equal_nan=True)


def assert_rebuilt(spec: Recurrence) -> None:
    """Whatever the analysis took apart gives the formulas of the spec again."""
    for o in spec.states:
        found = kind(spec, o.name)
        for move in found.transitions if isinstance(found, Affine) else ():
            assert_same(move.formula(), spec.step.states[o.name][move.cell], spec)
        for run in found.running if isinstance(found, MaxPlus) else ():
            own = ir.read(o.name, run.cell, ir.canonical_axes(o.axes))
            again = ir.apply(run.join, ir.add(run.shift, own), run.floor)
            assert_same(again, spec.step.states[o.name][run.cell], spec)
    for r in readouts(spec):
        assert_same(r.formula(spec), spec.step.outputs[r.output][r.cell], spec)
    for s in stages(spec):
        assert set(independent_axes(spec, s)) <= set(SIZES)
    assert str(facts(spec))


def outline(spec: Recurrence, state: str) -> tuple[str, ...]:
    """Kind, what the decay runs over, and for each tick the low-rank terms."""
    found = kind(spec, state)
    if not isinstance(found, Affine):
        return (type(found).__name__,)
    decay = "+".join(d.over for d in found.transition.decay) or "none"
    mixing = [f"{term.side} {term.reads}" for term in found.transition.low_rank]
    return ("Affine", decay, *mixing)


def affine(spec: Recurrence, state: str = "S") -> Transition:
    found = kind(spec, state)
    assert isinstance(found, Affine), str(found)
    return found.transition
