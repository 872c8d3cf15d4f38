"""Random recurrences, written as text in the language of specs: any shapes, any operators, tame numbers.

In: a Hypothesis `draw`. Out: a `Recurrence` whose docstring is its source, and axis lengths. Every new state is
squashed or decays, and functions get arguments of their domain, so that errors stay those of rounding.
"""

from __future__ import annotations

import linecache
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import strategies as st

import rekern.math
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence

T = TypeVar("T")
Dims = tuple[int | str, ...]
AXES = ("D", "K", "V")
STATE_DIMS: list[Dims] = [
    (), ("D",), ("K",), ("K", "V"), ("V", "K"), ("D", "D"), (2, "D"), ("D", 2), ("K", "K", "V"), ("K", 2, "V"), (2,),
]  # fmt: skip
PARAM_DIMS: list[Dims] = [(), ("D",), ("K",), ("D", "D"), ("K", "V"), (2, "D", "D"), ("D", "K"), (2, "D"), ("V", "V")]
INPUT_DIMS: list[Dims] = [(), ("D",), ("K",), ("V",), (2, "D"), ("K", "V"), (2,)]
UNARY = [
    "tanh({})", "sigmoid({})", "sin({})", "cos({})", "erf({})", "abs({})", "relu({})", "gelu({})", "silu({})", "(-{})",
    "log_sigmoid({})", "softplus({})", "square(tanh({}))", "exp(-abs({}))", "exp(tanh({}))", "log(1 + abs({}))",
    "log1p(abs({}))", "expm1(tanh({}))", "sqrt(1 + square({}))", "rsqrt(1 + square({}))", "sign({})",
    "(1 / (1 + abs({})))", "(tanh({}) ** 3)", "({} ** 2)",
]  # fmt: skip
BINARY = [
    "({} + {})", "({} - {})", "({} * {})", "(tanh({}) * {})", "({} / (1 + abs({})))", "maximum({}, {} + 0.37)",
    "minimum({} - 0.23, {})", "logaddexp({}, {})", "({} > {} + 0.19)", "({} - 0.41 <= {})",
]  # fmt: skip
UPDATES = [
    "tanh({new})",
    "0.5 * {old} + 0.5 * tanh({new})",
    "sigmoid({new}) * {old} + tanh({more})",
    "exp(-abs({new})) * {old} + 0.5 * tanh({more})",
    "maximum(0.5 * {old} - 1, tanh({new}))",
    "{old} - 0.3 * tanh({old} - {new})",
    "where({new} > 0, 0.5 * {old}, tanh({more}))",
]


@dataclass
class Writer:
    """Writes expressions of wanted shapes over the names that are defined so far."""

    draw: st.DrawFn
    names: dict[str, Dims] = field(default_factory=dict)

    def pick(self, *options: T) -> T:
        return self.draw(st.sampled_from(options))

    def leaf(self, dims: Dims) -> str:
        """Something that broadcasts to `dims`; for one axis or none it has just that shape."""
        same = [n for n, d in self.names.items() if d == dims]
        if same:
            return str(self.pick(*same))
        if not dims:
            return str(self.pick("0.5", "-1.5", "2"))
        parts = []
        for n, dim in enumerate(dims):
            name = self.pick(*(n for n, d in self.names.items() if d == (dim,)))
            inserted = ", ".join([":", *["None"] * (len(dims) - n - 1)])
            parts.append(f"{name}[{inserted}]" if n < len(dims) - 1 else str(name))
        return "(" + f" {self.pick('*', '+', '-')} ".join(parts) + ")"

    def array(self, dims: Dims, depth: int) -> str:
        """An expression of exactly the shape `dims`."""
        if depth <= 0:
            return self.leaf(dims)
        kinds = ["leaf", "unary", "binary", "binary", "broadcast", "where", "reduce", "matmul", "matmul"]
        if len(dims) == 2:
            kinds += ["outer", "transpose"]
        match self.pick(*kinds):
            case "unary":
                return str(self.pick(*UNARY)).format(self.array(dims, depth - 1))
            case "binary":
                one, two = self.array(dims, depth - 1), self.array(dims, depth - 1)
                return str(self.pick(*BINARY)).format(one, two)
            case "broadcast" if dims:
                small = dims[1:] if self.draw(st.booleans()) else dims[:-1]
                other = self.array(small, depth - 1)
                if small != dims[1:]:
                    other = f"({other})[..., None]"
                return str(self.pick(*BINARY)).format(self.array(dims, depth - 1), other)
            case "where":
                a, b, c, d = (self.array(dims, depth - 2) for _ in range(4))
                return f"where({a} {self.pick('<', '>=', '!=')} {b} + 0.29, {c}, {d})"
            case "reduce" if len(dims) < 3:
                axis, place = self.axis(), self.draw(st.integers(0, len(dims)))
                inner = self.array((*dims[:place], axis, *dims[place:]), depth - 1)
                return f"{self.pick('sum', 'max', 'mean')}({inner}, axis={place})"
            case "matmul" if len(dims) < 3:
                return self.product(dims, depth)
            case "outer":
                return f"outer({self.array(dims[:1], depth - 1)}, {self.array(dims[1:], depth - 1)})"
            case "transpose":
                return f"({self.array(dims[::-1], depth - 1)}).T"
            case _:
                return self.leaf(dims)

    def product(self, dims: Dims, depth: int) -> str:
        axis = self.axis()
        sides: list[tuple[Dims, Dims]] = [((*dims[:-1], axis), (axis, *dims[-1:]))]
        if len(dims) == 1:
            sides.append(((*dims, axis), (axis,)))
        left, right = sides[self.draw(st.integers(0, len(sides) - 1))]
        if not dims:
            left, right = (axis,), (axis,)
        return f"({self.array(left, depth - 1)} @ {self.array(right, depth - 1)})"

    def axis(self) -> int | str:
        return self.draw(st.sampled_from(("D", "K", "V", "D", "K", "V", 2)))


