"""A recurrence as a value: operands declared as defaults, one step of time as a function body.

In: a Python function whose parameters default to `State`, `Input`, `Param` and `Scalar` declarations.
Out: a `Recurrence`, and its `Step`: one formula for every component of every new state and output.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import FunctionType
from typing import Literal, cast

from rekern.digests import digest_of
from rekern.errors import SpecError, quote_traceback
from rekern.ir import Node
from rekern.trace import Array, Cell, Dim, as_array, named, operand, show

Kind = Literal["state", "input", "param", "scalar"]
SCALAR_NAMES = {"sqrt": math.sqrt, "log": math.log, "exp": math.exp, "pi": math.pi}


@dataclass(frozen=True)
class Operand:
    """What a spec says of one operand.

    `dims` are the axes after the implicit ones: Input [B, T, H, *dims], Param [H, *dims],
    State [B, H, *dims], Scalar []. `at_most`, `at_least` and `unit_norm` are facts that the analysis may use.
    """

    name: str
    kind: Kind
    dims: tuple[Dim, ...] = ()
    at_most: float | None = None
    at_least: float | None = None
    unit_norm: bool = False
    init: float = 0.0
    dtype: str = "float32"
    default: str | float | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """The named axes."""
        return tuple(named(self.dims))

    def __str__(self) -> str:
        lead = {"state": "B, H", "input": "B, T, H", "param": "H", "scalar": ""}[self.kind]
        shape = ", ".join(filter(None, [lead, *map(str, self.dims)]))
        return f"{self.name} [{shape}]" if shape else self.name

    def meaning(self) -> str:
        """Everything but the name's spelling of dims, as text, for digests."""
        return repr(self)


def _declare(kind: Kind, dims: tuple[Dim, ...], **facts: object) -> Array:
    for dim in dims:
        if isinstance(dim, bool) or not isinstance(dim, (int, str)) or (isinstance(dim, int) and dim < 1):
            raise SpecError(
                f"{dim!r} is not an axis; an axis is a name such as 'K' or a literal size such as 4"
            )
        if isinstance(dim, str) and not dim.isidentifier():
            raise SpecError(f"{dim!r} is not an axis name; use a name such as 'K' or 'head_dim'")
    # 0 and 0.0 are one fact
    facts = {n: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for n, v in facts.items()}
    # Type checkers see an Array, because that is what the body of the spec gets.
    # Facts are checked by Operand itself.
    return cast(Array, Operand("?", kind, dims, **facts))  # type: ignore[arg-type]


def State(*dims: Dim, init: float = 0.0, dtype: str = "float32") -> Array:
    """A state [B, H, *dims]; `init` is its declared initial value (-inf is allowed)."""
    if dtype not in ("float32", "float64"):
        raise SpecError(f"a state is kept in float32 or float64, not {dtype!r}")
    return _declare("state", dims, init=float(init), dtype=dtype)


def Input(
    *dims: Dim, at_most: float | None = None, at_least: float | None = None, unit_norm: bool = False
) -> Array:
    """An input [B, T, H, *dims]: its value at this step."""
    return _declare("input", dims, at_most=at_most, at_least=at_least, unit_norm=unit_norm)


def Param(
    *dims: Dim, at_most: float | None = None, at_least: float | None = None, unit_norm: bool = False
) -> Array:
    """A parameter [H, *dims]: shared over batch and time."""
    return _declare("param", dims, at_most=at_most, at_least=at_least, unit_norm=unit_norm)


def Scalar(default: str | float | None = None) -> Array:
    """A number of the call; `default` may be an expression in the axis names, such as "K**-0.5"."""
    return _declare("scalar", (), default=default)


