"""One call on a CPU: memory for results, the passes, and what is left to do in torch after them.

In: a `Recurrence` and checked `Arguments`. Out: outputs, final states and saved values; or, backwards, the
cotangents of all operands and first states.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from rekern.analysis.logs import Reason
from rekern.backends.cpp import Source, load_all
from rekern.hwmodels import detect
from rekern.render import headers_for, render
from rekern.runtime.arguments import Arguments
from rekern.runtime.heads import as_columns, as_heads, merged, merges
from rekern.runtime.launch import Layout, launch, prepare
from rekern.runtime.memory import empty
from rekern.runtime.saved import row_count, row_layout
from rekern.runtime.scan import by_segment, cut, entries, exits
from rekern.schedules.cpu.choose import plan
from rekern.schedules.cpu.shape import CpuPlan, Shape
from rekern.schedules.passes import CpuSizes, Pass, PassName, Slot
from rekern.schedules.programs import Programs
from rekern.schedules.scan import Summary, segment_count, summaries
from rekern.schedules.time_loop import backward_pass, forward_pass
from rekern.spec import Operand, scalar_value
from rekern.trace import Dim, cells_of


@dataclass(frozen=True)
class Built:
    """A pass with its source and its library."""

    view: Pass
    source: Source
    library: ctypes.CDLL


@dataclass(frozen=True)
class Request:
    """What a call asks for beside its tensors. Sizes follow from `threads`, so a gradient has those of its call."""

    scalars: Mapping[str, float]
    reset: Tensor | None
    reverse: bool
    threads: int = field(default_factory=torch.get_num_threads)


class CpuExecutor:
    """The passes of one spec on this CPU, built when they are first needed."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.spec = programs.spec
        self.built: dict[tuple[CpuSizes, PassName], Built] = {}
        self.views: dict[tuple[CpuSizes, PassName], Pass] = {}

    # -- passes

    def view(self, sizes: CpuSizes, name: PassName) -> Pass:
        """The pass `name` as its template sees it."""
        key = (sizes, name)
        if key not in self.views:
            if name == "backward":
                self.views[key] = backward_pass(self.programs, sizes)
            else:
                self.views[key] = forward_pass(self.programs, sizes, name)
        return self.views[key]

    def source(self, sizes: CpuSizes, name: PassName) -> Source:
        return Source(f"{self.spec.name} {name}", render(self.view(sizes, name)), headers_for(sizes))

    def need(self, sizes: CpuSizes, names: Iterable[PassName]) -> list[Built]:
        """The passes `names`, those that are missing built side by side."""
        names = list(names)
        missing = [n for n in names if (sizes, n) not in self.built]
        if missing:
            sources = [self.source(sizes, n) for n in missing]
            for n, source, library in zip(missing, sources, load_all(sources), strict=True):
                self.built[sizes, n] = Built(self.view(sizes, n), source, library)
        return [self.built[sizes, n] for n in names]

    @property
    def recording_name(self) -> PassName:
        """The pass that runs forward when a gradient will be asked for."""
        return "recording" if self.programs.keep == "steps" else "forward"

    def plan(self, arguments: Arguments, threads: int) -> CpuPlan:
        """The sizes of a call: solved once for each shape."""
        count = len(arguments.sequences)
        tokens = sum(steps for _, _, steps, _ in arguments.sequences)
        shape = Shape.of(arguments.sizes, count, arguments.heads, threads, arguments.double, tokens)
        return plan(self.programs, shape, detect())

    # -- schedule

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """How segments of time act on the states; none where only the time loop applies."""
        found = summaries(self.spec)
        return () if isinstance(found, Reason) else found

    @cached_property
    def summary_executors(self) -> dict[int, CpuExecutor]:
        return {id(s): CpuExecutor(s.programs) for s in self.summaries}

    def segments(self, arguments: Arguments, threads: int) -> int:
        """Into how many segments of time a call is cut; 1 is the time loop."""
        tasks = len(arguments.sequences) * arguments.heads
        if threads <= tasks * 2 or not self.summaries:  # a second pass over the data never pays
            return 1
        tasks *= self.plan(arguments, threads).run.tiles
        longest = max((s[2] for s in arguments.sequences), default=0)
        return segment_count(len(self.summaries), tasks, threads, longest)

    def forward(
        self,
        arguments: Arguments,
        request: Request,
        record: bool,
        one_step: bool = False,
        in_place: bool = False,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Outputs, final states, and (`record`) what the gradient needs."""
        if not one_step and merges(self.programs, arguments):
            heads, arguments = arguments.heads, merged(self.programs, arguments)
            outputs, last, saved = self.forward(arguments, request, record)
            return as_heads(outputs, heads), as_heads(last, heads), saved
        segments = 1 if one_step else self.segments(arguments, request.threads)
        if segments == 1:
            return self.time_loop(arguments, request, record, one_step, in_place)

        def run(summary: Summary, piece: Arguments) -> dict[str, Tensor]:
            return self.summary_executors[id(summary)].time_loop(piece, request, record=False)[1]

        pieces = cut(arguments, segments, request.reverse)
        first = {o.name: arguments.state.get(o.name, self._initial(arguments, o)) for o in self.spec.states}
        first = {n: t.to(arguments.real) for n, t in first.items()}
        start = entries(pieces, first, self.summaries, segments, run)
        outputs, last, saved = self.time_loop(replace(pieces, state=start), request, record)
        return outputs, {n: by_segment(t, segments)[:, -1].contiguous() for n, t in last.items()}, saved

    def backward(
        self,
        arguments: Arguments,
        request: Request,
        d_outputs: Mapping[str, Tensor | None],
        d_last: Mapping[str, Tensor | None],
        saved: Tensor,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Cotangents of the inputs and parameters, and of the first states."""
        if merges(self.programs, arguments):
            heads, arguments = arguments.heads, merged(self.programs, arguments)
            grads, d_first = self.backward(
                arguments, request, as_columns(d_outputs), as_columns(d_last), saved
            )
            return as_heads(grads, heads), as_heads(d_first, heads)
        request = replace(request, threads=int(saved[-1]))
        segments = self.segments(arguments, request.threads)
        if segments == 1:
            return self.time_loop_backward(arguments, request, d_outputs, d_last, saved)
        pieces = cut(arguments, segments, request.reverse)
        silent = dict.fromkeys(d_outputs)
        shape = {o.name: self._shape(arguments, ("N", "H"), o.dims) for o in self.spec.states}
        at_end = {}
        for name, given in d_last.items():
            zero = torch.zeros(shape[name], dtype=arguments.real)
            at_end[name] = zero if given is None else given.to(arguments.real)

        def back(given: Mapping[str, Tensor | None]) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
            return lambda ends: self.time_loop_backward(pieces, request, given, ends, saved)[1]

        ends = exits(at_end, segments, back(d_outputs), back(silent))
        grads, d_first = self.time_loop_backward(pieces, request, d_outputs, ends, saved)
        return grads, {n: by_segment(t, segments)[:, 0].contiguous() for n, t in d_first.items()}

    # -- forward

    def time_loop(
        self,
        arguments: Arguments,
        request: Request,
        record: bool,
        one_step: bool = False,
        in_place: bool = False,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """The sequences of a call, each walked in order."""
        chosen = self.plan(arguments, request.threads)
        sizes, run = chosen.compiled, chosen.run
        built, *_ = self.need(
            sizes, [self.recording_name, "backward"] if record else ["step" if one_step else "forward"]
        )
        step, spec = self.spec.step, self.spec
        out_dtype = arguments.tensors[spec.of_kind("input")[0].name].dtype
        outputs = {
            name: empty(self._shape(arguments, ("B", "T", "H"), dims), out_dtype)
            for name, dims in step.output_dims.items()
        }
        first = {o.name: arguments.state.get(o.name, self._initial(arguments, o)) for o in spec.states}
        # Every column tile reads the states without columns: these must not change before all have done so.
        own_memory = {o.name for o in spec.states if in_place and (run.tiles == 1 or self.programs.lane in o.axes)}
        last = {
            o.name: first[o.name]
            if o.name in own_memory
            else empty(self._shape(arguments, ("N", "H"), o.dims), arguments.real)
            for o in spec.states
        }

        streams = record and self.programs.streamed
        saved = empty([row_count(self.programs, arguments, sizes.lanes) + 1 if streams else 0], arguments.real)

        def layout(slot: Slot) -> Layout | None:
            match slot.use:
                case "saved":
                    place = (slot.operand, slot.cell)
                    return row_layout(self.programs, arguments, sizes.lanes, saved, place)
                case "output":
                    return Layout(
                        outputs[slot.operand], ("B", "T", "H"), step.output_dims[slot.operand], slot.cell
                    )
                case "state_in":
                    return Layout(first[slot.operand], ("N", "H"), spec.operand(slot.operand).dims, slot.cell)
                case "state_out":
                    return Layout(last[slot.operand], ("N", "H"), spec.operand(slot.operand).dims, slot.cell)
                case _:
                    return self._operand(arguments, slot)

        scalars = self._scalars(arguments, request)
        call, alive = prepare(
            built.view, arguments, run, run.tiles, layout, scalars, request.reset, request.reverse, None
        )
        if record and not streams:
            size = built.library.saved_size(ctypes.addressof(call))
            saved = empty([size + 1], arguments.real)
            call.saved = saved.data_ptr()
        if record:
            saved[-1] = request.threads  # sizes follow from it
        launch(built.library, call)
        del alive
        if in_place:
            last = {n: first[n] if n in own_memory else first[n].copy_(t) for n, t in last.items()}
        return outputs, last, saved

    def _initial(self, arguments: Arguments, o: Operand) -> Tensor:
        return torch.full(self._shape(arguments, ("N", "H"), o.dims), o.init, dtype=arguments.real)

    def _operand(self, arguments: Arguments, slot: Slot) -> Layout:
        o = self.spec.operand(slot.operand)
        return Layout(
            arguments.tensors[o.name], ("B", "T", "H") if o.kind == "input" else ("H",), o.dims, slot.cell
        )

    def _scalars(self, arguments: Arguments, request: Request) -> list[float]:
        return [
            request.scalars[o.name]
            if o.name in request.scalars
            else scalar_value(self.spec, o, arguments.sizes)
            for o in self.spec.of_kind("scalar")
        ]

    def _shape(self, arguments: Arguments, lead: tuple[str, ...], dims: tuple[Dim, ...]) -> list[int]:
        lengths = {
            "B": arguments.batch,
            "T": arguments.time,
            "H": arguments.heads,
            "N": len(arguments.sequences),
        }
        return [*(lengths[a] for a in lead), *(d if isinstance(d, int) else arguments.sizes[d] for d in dims)]

    # -- backward

    def time_loop_backward(
        self,
        arguments: Arguments,
        request: Request,
        d_outputs: Mapping[str, Tensor | None],
        d_last: Mapping[str, Tensor | None],
        saved: Tensor,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The sequences of a call, each walked backwards."""
        chosen = self.plan(arguments, request.threads)
        sizes, run = chosen.compiled, chosen.run
        (built,) = self.need(sizes, ["backward"])
        spec, step = self.spec, self.spec.step
        real, lane = arguments.real, self.programs.lane
        parts = run.groups

        def memory(lead: tuple[str, ...], dims: tuple[Dim, ...], add: bool) -> Tensor:
            """Results: tasks that share a row of columns add into copies, one for each column group."""
            return empty([parts if add else 1, *self._shape(arguments, lead, dims)], real)

        d_inputs = {
            o.name: memory(("B", "T", "H"), o.dims, lane is not None and lane not in o.dims)
            for o in spec.of_kind("input")
        }
        d_first = {
            o.name: memory(("N", "H"), o.dims, True).zero_()
            if lane is not None and lane not in o.dims
            else memory(("N", "H"), o.dims, False)
            for o in spec.states
        }
        units = -(-len(arguments.sequences) // run.rows)
        wanted = self.programs.weight_terms[1]
        d_weights, d_params = self._parameter_gradients(arguments, [parts, units])
        vectors = {name: memory(("B", "T", "H"), (index.dim,), False) for name, (index, _) in wanted.items()}

        def layout(slot: Slot) -> Layout | None:
            name = slot.operand
            match slot.use:
                case "saved":
                    return row_layout(self.programs, arguments, sizes.lanes, saved, (name, slot.cell))
                case "d_output":
                    given = d_outputs[name]
                    return (
                        None
                        if given is None
                        else Layout(given, ("B", "T", "H"), step.output_dims[name], slot.cell)
                    )
                case "d_state_out":
                    given = d_last[name]
                    return (
                        None
                        if given is None
                        else Layout(given, ("N", "H"), spec.operand(name).dims, slot.cell)
                    )
                case "d_state_in":
                    return Layout(d_first[name], ("P", "N", "H"), spec.operand(name).dims, slot.cell)
                case "d_input":
                    return Layout(d_inputs[name], ("P", "B", "T", "H"), spec.operand(name).dims, slot.cell)
                case "d_param":
                    return Layout(d_params[name], ("P", "U", "H"), spec.operand(name).dims, slot.cell)
                case "d_weight":
                    return Layout(d_weights[name], ("H",), spec.operand(name).dims, slot.cell)
                case "vector":
                    return Layout(vectors[name], ("P", "B", "T", "H"), (wanted[name][0].dim,))
                case _:
                    return self._operand(arguments, slot)

        scalars = self._scalars(arguments, request)
        call, alive = prepare(
            built.view, arguments, run, run.groups, layout, scalars, request.reset, request.reverse, saved
        )
        launch(built.library, call)
        del alive
        results = {n: t.sum(0) if len(t) > 1 else t[0] for n, t in d_inputs.items()}
        for o in spec.of_kind("param"):
            sums = [g.sum((0, 1)) for n, g in d_params.items() if n == o.name]
            products = [g for n, g in d_weights.items() if n == o.name]
            results[o.name] = functools.reduce(torch.add, [*sums, *products])
        grads = {}
        for o in spec.of_kind("input", "param"):
            like = arguments.tensors[o.name]
            grads[o.name] = _fold_heads(results[o.name], like, 2 if o.kind == "input" else 0).to(like.dtype)
        return grads, {n: (t.sum(0) if len(t) > 1 else t[0]) for n, t in d_first.items()}

    def _parameter_gradients(
        self, arguments: Arguments, copies: list[int]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Memory for gradients that are a product after the loop, and for those that every task adds up.

        A parameter may have cells of both kinds.
        """
        d_weights, d_params = {}, {}
        after = {t.weight for t in self.programs.weight_terms[0]}
        for o in self.spec.of_kind("param"):
            shape = self._shape(arguments, ("H",), o.dims)
            cells = {(o.name, cell) for cell in cells_of(o.dims)}
            if cells & after:
                d_weights[o.name] = (torch.zeros if cells - after else torch.empty)(shape, dtype=arguments.real)
            if cells - after:
                d_params[o.name] = torch.zeros([*copies, *shape], dtype=arguments.real)
        return d_weights, d_params


def _fold_heads(tensor: Tensor, like: Tensor, axis: int) -> Tensor:
    """Heads that share one head of the operand add up."""
    own = like.shape[axis]
    if tensor.shape[axis] == own:
        return tensor
    shape = (*tensor.shape[:axis], own, tensor.shape[axis] // own, *tensor.shape[axis + 1 :])
    return tensor.reshape(shape).sum(axis + 1)
