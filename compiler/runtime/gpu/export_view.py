"""What the template of an exported file gets: every line of its host part.

In: `Views` of a recurrence. Out: `Export`, which the template prints, and the text of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

from rekern.render import environment, tidy_python
from rekern.runtime.gpu.export_backward import Finish
from rekern.runtime.gpu.export_names import Host
from rekern.runtime.gpu.views import Views
from rekern.schedules.triton.passes import Argument, Use
from rekern.spec import Operand, scalar_value

MARK = "exported by rekern"


@dataclass(frozen=True)
class StateText:
    """Names of one state. `writes_in_place`: a step may overwrite it while it runs."""

    name: str
    first: str
    last: str
    writes_in_place: bool


@dataclass(frozen=True)
class ScalarText:
    """One scalar: its variable and what it is."""

    variable: str
    meaning: str


class Export:
    """All text of an exported file. `gradient`: that of the backward pass."""

    def __init__(self, views: Views) -> None:
        self.views, self.spec = views, views.programs.spec
        self.host = Host(views)
        self.function, self.class_name = self.host.function, self.host.class_name
        self.entries, self.grid, self.launch = self.host.entries, self.host.grid, self.host.launch
        self.gradient = Finish(self.host)

    # -- head of the file

    @property
    def title(self) -> str:
        gpu = self.views.call.machine.gpu
        assert gpu is not None
        name = f"{self.views.call.machine.name} ({gpu.architecture})"
        return f"{self.views.spec.name} for {name}, {MARK} {version('rekern')}."

    @property
    def equations(self) -> str:
        return _in_docstring(str(self.views.spec))

    @property
    def dtype(self) -> str:
        return self.views.call.dtype

    @property
    def lengths(self) -> str:
        return ", ".join(f"{axis} = {length}" for axis, length in self.host.sizes.items()) or "none"

    @property
    def results(self) -> str:
        single = self.spec.step.single_output
        return ("out" if single else "outputs") + ", last"

    @property
    def call(self) -> str:
        return ", ".join([*(self.host.operand(o) for o in self._operands), "state=None"])

    @property
    def constants(self) -> tuple[str, ...]:
        return self.host.merged.constants

    @property
    def functions(self) -> tuple[str, ...]:
        return self.host.merged.functions

    @property
    def kernels(self) -> list[str]:
        """With the numbers of a call left to run time: a new batch or length compiles nothing."""
        plain, free = "@triton.jit", '@triton.jit(do_not_specialize=["sequences", "time", "heads"])'
        return [text.replace(plain, free, 1) for text in self.host.merged.kernels.values()]

    # -- the functions

    @property
    def _operands(self) -> tuple[Operand, ...]:
        return tuple(self.spec.of_kind("input", "param"))

    @property
    def operands(self) -> str:
        return ", ".join(self.host.operand(o) for o in self._operands)

    @cached_property
    def scalars(self) -> list[ScalarText]:
        return [
            ScalarText(self.host.scalars[o.name], "a number" + (f"; {o.default}" if o.default is not None else ""))
            for o in self.spec.of_kind("scalar")
        ]

    def _keywords(self) -> list[str]:
        """Scalars with the values of their defaults for these lengths."""
        return [
            self.host.scalars[o.name]
            + ("" if o.default is None else f"={scalar_value(self.spec, o, self.host.sizes)!r}")
            for o in self.spec.of_kind("scalar")
        ]

    @property
    def signature(self) -> str:
        return ", ".join([self.operands, "*", "state=None", *self._keywords()])

    @property
    def step_signature(self) -> str:
        return ", ".join([self.operands, "*", "state=None", "in_place=False", *self._keywords()])

    @property
    def scalar_names(self) -> str:
        return "".join(f"{s.variable}, " for s in self.scalars)

    @property
    def scalar_tuple(self) -> str:
        names = [s.variable for s in self.scalars]
        return f"({', '.join(names)}{',' if len(names) == 1 else ''})"

    @property
    def run_signature(self) -> str:
        return self.scalar_names + self.tensors

    @property
    def tensors(self) -> str:
        return ", ".join([self.operands, *(s.first for s in self.states)])

    @property
    def first_input(self) -> str:
        return self.host.operand(next(iter(self.spec.of_kind("input"))))

    @property
    def arguments(self) -> list[str]:
        return [f"{self.host.operand(o)}: {self._shown(o)}" for o in self._operands]

    def _shown(self, o: Operand) -> str:
        lead = {"input": "B, T, H", "param": "H", "state": "B, H"}[o.kind]
        dims = "".join(f", {d if isinstance(d, int) else self.host.sizes[d]}" for d in o.dims)
        strides = "; any strides" if o.kind == "input" else ""
        return f"[{lead}{dims}]" + (strides if o.kind != "state" else "")

    @property
    def state_shapes(self) -> str:
        return ", ".join(f"{o.name} {self._shown(o)}" for o in self.spec.states)

    @property
    def output_shapes(self) -> str:
        step = self.spec.step
        shapes = (
            f"{n} [B, T, H{''.join(f', {d if isinstance(d, int) else self.host.sizes[d]}' for d in dims)}]"
            for n, dims in step.output_dims.items()
        )
        return ", ".join(shapes) + ("" if step.single_output else " in a dict by name,")

    @cached_property
    def states(self) -> list[StateText]:
        lane, tiles = self.views.programs.lane, self.host.passes["step"].column_tiles
        return [
            StateText(
                o.name, self.host.variable("state_in", o.name), self.host.variable("state_out", o.name),
                tiles == 1 or lane in o.dims,
            )
            for o in self.spec.states
        ]  # fmt: skip

    @property
    def state_names(self) -> str:
        return "".join(f'"{o.name}", ' for o in self.spec.states).rstrip(" " if len(self.spec.states) == 1 else ", ")

    @property
    def state_list(self) -> str:
        return ", ".join(o.name for o in self.spec.states)

    @property
    def checks(self) -> list[str]:
        named = ((o, self.host.operand(o)) for o in self._operands)
        return [f'expect("{n}", {n}, {self.host.shape_of(o)}, {self.host.torch_dtype}, device)' for o, n in named]

    @property
    def first_states(self) -> list[str]:
        return [
            f'{s.first} = first_state(state, "{o.name}", {self.host.shape_of(o)}, {_number(o.init)}, device)'
            for s, o in zip(self.states, self.spec.states, strict=True)
        ]

    def dense(self, name: str) -> list[str]:
        """The operands that a pass reads, as its kernel reads them."""
        read = {a.operand for a in self.host.passes[name].arguments if a.use in ("input", "param")}
        lines = []
        for o in (o for o in self._operands if o.name in read):
            variable = self.host.operand(o)
            if o.kind == "param":
                lines.append(f"{variable} = {variable}.contiguous()")
            elif o.dims:
                lines.append(f"{variable} = dense_rows({variable})")
        return lines

    @property
    def unsqueezed(self) -> list[str]:
        names = (self.host.operand(o) for o in self.spec.of_kind("input"))
        return [f"{name} = {name}.unsqueeze(1)" for name in names]

    @property
    def all_results(self) -> str:
        outputs = (self.host.variable("output", n) for n in self.spec.step.output_dims)
        return ", ".join([*outputs, *(s.last for s in self.states)])

    @property
    def returned(self) -> str:
        return self._returned("")

    @property
    def step_returned(self) -> str:
        return self._returned(".squeeze(1)")

    def _returned(self, change: str) -> str:
        names = {n: self.host.variable("output", n) + change for n in self.spec.step.output_dims}
        outputs = ", ".join(f'"{n}": {text}' for n, text in names.items())
        first = next(iter(names.values())) if self.spec.step.single_output else f"{{{outputs}}}"
        last = ", ".join(f'"{s.name}": {s.last}' for s in self.states)
        return f"{first}, {{{last}}}"

    @property
    def output_memory(self) -> list[str]:
        lines = []
        for n, dims in self.spec.step.output_dims.items():
            shape = self.host.shape(("batch", "time", "heads"), dims)
            lines.append(f"{self.host.variable('output', n)} = {self.host.new(shape, self.host.torch_dtype)}")
        return lines

    @property
    def kept_memory(self) -> list[str]:
        return [f"{self.host.variable(use, n)} = {self.host.new(shape)}" for use, n, shape in self._kept]

    @property
    def kept(self) -> str:
        return ", ".join(self.host.variable(use, n) for use, n, _ in self._kept)

    @property
    def _kept(self) -> list[tuple[Use, str, str]]:
        pointers = [a for a in self.host.passes["recording"].arguments if a.use in ("recorded", "checkpoint")]
        return [(*a.array, self._kept_shape(a)) for a in pointers if a.kind == "pointer"]

    def _kept_shape(self, a: Argument) -> str:
        if a.use == "recorded":
            return f"(batch, time, heads, {self.host.constant('recording', 'SLOT')})"
        blocks = f"batch * triton.cdiv(time, {self.host.constant('recording', 'BLOCK')})"
        return self.host.shape((blocks, "heads"), self.spec.operand(a.operand).dims)


def exported(views: Views) -> str:
    """The text of a file with the kernels of `views`."""
    return tidy_python(environment().get_template("triton/export.py.j2").render(e=Export(views)))


def _number(value: float) -> str:
    return repr(value) if abs(value) != float("inf") else f'float("{value}")'


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")
