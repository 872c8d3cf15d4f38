"""The schedule `alternating` in Triton: pointwise kernels between products of matrices, which a library makes.

In: `Programs`, sizes, a variant. Out: an `AlternatingPass`: products, and the kernels between them. A step whose
products come n after the other takes n products and n kernels: the kernel after the last product of a step also does
what the next step does before its first. States lie in memory between kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from rekern import ir
from rekern.gradient import cotangent
from rekern.ir import Read
from rekern.loops.program import Assign
from rekern.schedules.gpu.work import power_of_two
from rekern.schedules.programs import Programs
from rekern.schedules.triton.passes import PartName, PassName, Sizes, TritonPass, Variant
from rekern.schedules.triton.pointwise import Half, Pointwise
from rekern.schedules.triton.stages import Stages, reductions, stages
from rekern.schedules.triton.time_loop import TimeLoop, kept_rows

BLOCK_NUMBERS = 128  # of one value in a block of threads that makes tiles of columns: one for each thread
THREAD_NUMBERS = 8  # of one value that a thread may hold where a block makes whole rows, before there are more warps
MOST_WARPS = 16

# Makes a kernel, which is named for messages, with sizes near those given.
Fit = Callable[[str, Sizes, Callable[[Sizes], TritonPass]], TritonPass]


@dataclass(frozen=True)
class AlternatingPass:
    """One pass.

    Args:
        stages: The products, and what is made before and after them.
        inputs: Kernels that write vectors which inputs alone decide, by stage; None where there is nothing to write.
        begin: What the first step does before its first product; None where a step has no product.
        parts: Between the products of a step, in order.
        step: After the last product of a step.
    """

    stages: Stages
    inputs: tuple[TritonPass | None, ...]
    begin: TritonPass | None
    parts: tuple[TritonPass, ...]
    step: TritonPass

    @property
    def kernels(self) -> tuple[TritonPass, ...]:
        """All, in the order in which they first run."""
        found = (*self.inputs, self.begin, *self.parts, self.step)
        return tuple(k for k in found if k is not None)


def refusal(programs: Programs) -> str | None:
    """Why there are no kernels of this schedule; None: there are."""
    if programs.keep != "steps":
        matrices = [o.name for o in programs.spec.states if len(o.axes) > 1]
        return f"state {matrices[0]!r} has more than one named axis, so it is not kept for every step"
    for a in programs.backward.assigns:
        if len(a.axes) > 1:
            name = a.target[0].removeprefix(cotangent(""))
            return f"the gradient of {name!r} has more than one named axis at every step; kernels make rows"
    return None


def sizes_of(lengths: tuple[tuple[str, int], ...]) -> Sizes:
    """Of kernels that make tiles of columns: rows of a block are short, so that a few sequences fill the chip."""
    longest = power_of_two(max((n for _, n in lengths), default=1))
    columns = min(longest, BLOCK_NUMBERS)
    return Sizes(lengths, columns, BLOCK_NUMBERS // columns, 4, 1)


def as_given(name: str, sizes: Sizes, make: Callable[[Sizes], TritonPass]) -> TritonPass:
    """A kernel with these sizes, whatever the machine."""
    return make(sizes)


def alternating_pass(
    programs: Programs, name: PassName, sizes: Sizes, variant: Variant, kind: Callable[[str], Hashable],
    fit: Fit = as_given,
) -> AlternatingPass:  # fmt: skip
    """The products and kernels of one pass.

    Args:
        kind: Of a weight, by its name: weights of one kind can be laid side by side.
        fit: Makes each kernel, with its sizes or with smaller ones.
    """
    return Alternating(programs, name, sizes, variant, kind, fit).build()


class Alternating:
    """Builds one pass."""

    def __init__(
        self, programs: Programs, name: PassName, sizes: Sizes, variant: Variant, kind: Callable[[str], Hashable],
        fit: Fit,
    ) -> None:  # fmt: skip
        self.programs, self.spec, self.name = programs, programs.spec, name
        self.sizes, self.variant, self.fit = sizes, variant, fit
        held = TimeLoop(programs, name, sizes, variant, "step").held
        known = {*(o.name for o in self.spec.of_kind("input")), *map(cotangent, self.spec.step.outputs)}
        self.stages = stages(self._assigns(), held, frozenset(known), kind)

    def _assigns(self) -> tuple[Assign, ...]:
        if self.name == "backward":
            return self.programs.backward.assigns
        forward = self.programs.forward.assigns
        if self.name == "forward":
            return forward
        states = {o.name for o in self.spec.states}
        return (*self.programs.silent_recording.assigns, *(a for a in forward if a.target[0] not in states))

    def build(self) -> AlternatingPass:
        found, last = self.stages, self.stages.depth
        inputs = [self._kernel("inputs", [Half(a, 0, False)]) if a else None for a in found.inputs]
        first = Half(found.assigns[0], 0, False)
        if last == 0:
            return AlternatingPass(found, tuple(inputs), None, (), self._kernel("step", [first]))
        parts = [self._kernel("part", [Half(found.assigns[n], n, False)]) for n in range(1, last)]
        step = [Half(found.assigns[last], last, False), replace(first, is_next=True)]
        return AlternatingPass(
            found, tuple(inputs), self._kernel("begin", [first]), tuple(parts), self._kernel("step", step)
        )

    def _kernel(self, part: PartName, halves: Sequence[Half]) -> TritonPass:
        lane = self._lane(halves) if part != "inputs" else None

        def make(sizes: Sizes) -> TritonPass:
            loop = TimeLoop(self.programs, self.name, sizes, self.variant, part, lane, self.stages.places)
            return Pointwise(loop, self.stages).build(halves)

        return self.fit(f"{self.name}, {part}", self._sizes(lane), make)

    def _sizes(self, lane: str | None) -> Sizes:
        lengths = dict(self.sizes.lengths)
        if lane is not None:
            return replace(self.sizes, columns=min(self.sizes.columns, power_of_two(lengths[lane])))
        row = power_of_two(max(lengths.values(), default=1))
        rows = max(1, self.sizes.rows * self.sizes.columns // row)
        warps = min(MOST_WARPS, max(4, rows * row // (32 * THREAD_NUMBERS)))
        return replace(self.sizes, columns=0, rows=rows, warps=warps)

    def _lane(self, halves: Iterable[Half]) -> str | None:
        """The axis that blocks share out: of all that is written, where nothing is summed inside of a row."""
        axes: set[tuple[str, ...]] = set()
        for half in halves:
            axes |= {tuple(i.dim for i in a.axes) for a in half.assigns}
            if half.stage == 0 and self.name != "backward":
                axes |= {o.axes for o in self.spec.states} if self.variant.reset else set()
                axes |= {tuple(d for d in dims if isinstance(d, str)) for dims in self._kept_here()}
            nodes = ir.walk([a.value for a in half.assigns])
            if reductions(half.assigns) or any(isinstance(n, Read) and len(n.indices) > 1 for n in nodes):
                return None
        return next(iter(axes))[0] if len(axes) == 1 and len(next(iter(axes))) == 1 else None

    def _kept_here(self) -> list[tuple[int | str, ...]]:
        """Of the old states that the gradient reads."""
        states = {o.name for o in self.spec.states}
        return [dims for (name, _), dims in kept_rows(self.programs).items() if name in states and self._records]

    @property
    def _records(self) -> bool:
        return self.name == "recording"
