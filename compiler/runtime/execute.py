"""One call on a CPU: its sizes, its passes, and whether time is cut into segments.

In: a `Recurrence` and checked `Arguments`. Out: outputs, final states and saved values; or, backwards, the
cotangents of all operands and first states.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from rekern.analysis.logs import Reason
from rekern.backends.cpp import Source
from rekern.hwmodels import detect
from rekern.runtime.arguments import Arguments
from rekern.runtime.backward import Backward
from rekern.runtime.forward import CPU, Forward, declared, shape_of
from rekern.runtime.passes import BuiltPass, find, source_of, view
from rekern.runtime.scan import by_segment, cut, entries, exits
from rekern.runtime.signature import Options
from rekern.schedules.cpu.choose import compiled_sizes, plan
from rekern.schedules.cpu.shape import CpuPlan, Shape
from rekern.schedules.passes import CpuSizes, PassName
from rekern.schedules.programs import Programs
from rekern.schedules.scan import Summary, segment_count, summaries
from rekern.spec import scalar_value

_making = threading.RLock()  # formulas that are written the same are one object: one thread at a time writes them


class CpuExecutor:
    """The passes of one spec on this CPU, built when they are first needed."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.spec = programs.spec
        self.passes: dict[tuple[CpuSizes, PassName], Future[BuiltPass]] = {}

    # -- passes

    def source(self, sizes: CpuSizes, name: PassName) -> Source:
        return source_of(self.programs, sizes, view(self.programs, sizes, name))

    def start(self, sizes: CpuSizes, names: Iterable[PassName]) -> None:
        """Have the passes `names` built side by side, in the background."""
        with _making:
            for name in names:
                if (sizes, name) not in self.passes:
                    self.passes[sizes, name] = find(self.programs, sizes, name)

    def need(self, sizes: CpuSizes, name: PassName) -> BuiltPass:
        """The pass `name`; waits until it is built.

        Raises:
            BuildError: it cannot be built. The next call tries again.
        """
        self.start(sizes, [name])
        try:
            return self.passes[sizes, name].result()
        except BaseException:
            self.passes.pop((sizes, name), None)
            raise

    @property
    def recording_name(self) -> PassName:
        """The pass that runs forward when a gradient will be asked for."""
        return "recording" if self.programs.keep == "steps" else "forward"

    def forward_name(self, options: Options) -> PassName:
        """The pass that runs forward."""
        if options.one_step:
            return "step"
        return self.recording_name if options.record else "forward"

    def plan(self, arguments: Arguments, threads: int) -> CpuPlan:
        """The sizes of a call: solved once for each shape."""
        count = len(arguments.sequences)
        tokens = sum(steps for _, _, steps, _ in arguments.sequences)
        shape = Shape.of(arguments.sizes, count, arguments.heads, threads, arguments.double, tokens)
        chosen = plan(self.programs, shape, detect())
        return replace(chosen, compiled=self._for(arguments, chosen.compiled))

    def start_unsolved(self, arguments: Arguments, options: Options) -> None:
        """Have built what a call needs and what does not wait for its sizes: compilers run while they are solved."""
        sizes = compiled_sizes(self.programs, arguments.double, detect())
        if sizes is not None:
            self.start(self._for(arguments, sizes), self.names(options))

    def _for(self, arguments: Arguments, sizes: CpuSizes) -> CpuSizes:
        """The sizes with what dtypes decide: products of pairs take long to compile, and few calls have any."""
        return replace(sizes, pairs=self.programs.rows and arguments.in_bfloat16)

    def names(self, options: Options) -> list[PassName]:
        """All passes of a call; the gradient is built while the first forward pass runs."""
        first = self.forward_name(options)
        return [first, "backward"] if options.record else [first]

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

    # -- the time loop

    def forward_loop(self, arguments: Arguments, reset: Tensor | None, options: Options) -> Forward:
        """The sequences of a call, each walked in order."""
        chosen = self.plan(arguments, options.threads)
        self.start(chosen.compiled, self.names(options))
        built = self.need(chosen.compiled, self.forward_name(options))
        return Forward(self.programs, built, chosen, arguments, reset, options)

    def backward_loop(
        self,
        arguments: Arguments,
        reset: Tensor | None,
        options: Options,
        d_outputs: Sequence[Tensor | None],
        d_last: Sequence[Tensor | None],
    ) -> Backward:
        """The sequences of a call, each walked backwards."""
        chosen = self.plan(arguments, options.threads)
        built = self.need(chosen.compiled, "backward")
        return Backward(self.programs, built, chosen, arguments, reset, options, d_outputs, d_last)

    # -- segments of time

    def cut_forward(
        self, arguments: Arguments, segments: int, scalars: Sequence[float], reset: Tensor | None, options: Options
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """As the time loop, with every sequence cut into `segments` that run side by side."""
        silent = options._replace(record=False)

        def run(summary: Summary, piece: Arguments) -> dict[str, Tensor]:
            executor = self.summary_executors[id(summary)]
            last = executor._run(piece, scalars, reset, silent)[1]
            return {o.name: t for o, t in zip(executor.spec.states, last)}

        pieces = cut(arguments, segments, options.reverse)
        first = {o.name: arguments.state.get(o.name, declared(arguments, o)) for o in self.spec.states}
        first = {n: t.to(arguments.real) for n, t in first.items()}
        start = entries(pieces, first, self.summaries, segments, run)
        outputs, last, saved = self._run(replace(pieces, state=start), scalars, reset, options)
        return outputs, [by_segment(t, segments)[:, -1].contiguous() for t in last], saved

    def _run(
        self, arguments: Arguments, scalars: Sequence[float], reset: Tensor | None, options: Options
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        first = [arguments.state.get(o.name) for o in self.spec.states]
        loop = self.forward_loop(arguments, reset, options)
        return loop(list(arguments.tensors.values()), first, scalars, reset)

    def cut_backward(
        self,
        arguments: Arguments,
        segments: int,
        scalars: Sequence[float],
        reset: Tensor | None,
        options: Options,
        d_outputs: Sequence[Tensor | None],
        d_last: Sequence[Tensor | None],
        saved: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The way back of `cut_forward`."""
        pieces = cut(arguments, segments, options.reverse)
        names = [o.name for o in self.spec.states]
        at_end = {}
        for o, given in zip(self.spec.states, d_last):
            zero = torch.zeros(shape_of(arguments, ("N", "H"), o.dims), dtype=arguments.real, device=CPU)
            at_end[o.name] = zero if given is None else given.to(arguments.real)
        operands = list(arguments.tensors.values())

        def run(
            given: Sequence[Tensor | None], ends: Mapping[str, Tensor]
        ) -> tuple[list[Tensor], dict[str, Tensor]]:
            loop = self.backward_loop(pieces, reset, options, given, list(ends.values()))
            grads, d_first = loop(operands, scalars, reset, given, list(ends.values()), saved)
            return grads, dict(zip(names, d_first))

        def back(given: Sequence[Tensor | None]) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
            return lambda ends: run(given, ends)[1]

        ends = exits(at_end, segments, back(d_outputs), back([None] * len(d_outputs)))
        grads, d_first = run(d_outputs, ends)
        found = {n: by_segment(t, segments)[:, 0].contiguous() for n, t in d_first.items()}
        return grads, [found[n].to(arguments.state[n].dtype) if n in arguments.state else found[n] for n in names]

    # -- scalars

    def scalar_defaults(self, arguments: Arguments, options: Options) -> list[float]:
        """The declared values of the scalars that are not given, 0 in the place of those that are."""
        return [
            0.0 if given else scalar_value(self.spec, o, arguments.sizes)
            for o, given in zip(self.spec.of_kind("scalar"), options.scalars)
        ]
