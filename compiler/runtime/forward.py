"""The time loop of a call, forward.

In: checked `Arguments`, whose tensors only say how they are laid out. Out: a `Forward`, which takes the tensors of a
call: it makes memory for the results and runs the pass. All that depends on shapes is done once.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rekern.runtime.arguments import Arguments
from rekern.runtime.launch import Layout, Prepared
from rekern.runtime.memory import SMALLEST, empty
from rekern.runtime.passes import BuiltPass
from rekern.runtime.saved import SavedRows
from rekern.runtime.signature import Options
from rekern.schedules.cpu.shape import CpuPlan
from rekern.schedules.passes import Slot
from rekern.schedules.programs import Programs
from rekern.spec import Operand, Recurrence
from rekern.trace import Dim

CPU = torch.device("cpu")
C_REALS = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}


@dataclass(frozen=True)
class Memory:
    """A tensor that is made for every call."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def of(shape: Sequence[int], dtype: torch.dtype) -> Memory:
        return Memory(tuple(shape), dtype)

    @property
    def large(self) -> bool:
        """Whether it comes from the shelf."""
        return math.prod(self.shape) * self.dtype.itemsize >= SMALLEST

    @property
    def maker(self) -> Callable[[Sequence[int]], Tensor]:
        """What makes it of its shape: from an empty one, which is the quickest, or on the shelf if it is large."""
        if self.large:
            return partial(empty, dtype=self.dtype)
        return torch.empty(0, dtype=self.dtype, device=CPU).new_empty

    def outline(self) -> Tensor:
        """One that has no numbers."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


def shape_of(arguments: Arguments, lead: Sequence[str], dims: Sequence[Dim]) -> tuple[int, ...]:
    """The lengths of implicit axes, then of an operand's own."""
    lengths = {
        "B": arguments.batch,
        "T": arguments.time,
        "H": arguments.heads,
        "N": len(arguments.sequences),
    }
    return *(lengths[a] for a in lead), *(d if isinstance(d, int) else arguments.sizes[d] for d in dims)


def declared(arguments: Arguments, o: Operand) -> Tensor:
    """The declared first state: one number in the place of all."""
    shape = shape_of(arguments, ("N", "H"), o.dims)
    return torch.full((), o.init, dtype=arguments.real, device=CPU).expand(shape)


def results(spec: Recurrence, arguments: Arguments) -> tuple[list[Memory], list[Memory]]:
    """The outputs and the last states of a call."""
    dtype = arguments.tensors[spec.of_kind("input")[0].name].dtype
    dims = spec.step.output_dims.values()
    return (
        [Memory.of(shape_of(arguments, ("B", "T", "H"), d), dtype) for d in dims],
        [Memory.of(shape_of(arguments, ("N", "H"), o.dims), arguments.real) for o in spec.states],
    )


def operand_layout(programs: Programs, arguments: Arguments, slot: Slot) -> Layout:
    """An input or a parameter, whose addresses come first in every call."""
    o = programs.spec.operand(slot.operand)
    number = list(arguments.tensors).index(o.name)
    lead = ("B", "T", "H") if o.kind == "input" else ("H",)
    return Layout(number, arguments.tensors[o.name], lead, o.dims, slot.cell)


class Forward:
    """One pass over the sequences of a call, each walked in order."""

    def __init__(
        self,
        programs: Programs,
        built: BuiltPass,
        chosen: CpuPlan,
        arguments: Arguments,
        reset: Tensor | None,
        options: Options,
    ) -> None:
        """`arguments.tensors` are in the order of a call's operands."""
        spec, step, run = programs.spec, programs.spec.step, chosen.run
        states = spec.states
        lead = ("B", "T", "H")
        self.outputs, self.last = results(spec, arguments)
        outputs = dict(zip(step.output_dims, self.outputs))
        last = dict(zip((o.name for o in states), self.last))
        self._declared = [declared(arguments, o) for o in states]
        first = {o.name: arguments.state.get(o.name, d) for o, d in zip(states, self._declared)}
        rows = SavedRows(built.interface.saved, programs.lane, arguments, chosen.compiled.lanes)
        # The addresses of a call: operands, first states, outputs, last states, reset, saved values.
        names = [*arguments.tensors, *(f"first {n}" for n in first), *outputs, *(f"last {n}" for n in last)]
        number = {name: n for n, name in enumerate(names)}

        def layout(slot: Slot) -> Layout | None:
            name = slot.operand
            match slot.use:
                case "output":
                    return Layout(number[name], outputs[name].outline(), lead, step.output_dims[name], slot.cell)
                case "state_in":
                    dims = spec.operand(name).dims
                    return Layout(number[f"first {name}"], first[name], ("N", "H"), dims, slot.cell)
                case "state_out":
                    dims = spec.operand(name).dims
                    like = first[name] if name in own else last[name].outline()
                    return Layout(number[f"last {name}"], like, ("N", "H"), dims, slot.cell)
                case "saved":
                    return rows.layout((name, slot.cell), len(names) + 1)
                case _:
                    return operand_layout(programs, arguments, slot)

        # Every column tile reads the states without columns: these must not change before all have done so.
        own = {
            o.name for o in states if options.in_place and (run.tiles == 1 or programs.lane in o.axes)
        }
        self._prepared = Prepared(
            built,
            arguments,
            run,
            run.tiles,
            layout,
            len(options.scalars),
            reset,
            options.reverse,
            (len(names), len(names) + 1),
        )
        self.in_place = options.in_place
        self.own = [o.name in own for o in states]
        if options.one_step:    # a step has no axis of time
            self.outputs = [Memory((m.shape[0], *m.shape[2:]), m.dtype) for m in self.outputs]
        size = rows.count() if programs.streamed else self._prepared.saved_size
        # The last number tells from how many threads sizes follow.
        self.saved = Memory((size + 1,), arguments.real) if options.record else None
        self._threads = options.threads
        self._real = C_REALS[arguments.real]
        self._threads_at = size * ctypes.sizeof(self._real)
        made = [*self.outputs, *self.last, *([] if self.saved is None else [self.saved])]
        self.large = any(m.large for m in made)
        self._new_outputs = [(m.maker, m.shape) for m in self.outputs]
        self._new_last = [(m.maker, m.shape) for m in self.last]
        self._new_saved = None if self.saved is None else (self.saved.maker, self.saved.shape)

    def __call__(
        self,
        operands: Sequence[Tensor],
        first: Sequence[Tensor | None],
        scalars: Sequence[float],
        reset: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Outputs, last states, and what the gradient needs."""
        start = [d if g is None else g for g, d in zip(first, self._declared)]
        outputs = [new(shape) for new, shape in self._new_outputs]
        if self.in_place:
            last = [t if own else new(shape) for own, t, (new, shape) in zip(self.own, start, self._new_last)]
        else:
            last = [new(shape) for new, shape in self._new_last]
        addresses = [t.data_ptr() for t in (*operands, *start, *outputs, *last)]
        addresses.append(0 if reset is None else reset.data_ptr())
        saved = None
        if self._new_saved is None:
            addresses.append(0)
        else:
            new, shape = self._new_saved
            saved = new(shape)
            address = saved.data_ptr()
            addresses.append(address)
            self._real.from_address(address + self._threads_at).value = self._threads
        self._prepared(addresses, scalars, operands)
        if self.in_place:
            torch.autograd.graph.increment_version(start)
            last = [t if own else t.copy_(new) for own, t, new in zip(self.own, start, last)]
        return outputs, last, saved