@dataclass(frozen=True)
class Step:
    """One step of time as formulas: `states[name][cell]` over the axes of the state, `outputs` likewise.

    `output_dims` gives the shape of each output; a spec with one unnamed output calls it "out".
    """

    states: Mapping[str, Mapping[Cell, Node]]
    outputs: Mapping[str, Mapping[Cell, Node]]
    output_dims: Mapping[str, tuple[Dim, ...]]
    single_output: bool

    def roots(self) -> list[Node]:
        return [n for group in (*self.states.values(), *self.outputs.values()) for n in group.values()]


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A recurrence: a value with a name, compared by meaning, printed as its equations."""

    name: str
    operands: tuple[Operand, ...]
    function: FunctionType = field(repr=False)
    bindings: tuple[tuple[str, int], ...] = ()
    doc: str = field(default="", repr=False)

    def operand(self, name: str) -> Operand:
        return next(o for o in self.operands if o.name == name)

    def of_kind(self, *kinds: Kind) -> tuple[Operand, ...]:
        return tuple(o for o in self.operands if o.kind in kinds)

    @property
    def states(self) -> tuple[Operand, ...]:
        return self.of_kind("state")

    @property
    def axes(self) -> tuple[str, ...]:
        """The named axes, in the order in which they first appear."""
        return tuple(dict.fromkeys(d for o in self.operands for d in o.axes))

    def bind(self, **sizes: int) -> Recurrence:
        """The same recurrence with named axes made literal, so that loops over them unroll."""
        for name, value in sizes.items():
            if name not in self.axes:
                raise SpecError(
                    f"{self.name} has no axis {name!r} to bind; it has {', '.join(self.axes) or 'none'}"
                )
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(f"bind({name}={value!r}): the size of an axis is a whole number from 1 on")
        operands = tuple(
            replace(o, dims=tuple(sizes.get(d, d) if isinstance(d, str) else d for d in o.dims))
            for o in self.operands
        )
        return replace(
            self, operands=operands, bindings=tuple(sorted({**dict(self.bindings), **sizes}.items()))
        )

    @cached_property
    def step(self) -> Step:
        """The formulas of one step; the body runs once, when they are first asked for.

        Raises:
            SpecError: the body reads an undefined name, mixes axes, branches on data, returns the wrong
                states, or loops over an axis that is not bound yet.
        """
        return _trace(self)

    @cached_property
    def meaning(self) -> str:
        """A digest of what is computed: equal for specs that differ only in spelling.

        Raises:
            SpecError: as for `step`.
        """
        lines = [o.meaning() for o in self.operands]
        for group in (self.step.states, self.step.outputs):
            for name, cells in group.items():
                lines += [f"{name}{cell}={node.digest}" for cell, node in cells.items()]
        return digest_of(*lines)

    @cached_property
    def _identity(self) -> object:
        """What is compared: the meaning, or the function itself where its body needs a `bind` to be read."""
        try:
            return self.meaning
        except SpecError:
            return self.function, self.operands, self.bindings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recurrence) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __reduce__(self) -> tuple[Callable[..., Recurrence], tuple[object, ...]]:
        return _resolve, (self.function.__module__, self.function.__qualname__, self.bindings)

    def __str__(self) -> str:
        from rekern.printers.text import equations

        return equations(self)

    def _repr_latex_(self) -> str:
        from rekern.printers.latex import equations

        return equations(self)

    def __call__(self, *args: object, **kwargs: object) -> object:
        raise SpecError(
            f"{self.name} is a recurrence, not a function; call the kernel: rekern.compile({self.name})(...)"
        )


def recurrence(function: Callable[..., object]) -> Recurrence:
    """Make a `Recurrence` of a function of one step.

    The function gets last step's states and this step's inputs and returns `(new states, output)`: states in
    the order declared, one state alone or in a tuple; one output alone, several in a dict.

    Raises:
        SpecError: a parameter has no declaration, or there is no state.
    """
    if not isinstance(function, FunctionType):
        raise SpecError(f"@recurrence decorates a plain function, not {function!r}")
    operands = []
    for name, parameter in inspect.signature(function).parameters.items():
        if not isinstance(parameter.default, Operand):
            raise SpecError(
                f"{function.__name__}: parameter {name!r} has no declaration\n"
                f"write {name}=Input('K'), or State, Param or Scalar, with the axes it has"
            )
        operands.append(replace(parameter.default, name=name))
    if not any(o.kind == "state" for o in operands):
        raise SpecError(
            f"{function.__name__} has no State, so nothing recurs; declare one, as in h=State('D')"
        )
    return Recurrence(function.__name__, tuple(operands), function, doc=inspect.getdoc(function) or "")


def derived(
    name: str, operands: tuple[Operand, ...], step: Step, bindings: tuple[tuple[str, int], ...] = ()
) -> Recurrence:
    """A recurrence that was made from another one as formulas, and has no body of its own."""

    def body() -> None:
        raise SpecError(f"{name} has no body")

    spec = Recurrence(name, operands, cast(FunctionType, body), bindings)
    spec.__dict__["step"] = step
    return spec


def _resolve(module: str, qualname: str, bindings: tuple[tuple[str, int], ...]) -> Recurrence:
    """Unpickle by reference."""
    found: object = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not isinstance(found, Recurrence):
        raise SpecError(f"{module}.{qualname} is not a recurrence any more")
    return found.bind(**dict(bindings)) if bindings else found


def _trace(spec: Recurrence) -> Step:
    code = spec.function.__code__
    try:
        returned = spec.function(**{o.name: operand(o.name, o.dims) for o in spec.operands})
        return _collect(spec, returned)
    except Exception as error:
        place = quote_traceback(error.__traceback__, code.co_filename, code.co_firstlineno, code.co_name)
        where = f"\n{place}" if place else ""
        raise SpecError(
            f"{spec.name}: {_explain(spec, error)}{where}\n"
            f"in {spec.name}, line {code.co_firstlineno} of its file"
        ) from (None if isinstance(error, SpecError) else error)


def _explain(spec: Recurrence, error: Exception) -> str:
    match error:
        case SpecError():
            return str(error)
        case NameError():
            names = ", ".join(o.name for o in spec.operands)
            name = error.name or str(error).split("'")[1]  # a local that is not assigned yet has no .name
            return (
                f"{name!r} is read but never defined\n"
                f"defined here: {names}; add it to the operands, or import it"
            )
        case _:
            return (
                f"{type(error).__name__}: {error}\n"
                f"the body of a spec uses operators and the functions of rekern.math only"
            )


def _collect(spec: Recurrence, returned: object) -> Step:
    names = [o.name for o in spec.states]
    if not isinstance(returned, tuple) or len(returned) != 2:
        new = names[0] if len(names) == 1 else f"({', '.join(names)})"
        raise SpecError(
            f"a step returns (new states, output); got {_describe(returned)}\n"
            f"end the body with: return {new}, output"
        )
    new, output = returned
    states = new if isinstance(new, tuple) else (new,)
    if len(states) != len(names):
        raise SpecError(
            f"{len(states)} new states are returned for the {len(names)} declared: {', '.join(names)}\n"
            f"return them in that order"
        )
    formulas = {}
    for declared, value in zip(spec.states, states, strict=True):
        array = as_array(value)
        if array.dims != declared.dims:
            raise SpecError(
                f"state {declared.name!r} is declared with shape {show(declared.dims)} "
                f"but returned with shape {show(array.dims)}\na state keeps its shape"
            )
        formulas[declared.name] = array.cells
    outputs = output if isinstance(output, dict) else {"out": output}
    if not outputs:
        raise SpecError("a step returns at least one output; got an empty dict")
    arrays = {}
    for name, value in outputs.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise SpecError(f"an output is named by a word, not {name!r}")
        if name in names:
            raise SpecError(f"the output {name!r} has the name of a state; give it a name of its own")
        arrays[name] = as_array(value)
    return Step(
        formulas,
        {n: a.cells for n, a in arrays.items()},
        {n: a.dims for n, a in arrays.items()},
        not isinstance(output, dict),
    )


def _describe(value: object) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def scalar_value(spec: Recurrence, operand: Operand, sizes: Mapping[str, int]) -> float:
    """The default of a Scalar for these axis lengths.

    Raises:
        SpecError: it has none, or the expression is not one in the axis names.
    """
    if operand.default is None:
        raise SpecError(f"{spec.name}: scalar {operand.name!r} has no default; pass {operand.name}=...")
    if not isinstance(operand.default, str):
        return float(operand.default)
    names = {**SCALAR_NAMES, **dict(spec.bindings), **sizes}
    try:
        return float(eval(operand.default, {"__builtins__": {}}, names))
    except Exception as error:
        what = f"the default {operand.default!r} of scalar {operand.name!r}"
        raise SpecError(
            f"{spec.name}: {what} cannot be evaluated: {error}\n"
            f"it may use the axis names {', '.join(spec.axes) or '(none)'} and sqrt, log, exp, pi"
        ) from None


__all__ = ["Input", "Operand", "Param", "Recurrence", "Scalar", "State", "Step", "recurrence", "scalar_value"]
