"""The names of an exported file, and its launches, shapes and grids as text.

In: `Views` of a recurrence. Out: `Host`. Names of the caller's operands stay as they are; where one is a word that the
file needs for itself, it gets a number.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence

from rekern.render import render_triton
from rekern.runtime.gpu.export_text import merge
from rekern.runtime.gpu.views import PASSES, Views
from rekern.schedules.triton.passes import TritonPass, Use
from rekern.spec import Operand
from rekern.trace import Dim

WORDS_OF_HOST = """
    batch ctx device dense_rows expect first_state given heads in_place kept known_states once_differentiable programs
    record run self state tensors time tl torch triton
"""


class Host:
    """What is called how."""


    def __init__(self, views: Views) -> None:
        self.views, self.programs, self.spec = views, views.programs, views.programs.spec
        self.sizes = views.lengths
        self.torch_dtype = f"torch.{views.call.dtype}"
        self.passes: dict[str, TritonPass] = {name: views.of(name)[0] for name in PASSES}  # a time loop is one kernel
        modules = {name: render_triton(view) for name, view in self.passes.items()}
        if self._same_step(modules):
            del modules["step"]
        else:
            entry = self.passes["step"].entry
            modules["step"] = re.sub(rf"\b{entry}\b", self._step_entry, modules["step"])
        entries = {n: self._step_entry if n == "step" else self.passes[n].entry for n in modules}
        self.merged = merge(modules, entries)
        self.entries = {"step": self.passes["forward"].entry, **entries}
        self.renamed = {"step": self.merged.renamed["forward"], **self.merged.renamed}
        taken = {n for names in self.renamed.values() for n in names.values()}
        taken |= {*self.entries.values(), *WORDS_OF_HOST.split()}
        taken |= set(re.findall(r"^def (\w+)", "\n".join(self.merged.functions), re.MULTILINE))
        self._taken = taken
        self.variables: dict[tuple[Use, str], str] = {}
        self.scalars = {o.name: self.fresh(o.name) for o in self.spec.of_kind("scalar")}
        self._declare()
        self.function = self.fresh(word(views.spec.name))
        self.class_name = self.fresh("".join(w.capitalize() for w in self.function.split("_")))

    # -- names

    def fresh(self, base: str) -> str:
        """`base`, or `base_2` and so on where it is taken; taken from now on."""
        name, count = base, 2
        while name in self._taken or keyword.iskeyword(name):
            name, count = f"{base}_{count}", count + 1
        self._taken.add(name)
        return name

    @property
    def _step_entry(self) -> str:
        return f"step_{word(self.spec.name)}"

    def _same_step(self, modules: Mapping[str, str]) -> bool:
        forward, step = self.passes["forward"].sizes, self.passes["step"].sizes
        same = (forward.warps, forward.stages) == (step.warps, step.stages)
        return same and modules["step"] == modules["forward"]

    def _declare(self) -> None:
        """A variable for every array, the caller's operands and the outputs first."""
        fresh = self.fresh
        for o in self.spec.of_kind("input", "param"):
            self.variables["input" if o.kind == "input" else "param", o.name] = fresh(o.name)
        for n in self.spec.step.output_dims:
            self.variables["output", n] = fresh(n)
        for view in self.passes.values():
            for a in view.arguments:
                if a.kind == "pointer" and a.array not in self.variables:
                    self.variables[a.array] = fresh(self._base(*a.array))

    @staticmethod
    def _base(use: Use, operand: str) -> str:
        name = word(operand)
        match use:
            case "state_in":
                return f"{name}_first"
            case "state_out":
                return f"{name}_last"
            case "checkpoint":
                return f"{name}_kept"
            case "recorded":
                return "kept_rows"
            case "scratch":
                return "scratch"
            case "d_state_in":
                return f"d_{name}_first"
            case "d_state_out":
                return f"d_{name}_last"
            case "d_output" | "d_input" | "d_param":
                return f"d_{name}"
            case _:
                return name

    def variable(self, use: Use, operand: str) -> str:
        """The name of an array in the host part."""
        return self.variables[use, operand]

    def operand(self, o: Operand) -> str:
        """The name of one of the caller's operands."""
        return self.variable("input" if o.kind == "input" else "param", o.name)

    def constant(self, view: str, name: str) -> str:
        """The number of a constant of the kernel of this pass, as text."""
        return f"{self.renamed[view][name]}.value"

    # -- shapes and grids

    def shape(self, lead: Iterable[str], dims: Sequence[Dim]) -> str:
        """A shape as text."""
        lengths = (str(d if isinstance(d, int) else self.sizes[d]) for d in dims)
        return f"({', '.join([*lead, *lengths])}{',' if len([*lead]) + len(dims) == 1 else ''})"

    def shape_of(self, o: Operand) -> str:
        """Of an operand of a call."""
        lead = {"input": ("batch", "time", "heads"), "param": ("heads",), "state": ("batch", "heads")}[o.kind]
        return self.shape(lead, o.dims)

    def groups(self, name: str) -> str:
        """Groups of sequences that share a block, as text."""
        return f"triton.cdiv(batch, {self.constant(name, 'ROWS')})" if self.passes[name].rows else "batch"

    def grid(self, name: str) -> str:
        """Blocks of a launch."""
        tiles = f" * {self.constant(name, 'COLUMN_TILES')}" if self.passes[name].column_tiles > 1 else ""
        return f"{self.groups(name)} * heads{tiles}"

    def launch(self, name: str) -> list[str]:
        """The arguments of a launch: a line for each pointer with its strides."""
        view = self.passes[name]
        lines: list[list[str]] = []
        for a in view.arguments:
            if a.kind == "pointer":
                lines.append([self.variable(*a.array)])
            elif a.kind == "stride":
                array = self.variable(*a.array)
                text = f"{array}.stride(0)" if a.axis == "part" else f"*{array}.stride()[:3]"
                if text not in lines[-1]:
                    lines[-1].append(text)
            elif a.kind == "scalar":
                lines.append([self.scalars[a.operand]])
        lines.append(["batch", "time", "heads"])
        lines.append([f"num_warps={view.sizes.warps}", f"num_stages={view.sizes.stages}"])
        return [", ".join(line) + "," for line in lines]

    @staticmethod
    def new(shape: str, dtype: str = "torch.float32", make: str = "empty") -> str:
        """Memory as text."""
        return f"torch.{make}({shape}, dtype={dtype}, device=device)"


def word(text: str) -> str:
    """A text as a name."""
    return re.sub(r"\W", "_", text)
