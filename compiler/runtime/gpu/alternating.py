"""The loop of the schedule `alternating` on the host: products by torch (cuBLAS), and a pointwise kernel after each.

In: checked `Arguments`, the options of the call, sizes. Out: functions of tensors. All that is launched for the steps
of a call is one graph where there is a GPU (`graphs.py`). Products of 16-bit numbers are added up in float32 and stay
so; those of float32 are as `torch.backends.cuda.matmul` is set: in full precision, unless the user has said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rekern.backends.triton_launch import interpreted
from rekern.gradient import cotangent
from rekern.runtime.arguments import Arguments
from rekern.runtime.gpu.base import Given, GpuLoop, cell_of
from rekern.runtime.gpu.graphs import CudaRecorder, Graphs
from rekern.runtime.gpu.kernels import AlternatingKernels
from rekern.runtime.gpu.launches import Launch
from rekern.runtime.gpu.variants import SPELLED
from rekern.schedules.triton.alternating import AlternatingPass
from rekern.schedules.triton.passes import TritonPass
from rekern.schedules.triton.stages import Multiply
from rekern.spec import Operand
from rekern.trace import cells_of

Scalars = Mapping[str, float]


class AlternatingLoop(GpuLoop):
    """One kind of call of the schedule `alternating`."""

    def __init__(self, kernels: AlternatingKernels, arguments: Arguments, plan: str) -> None:
        super().__init__(kernels, arguments, plan)
        self.kernels = kernels
        self.recorder = None if interpreted() else CudaRecorder(self.device)
        self.graphs = Graphs(self.recorder), Graphs(self.recorder)
        self._launches: dict[int, Launch] = {}

    def _launch(self, view: TritonPass) -> Launch:
        if id(view) not in self._launches:  # views live as long as the loop
            self._launches[id(view)] = Launch(view, self.device, self.plan)
        return self._launches[id(view)]

    # -- calls

    def forward(
        self, operands: Sequence[Tensor], first: Sequence[Tensor | None], scalars: Scalars,
        boundaries: Tensor | None, reset: Tensor | None, in_place: bool = False,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:  # fmt: skip
        given = self.operands(operands, boundaries, reset)
        for o, t in zip(self.spec.states, first, strict=True):
            start = self.first(o, t)
            given["state_out", o.name] = start if in_place else self.new(start.shape).copy_(start)
        for n, dims in self.spec.step.output_dims.items():
            given["output", n] = self.of_steps(self.shape("BTH", dims), self.dtype)
        steps = self._steps(boundaries)
        kept: list[Tensor] = []
        if self.way.record:
            slot = max(k.slot for k in self.kernels.forward.kernels)
            kept = [self.new((*self.shape("BTH", ()), slot)), torch.tensor(steps, device="cpu")]
            given["recorded", "kept"] = kept[0]
        self._run(self.graphs[0], self.kernels.forward, given, range(steps), scalars)
        outputs = [given["output", n] for n in self.spec.step.output_dims]
        return outputs, [given["state_out", o.name] for o in self.spec.states], kept

    def backward(
        self, operands: Sequence[Tensor], scalars: Scalars, boundaries: Tensor | None, reset: Tensor | None,
        cotangents: Sequence[Tensor | None], kept: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
        given = self.operands(operands, boundaries, reset) | self.d_given(cotangents)
        for o in self.spec.states:
            last = given.pop(("d_state_out", o.name))
            given["d_state_in", o.name] = self.new(last.shape).copy_(last)
        given["recorded", "kept"] = kept[0]
        kernels = self.kernels.backward.kernels
        copies = max(self._launch(k).programs(replace(self.counts, heads=1)) for k in kernels if k.part != "inputs")
        for a in (a for k in kernels for a in k.arguments if a.kind == "pointer"):
            if a.use == "d_input":
                o = self.spec.operand(a.operand)
                dtype = torch.float32 if a.dtype == "*fp32" else self.arguments.tensors[o.name].dtype
                given["d_input", o.name] = self.of_steps(self.shape("BTH", o.dims), dtype)
            elif a.use == "d_param":
                dims = self.spec.operand(a.operand).dims
                given["d_param", a.operand] = self.zeros((copies, *self.shape("H", dims)))
            elif a.use == "vector":
                given["vector", a.operand] = self.vector(a.operand, a.dtype)
        steps = range(int(kept[1]) - 1, -1, -1)
        self._run(self.graphs[1], self.kernels.backward, given, steps, scalars)
        grads = [self._finished(o, given) for o in self.spec.of_kind("input", "param")]
        return grads, [given["d_state_in", o.name] for o in self.spec.states]

    def _steps(self, boundaries: Tensor | None) -> int:
        """Steps of the longest sequence. The host waits for the boundaries; while a graph is captured, which it cannot
        do, it launches as many steps as one sequence could have."""
        if boundaries is None or (self.recorder is not None and self.recorder.is_capturing()):
            return self.arguments.time
        longest = int(boundaries.diff().max())
        return max(0, min(longest, self.arguments.time))

    # -- one pass

    def _run(self, graphs: Graphs, made: AlternatingPass, given: Given, steps: range, scalars: Scalars) -> None:
        if not steps or not self.counts.sequences:
            return
        tensors = tuple((*key, t.data_ptr(), t.stride()) for key, t in given.items())
        key = tensors, steps, tuple(scalars.items()), torch.get_float32_matmul_precision()
        graphs.run(key, lambda: self._walk(made, given, steps, scalars))

    def _walk(self, made: AlternatingPass, given: Given, steps: range, scalars: Scalars) -> None:
        """Launch everything. What is allocated here is not read after it."""
        given, stages = {**given, **self._scratch(made)}, made.stages
        for stage, view in enumerate(made.inputs):
            if view is not None:
                self._launch(view)(given, self.counts, scalars, self.groups)
            for m in stages.after(stage, early=True):
                given["product", m.out] = self._early(m, given)

        def kernel(view: TritonPass) -> Callable[[int], None]:
            return self._launch(view).of_steps(given, self.counts, scalars, self.groups)

        kernels = [kernel(view) for view in (*made.parts, made.step)]
        products = [[self._product(m, given) for m in stages.after(stage)] for stage in range(stages.depth)]
        if made.begin is not None:
            kernel(made.begin)(steps[0])
        for t in steps:
            for stage, launch in enumerate(kernels):
                for product in products[stage] if products else ():
                    product()
                launch(t)

    def _scratch(self, made: AlternatingPass) -> Given:
        """Memory for vectors and products: of one step, or of all where inputs alone decide them."""
        found: Given = {}
        early = {m.vectors[0][0] for m in made.stages.multiplies if m.early}
        dtypes = {n: d for d, n in SPELLED.items()}
        for name, (dims, weight) in made.stages.vectors.items():
            shape = self.shape("BTH" if name in early else "HN", dims)
            found["factor", name] = self.new(shape, dtypes[self.variant.dtype(weight)])
        for m in made.stages.multiplies:
            if not m.early:
                found["product", m.out] = self.new(self.shape("HN", m.dims))
        return found

    # -- products

    def _product(self, m: Multiply, given: Given) -> Callable[[], None]:
        """The product of a step: sequences of heads that share a weight are rows of one matrix."""
        matrix = self._matrix(m, given)
        rows, out = (
            t.view(matrix.shape[0], -1, n)
            for t, n in zip((given["factor", m.vectors[0][0]], given["product", m.out]), matrix.shape[1:], strict=True)
        )
        return lambda: multiply(rows, matrix, out)

    def _early(self, m: Multiply, given: Given) -> Tensor:
        """A product of all steps, [B, T, H, ...]."""
        matrix = self._matrix(m, given)
        name, cell = m.vectors[0]
        if ("factor", name) in given:
            vector = given["factor", name].flatten(3)
        elif name.startswith(cotangent("")):
            own = name.removeprefix(cotangent(""))
            vector = cell_of(given["d_output", own], self.spec.step.output_dims[own], cell, 3)
        else:
            vector = cell_of(given["input", name], self.spec.operand(name).dims, cell, 3)
        a = self.arguments
        vector = vector.to(matrix.dtype).permute(2, 0, 1, 3)
        if vector.shape[0] != a.heads:
            vector = vector.repeat_interleave(a.heads // vector.shape[0], 0)
        out = self.new((a.heads, a.batch, a.time, matrix.shape[2]))
        shared = matrix.shape[0]
        multiply(vector.reshape(shared, -1, matrix.shape[1]), matrix, out.view(shared, -1, matrix.shape[2]))
        return out.permute(1, 2, 0, 3)

    def _matrix(self, m: Multiply, given: Given) -> Tensor:
        """The weights of a product as one matrix for each head, without a copy where they lie so."""
        operands = [self.spec.operand(name) for (name, _), _ in m.weights]
        cells = [
            cell_of(given["param", o.name], o.dims, cell, 1)
            for o, ((_, cell), _) in zip(operands, m.weights, strict=True)
        ]
        turned, beside = m.weights[0][1], len(m.vectors) == 1
        if len(cells) == 1:
            return cells[0].mT if turned else cells[0]
        if turned != beside:
            return torch.cat([c.mT if turned else c for c in cells], 2 if beside else 1)
        whole = given["param", operands[0].name]
        if is_whole(operands, [cell for (_, cell), _ in m.weights]):
            joined = whole.reshape(whole.shape[0], -1, whole.shape[-1])
        else:
            joined = torch.cat(cells, 1)
        return joined.mT if turned else joined


def multiply(rows: Tensor, matrix: Tensor, out: Tensor) -> None:
    """`out = rows @ matrix` for each head, in float32."""
    if rows.dtype == torch.float32:
        torch.bmm(rows, matrix, out=out)
    elif rows.is_cuda:
        torch.bmm(rows, matrix, out_dtype=torch.float32, out=out)
    else:  # torch multiplies 16-bit numbers on a CPU to 16-bit numbers only; in float32 their products are exact
        torch.bmm(rows.float(), matrix.float(), out=out)


def is_whole(operands: Sequence[Operand], cells: Sequence[tuple[int, ...]]) -> bool:
    """Whether cells are all those of one operand, one behind the other as they lie in memory."""
    dims = operands[0].dims
    literal = all(isinstance(d, int) for d in dims[:-2]) and all(isinstance(d, str) for d in dims[-2:])
    return literal and len(set(operands)) == 1 and list(cells) == list(cells_of(dims))
