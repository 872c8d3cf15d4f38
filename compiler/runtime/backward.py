"""The time loop of a call, backwards, and what is left to do in torch after it.

In: checked `Arguments` and cotangents, whose tensors only say how they are laid out. Out: a `Backward`, which takes
the tensors of a call and gives the cotangents of operands and first states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rekern.runtime.arguments import Arguments
from rekern.runtime.forward import Memory, operand_layout, shape_of
from rekern.runtime.launch import Layout, Prepared
from rekern.runtime.passes import BuiltPass
from rekern.runtime.saved import SavedRows
from rekern.runtime.signature import Options
from rekern.schedules.cpu.shape import CpuPlan
from rekern.schedules.passes import Slot
from rekern.schedules.programs import Programs
from rekern.spec import Operand
from rekern.trace import Dim, cells_of


@dataclass(frozen=True)
class Sum:
    """A result that tasks add up: one copy for each that may write at one time. `lead`: the axes of the copies."""

    memory: Memory
    lead: tuple[str, ...]
    zero: bool

    @staticmethod
    def of(copies: Mapping[str, int], shape: Sequence[int], dtype: torch.dtype, zero: bool) -> Sum:
        several = any(n > 1 for n in copies.values())
        lead = tuple(copies) if several else ()
        own = tuple(copies.values()) if several else ()
        return Sum(Memory.of((*own, *shape), dtype), lead, zero)


@dataclass(frozen=True)
class Finish:
    """From a total to the gradient of an operand: heads that share one head of it add up, in its dtype."""

    heads: int
    shape: torch.Size
    dtype: torch.dtype

    def __call__(self, total: Tensor) -> Tensor:
        axis, own = self.heads, self.shape[self.heads]
        if total.shape[axis] != own:
            apart = (*total.shape[:axis], own, total.shape[axis] // own, *total.shape[axis + 1 :])
            total = total.reshape(apart).sum(axis + 1)
        return total.to(self.dtype)


def finish(heads: int, found: Sum, like: Tensor | None) -> Finish | None:
    """What a total still lacks to be a gradient of `like`; None: nothing."""
    if like is None or (found.memory.shape[len(found.lead) :] == like.shape and found.memory.dtype == like.dtype):
        return None
    return Finish(heads, like.shape, like.dtype)


class Backward:
    """One pass over the sequences of a call, each walked backwards."""

    def __init__(
        self,
        programs: Programs,
        built: BuiltPass,
        chosen: CpuPlan,
        arguments: Arguments,
        reset: Tensor | None,
        options: Options,
        d_outputs: Sequence[Tensor | None],
        d_last: Sequence[Tensor | None],
    ) -> None:
        spec, lane, real, run = programs.spec, programs.lane, arguments.real, chosen.run
        products = {(s.operand, s.cell) for s in built.interface.slots if s.use == "d_weight"}
        copies = {"P": run.groups, "U": -(-len(arguments.sequences) // run.rows)}

        def shared(lead: tuple[str, ...], dims: tuple[Dim, ...], zero: bool) -> Sum:
            """Tasks of one row of columns share what has no columns: each group adds into a copy of its own."""
            add = lane is not None and lane not in dims
            return Sum.of({"P": run.groups} if add else {}, shape_of(arguments, lead, dims), real, add and zero)

        def added(o: Operand) -> Sum:
            """Every task adds, except to the cells that are products after the loop: those are in the first copy."""
            shape = shape_of(arguments, ("H",), o.dims)
            if all((o.name, cell) in products for cell in cells_of(o.dims)):
                return Sum.of({}, shape, real, zero=False)
            return Sum.of(copies, shape, real, zero=True)

        operands, states = spec.of_kind("input", "param"), spec.states
        # The first columns of a group write their part of every step, the others add to it.
        steps = "B", "T", "H"
        sums = {o.name: shared(steps, o.dims, zero=False) if o.kind == "input" else added(o) for o in operands}
        firsts = {o.name: shared(("N", "H"), o.dims, zero=True) for o in states}
        axes = dict(built.interface.vectors)
        vectors = {n: Memory.of(shape_of(arguments, ("B", "T", "H"), (axis,)), real) for n, axis in axes.items()}
        given = dict(zip([*spec.step.output_dims, *(f"last {o.name}" for o in states)], (*d_outputs, *d_last)))
        # The addresses of a call: operands, cotangents given, then results, reset, saved values.
        names = [*arguments.tensors, *(f"given {n}" for n in given)]
        names += [*(f"d {n}" for n in sums), *(f"d first {n}" for n in firsts), *vectors]
        rows = SavedRows(built.interface.saved, lane, arguments, chosen.compiled.lanes)
        number = {name: n for n, name in enumerate(names)}

        def layout(slot: Slot) -> Layout | None:
            name, cell = slot.operand, slot.cell

            def cotangent(key: str, lead: tuple[str, ...], dims: tuple[Dim, ...]) -> Layout | None:
                tensor = given[key]
                return None if tensor is None else Layout(number[f"given {key}"], tensor, lead, dims, cell)

            def result(key: str, found: Sum, *lead: str) -> Layout:
                tensor = found.memory.outline()
                return Layout(number[key], tensor, (*found.lead, *lead), spec.operand(name).dims, cell)

            match slot.use:
                case "d_output":
                    return cotangent(name, ("B", "T", "H"), spec.step.output_dims[name])
                case "d_state_out":
                    return cotangent(f"last {name}", ("N", "H"), spec.operand(name).dims)
                case "d_state_in":
                    return result(f"d first {name}", firsts[name], "N", "H")
                case "d_input":
                    return result(f"d {name}", sums[name], "B", "T", "H")
                case "d_param":
                    return result(f"d {name}", sums[name], "H")
                case "d_weight":
                    first_copy = sums[name].memory.outline()[(0,) * len(sums[name].lead)]
                    return Layout(number[f"d {name}"], first_copy, ("H",), spec.operand(name).dims, cell)
                case "vector":
                    return Layout(number[name], vectors[name].outline(), ("B", "T", "H"), (axes[name],))
                case "saved":
                    return rows.layout((name, cell), len(names) + 1)
                case _:
                    return operand_layout(programs, arguments, slot)

        places = (len(names), len(names) + 1)
        scalars = len(options.scalars)
        self._prepared = Prepared(
            built, arguments, run, run.groups, layout, scalars, reset, options.reverse, places
        )
        results = (*sums.values(), *firsts.values())
        self._new = [(r.memory.maker, r.memory.shape, r.zero) for r in results]
        self._new += [(m.maker, m.shape, False) for m in vectors.values()]
        self._summed = [tuple(range(len(r.lead))) for r in results]
        wanted = [(2 if o.kind == "input" else 0, sums[o.name], arguments.tensors.get(o.name)) for o in operands]
        wanted += [(1, firsts[o.name], arguments.state.get(o.name)) for o in states]
        self._finish = [finish(heads, found, like) for heads, found, like in wanted]
        self._count = len(operands)

    def __call__(
        self,
        operands: Sequence[Tensor],
        scalars: Sequence[float],
        reset: Tensor | None,
        d_outputs: Sequence[Tensor | None],
        d_last: Sequence[Tensor | None],
        saved: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Cotangents of the operands, in their order, and of the first states."""
        made = [new(shape).zero_() if zero else new(shape) for new, shape, zero in self._new]
        taken = (*operands, *d_outputs, *d_last, *made, reset, saved)
        self._prepared([0 if t is None else t.data_ptr() for t in taken], scalars, operands)
        totals = [t.sum(copies) if copies else t for copies, t in zip(self._summed, made)]
        grads = [t if finish is None else finish(t) for finish, t in zip(self._finish, totals)]
        return grads[: self._count], grads[self._count :]