@st.composite
def random_specs(draw: st.DrawFn) -> Recurrence:
    """A recurrence of up to three states, with its source as `doc`."""
    w = Writer(draw)
    lines: list[str] = []
    declared: list[str] = []
    states: dict[str, Dims] = {}
    for n in range(draw(st.integers(1, 3))):
        states[f"s{n}"] = draw(st.sampled_from(STATE_DIMS))
        init = draw(st.sampled_from(["", "", "init=0.5"]))
        declared.append(f"s{n}=State({', '.join(filter(None, [*map(repr, states[f's{n}']), init]))})")
    operands = {f"x{axis}": ("Input", (axis,)) for axis in AXES} | {"y2": ("Input", (2,))}
    for n in range(draw(st.integers(0, 2))):
        operands[f"u{n}"] = ("Input", draw(st.sampled_from(INPUT_DIMS)))
    for n in range(draw(st.integers(0, 2))):
        operands[f"w{n}"] = ("Param", draw(st.sampled_from(PARAM_DIMS)))
    declared += [f"{name}={kind}({', '.join(map(repr, dims))})" for name, (kind, dims) in operands.items()]
    if draw(st.booleans()):
        declared.append("a=Scalar(default='D**-0.5')")
        w.names["a"] = ()
    w.names |= states | {name: dims for name, (_, dims) in operands.items()}
    for n in range(draw(st.integers(0, 2))):
        dims = draw(st.sampled_from(INPUT_DIMS))
        lines.append(f"t{n} = tanh({w.array(dims, 3)})")
        w.names[f"t{n}"] = dims
    order = draw(st.permutations(list(states)))
    for name in [*order, *order[: draw(st.integers(0, 1))]]:  # one of them may take a second micro-step
        dims = states[name]
        update = draw(st.sampled_from(UPDATES))
        if len(dims) == 2 and draw(st.booleans()):  # a delta rule
            rate, key, value = w.array((), 2), w.array(dims[:1], 2), w.array(dims[1:], 2)
            lines.append(f"k_{name} = {key}")
            lines.append(f"k_{name} = k_{name} * rsqrt(1 + k_{name} @ k_{name})")
            update = f"{{old}} + sigmoid({rate}) * outer(k_{name}, tanh({value}) - k_{name} @ {{old}})"
        new = f"new_{name}" if draw(st.booleans()) else name
        old = name if name in w.names else f"new_{name}"
        lines.append(f"{new} = " + update.format(old=old, new=w.array(dims, 3), more=w.array(dims, 2)))
        if new != old:
            w.names[new] = dims
    assigned = [line.split(" = ")[0] for line in reversed(lines)]
    final = {name: next(n for n in assigned if n in (name, f"new_{name}")) for name in states}
    outputs = []
    for n in range(draw(st.integers(1, 3))):
        dims = draw(st.sampled_from(STATE_DIMS[:9]))
        outputs.append(f'"o{n}": {w.array(dims, 3)}')
    out = outputs[0].split(": ", 1)[1] if len(outputs) == 1 else "{" + ", ".join(outputs) + "}"
    lines.append(f"return ({', '.join(final.values())},), {out}")
    return written(declared, lines)


def written(declared: list[str], lines: list[str]) -> Recurrence:
    """The recurrence of this source, which tracebacks can quote."""
    text = "\n".join(["def random_spec(", f"    {', '.join(declared)}", "):", *(f"    {line}" for line in lines)])
    text += "\n"
    name = f"<random spec {abs(hash(text))}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    scope = {**vars(rekern.math), "State": State, "Input": Input, "Param": Param, "Scalar": Scalar}
    exec(compile(text, name, "exec"), scope)
    scope["random_spec"].__doc__ = text
    return recurrence(scope["random_spec"])
