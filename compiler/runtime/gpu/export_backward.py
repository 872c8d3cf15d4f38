"""The gradient in the host part of an exported file: memory before the launch, sums and matrix products after it.

In: the names of a `Host`. Out: lines. It is what `Loop.backward` does, written down for one kind of call.
"""

from __future__ import annotations

from collections.abc import Sequence

from rekern.gradient import cotangent
from rekern.runtime.gpu.export_names import Host
from rekern.schedules.programs import decode
from rekern.schedules.triton.passes import Argument, Use
from rekern.spec import Operand

TIMES = ("batch", "time", "heads")


class Finish:
    """Lines of the gradient."""

    def __init__(self, host: Host) -> None:
        self.host, self.spec, self.view = host, host.spec, host.passes["backward"]
        pointers = [a for a in self.view.arguments if a.kind == "pointer"]
        self._pointers = {(a.use, a.operand): a for a in pointers}
        self._parts = {(a.use, a.operand) for a in self.view.arguments if a.axis == "part"}
        self._copies = {a.operand for a in pointers if a.use == "d_param"}
        host.variables.update({("d_param", o.name): self._weight(o) for o in spec_params(host)})

    def _weight(self, o: Operand) -> str:
        return self.host.variables.get(("d_param", o.name)) or self.host.fresh(f"d_{o.name}")

    @property
    def cotangents(self) -> str:
        """Those of the results."""
        outputs = [self.host.variable("d_output", n) for n in self.spec.step.output_dims]
        return ", ".join([*outputs, *(self.host.variable("d_state_out", o.name) for o in self.spec.states)])

    @property
    def dense(self) -> list[str]:
        """Cotangents as kernels read them."""
        names = [(self.host.variable("d_output", n), dims) for n, dims in self.spec.step.output_dims.items()]
        states = [self.host.variable("d_state_out", o.name) for o in self.spec.states]
        return [f"{n} = dense_rows({n})" for n, dims in names if dims] + [f"{n} = {n}.contiguous()" for n in states]

    @property
    def memory(self) -> list[str]:
        """What the kernel writes."""
        lines = []
        for a in self._pointers.values():
            shape = self._shape(a)
            if shape is None:
                continue
            name = self.host.variable(*a.array)
            part = a.array in self._parts
            if part:
                shape = f"({self.host.constant('backward', 'COLUMN_TILES')}, {shape[1:]}"
            line = f"{name} = {self.host.new(shape, self._dtype(a), 'zeros' if a.use == 'd_param' else 'empty')}"
            reason = "# A sum for every block of a head." if a.use == "d_param" else ""
            reason = "# A part for every tile of columns." if part else reason
            if reason and reason not in lines:
                lines.append(reason)
            lines.append(line)
        return lines

    def _shape(self, a: Argument) -> str | None:
        """Of memory that the gradient needs; None: the array is there."""
        host = self.host
        match a.use:
            case "scratch":
                steps = f"programs * {host.constant('backward', 'BLOCK')}"
                return f"({steps} * {host.constant('backward', 'SLOT')},)"
            case "d_input":
                return host.shape(TIMES, self.spec.operand(a.operand).dims)
            case "d_state_in":
                return host.shape(("batch", "heads"), self.spec.operand(a.operand).dims)
            case "d_param":
                tiles = f" * {host.constant('backward', 'COLUMN_TILES')}" if self.view.column_tiles > 1 else ""
                return host.shape((host.groups("backward") + tiles, "heads"), self.spec.operand(a.operand).dims)
            case "vector":
                axis = host.programs.weight_terms[1][a.operand][0].dim
                return host.shape(TIMES, (axis,))
            case _:
                return None

    @property
    def sums(self) -> list[str]:
        """Parts and sums of blocks added up; gradients of weights, each a product over all steps at once."""
        lines = [
            f"{self.host.variable(use, n)} = {self.host.variable(use, n)}.sum(0)"
            for use, n in self._pointers
            if use == "d_param" or (use, n) in self._parts
            if use is not None
        ]
        terms = self.host.programs.weight_terms[0]
        for o in spec_params(self.host):
            name = self.host.variable("d_param", o.name)
            if o.name not in self._copies:
                lines.append(f"{name} = {self.host.new(self.host.shape(('heads',), o.dims), make='zeros')}")
            for term in (t for t in terms if t.weight[0] == o.name):
                (left, dtype), (right, other) = self._vector(term.left), self._vector(term.right)
                right += "" if dtype == other else f".to({dtype})"
                product = f'torch.einsum("bthi,bthj->hij", {left}, {right})'
                lines.append(f"{name}{_cell(o, term.weight[1], 1)} += {product}")
        return lines

    def _vector(self, word: str) -> tuple[str, str]:
        """One side of a product over all steps, and its dtype."""
        if ("vector", word) in self._pointers:
            return self.host.variable("vector", word), self._dtype(self._pointers["vector", word])
        name, cell = decode(word)
        o = self.spec.operand(name.removeprefix(cotangent("")))
        return self.host.variable("d_input", o.name) + _cell(o, cell, 3), self._dtype(self._pointers["d_input", o.name])

    def _dtype(self, a: Argument) -> str:
        return "torch.float32" if a.dtype == "*fp32" else self.host.torch_dtype

    @property
    def results(self) -> list[str]:
        """What autograd gets, a line each: nothing for scalars, operands, first states."""
        lines = ["None,"] * len(self.host.scalars)
        narrow = self.host.torch_dtype != "torch.float32"
        for o in self.spec.of_kind("input", "param"):
            use: Use = "d_input" if o.kind == "input" else "d_param"
            pointer = self._pointers.get(("d_input", o.name))
            cast = narrow and (o.kind == "param" or pointer is None or pointer.dtype == "*fp32")
            lines.append(f"{self.host.variables[use, o.name]}{f'.to({self.host.torch_dtype})' if cast else ''},")
        return lines + [f"{self.host.variable('d_state_in', o.name)}," for o in self.spec.states]


def spec_params(host: Host) -> Sequence[Operand]:
    """The parameters."""
    return tuple(host.spec.of_kind("param"))


def _cell(o: Operand, cell: Sequence[int], lead: int) -> str:
    """The index of one literal cell of an array with `lead` axes before its own."""
    numbers = iter(cell)
    index = [":"] * lead + [":" if isinstance(d, str) else str(next(numbers)) for d in o.dims]
    while index and index[-1] == ":":
        index.pop()
    return f"[{', '.join(index)}]" if index else ""
