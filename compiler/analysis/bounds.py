"""The range of a formula, from the facts of its operands and the ranges of functions.

In: a formula and the spec whose operands it reads. Out: an interval that holds for all values that respect
the declared facts. A spec without facts still has ranges: `a - max(a, b)` is never positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rekern import ir
from rekern.ir import Apply, Node, Number, Read, Reduce, Size
from rekern.spec import Operand, Recurrence

INF = math.inf
DEEPEST = 3  # nested maxima that one difference is compared with
Form = dict[Node, float]  # a sum of multiples of formulas; the key number(1) holds the constant
ONE = ir.number(1)
LARGEST_EXPONENT = 88.0  # of a finite exponential in float32


class Interval(NamedTuple):
    """All numbers from `low` to `high`; either end may be infinite."""

    low: float
    high: float

    def __str__(self) -> str:
        left, right = "(" if self.low == -INF else "[", ")" if self.high == INF else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


ANY = Interval(-INF, INF)


def bounds(node: Node, spec: Recurrence | None = None) -> Interval:
    """The range of `node` for all operands that respect the facts of `spec`; states may be anything.

    >>> from rekern.zoo import selective_scan
    >>> decay = ir.mul(ir.read("delta", (), (ir.Index("D"),)), ir.read("A", (), ir.canonical_axes("DN")))
    >>> print(bounds(decay, selective_scan), bounds(ir.apply("exp", decay), selective_scan))
    (-inf, 0] [0, 1]
    """
    return Ranges(spec)(node)


def overflow_risks(spec: Recurrence) -> tuple[Node, ...]:
    """The exponentials of a step whose argument may exceed what float32 holds, as far as the facts tell.

    >>> from rekern.zoo import gla, mlstm
    >>> [len(overflow_risks(s)) for s in (gla, mlstm)]     # mlstm: exp(-m), for a very negative m
    [0, 1]
    """
    ranges = Ranges(spec)
    nodes = ir.walk(spec.step.roots())
    exponentials = [n for n in nodes if isinstance(n, Apply) and n.function in ("exp", "expm1")]
    return tuple(n for n in exponentials if ranges(n.arguments[0]).high > LARGEST_EXPONENT)


class Ranges:
    """`bounds` for many formulas of one spec: what was found is kept."""

    def __init__(self, spec: Recurrence | None = None) -> None:
        self.operands = {o.name: o for o in spec.operands} if spec is not None else {}
        self.found: dict[Node, Interval] = {}

    def __call__(self, node: Node) -> Interval:
        for below in ir.walk([node]):
            if below not in self.found:
                self.found[below] = self._range(below)
        return self.found[node]

    def _range(self, node: Node) -> Interval:
        match node:
            case Number():
                return ANY if math.isnan(node.value) else Interval(node.value, node.value)
            case Size():
                return Interval(1, INF)
            case Read():
                return _facts(self.operands.get(node.operand))
            case Reduce(operation="max"):
                return self(node.body)
            case Reduce():
                return self._sum(node)
            case Apply(function="add" | "sub" | "neg"):
                return self._affine(node)
            case Apply(function="mul"):
                a, b = node.arguments
                return _square(self(a)) if a is b else _times(self(a), self(b))
            case Apply(function="div"):
                return self._quotient(*node.arguments)
            case Apply(function="where"):
                condition, a, b = node.arguments
                if self(condition).low > 0 or self(condition).high < 0:
                    return self(a)
                return Interval(min(self(a).low, self(b).low), max(self(a).high, self(b).high))
            case Apply():
                return FUNCTION_RANGES.get(node.function, _unknown)(*map(self, node.arguments))

    def _sum(self, node: Reduce) -> Interval:
        match node.body:
            case Apply(function="square", arguments=(a,)) if self._is_unit(a, node):
                return Interval(1, 1)
            case Apply(function="mul", arguments=(a, b)) if self._is_unit(a, node) and self._is_unit(b, node):
                return Interval(1, 1) if a is b else Interval(-1, 1)
        return _times(self(node.body), Interval(1, INF))

    def _is_unit(self, node: Node, over: Reduce) -> bool:
        """Whether `node` is a vector of norm 1 along the axis that is summed."""
        if not isinstance(node, Read) or node.indices[-1:] != (over.index,):
            return False
        known = self.operands.get(node.operand)
        return known is not None and known.unit_norm

    def _quotient(self, a: Node, b: Node) -> Interval:
        if isinstance(a, Reduce) and a.operation == "sum" and b is ir.size(a.index.dim):
            return self(a.body)  # a mean
        whole = _times(self(a), _reciprocal(self(b)))
        parts = ir.terms(b)
        if a in parts and self(a).low >= 0 and all(self(p).low >= 0 for p in parts):
            return Interval(max(whole.low, 0), min(whole.high, 1))  # a / (a + b)
        return whole

    def _affine(self, node: Node) -> Interval:
        form = linear_form(node)
        negated = {atom: -times for atom, times in form.items()}
        return Interval(0.0 - self._at_most(negated, DEEPEST), self._at_most(form, DEEPEST))

    def _at_most(self, form: Form, depth: int) -> float:
        """The best upper bound of a sum that replacing maxima by one of their sides gives."""
        best = sum((_times(Interval(t, t), self(atom)).high for atom, t in form.items()), 0.0)
        best = INF if math.isnan(best) else best
        if depth == 0 or len(form) == 1:
            return best
        for atom, times in form.items():
            for side in lower_sides(atom, form) if times < 0 else upper_sides(atom):
                other = {**form, atom: 0.0}
                for part, count in linear_form(side).items():
                    other[part] = other.get(part, 0.0) + times * count
                rest = {part: t for part, t in other.items() if t != 0}
                if any(part in form and rest.get(part) != form[part] for part in linear_form(side)):
                    best = min(best, self._at_most(rest, depth - 1))
        return best


def linear_form(node: Node) -> Form:
    """`node` as a sum of multiples; what is not a sum or a multiple stands for itself.

    >>> a, b = ir.read("a"), ir.read("b")
    >>> form = linear_form(ir.sub(ir.add(a, b), ir.mul(ir.number(2), a)))
    >>> form == {a: -1, b: 1}
    True
    """
    form: Form = {}
    _collect(node, 1.0, form)
    return {atom: times for atom, times in form.items() if times != 0}


def _collect(node: Node, times: float, form: Form) -> None:
    match node:
        case Number():
            form[ONE] = form.get(ONE, 0.0) + times * node.value
        case Apply(function="add", arguments=(a, b)):
            _collect(a, times, form)
            _collect(b, times, form)
        case Apply(function="sub", arguments=(a, b)):
            _collect(a, times, form)
            _collect(b, -times, form)
        case Apply(function="neg", arguments=(a,)):
            _collect(a, -times, form)
        case Apply(function="mul", arguments=(Number(value=n), a) | (a, Number(value=n))):
            _collect(a, times * n, form)
        case Apply(function="div", arguments=(a, Number(value=n))) if n != 0:
            _collect(a, times / n, form)
        case _:
            form[node] = form.get(node, 0.0) + times


def lower_sides(node: Node, form: Form) -> list[Node]:
    """Formulas that are never above `node`; a maximum over an axis is taken at the indices of `form`."""
    match node:
        case Apply(function="maximum" | "logaddexp"):
            return [*node.arguments, *(side for a in node.arguments for side in lower_sides(a, form))]
        case Apply(function="softplus" | "relu"):
            return [node.arguments[0], ir.number(0)]
        case Apply(function="abs"):
            return [node.arguments[0], ir.neg(node.arguments[0])]
        case Reduce(operation="max"):
            here = {i for atom in form for i in atom.free if i.dim == node.index.dim}
            return [ir.rename(node.body, {node.index: i}) for i in sorted(here - node.free)]
    return []


def upper_sides(node: Node) -> list[Node]:
    """Formulas that are never below `node`."""
    match node:
        case Apply(function="minimum"):
            return [*node.arguments, *(side for a in node.arguments for side in upper_sides(a))]
        case Apply(function="log_sigmoid"):
            return [node.arguments[0], ir.number(0)]
    return []


# -- ranges of functions of intervals ------------------------------------------------------------------------


def _facts(operand: Operand | None) -> Interval:
    if operand is None or operand.kind not in ("input", "param"):
        return ANY  # a state may start anywhere, a scalar may be passed
    low = -INF if operand.at_least is None else operand.at_least
    high = INF if operand.at_most is None else operand.at_most
    return Interval(max(low, -1.0), min(high, 1.0)) if operand.unit_norm else Interval(low, high)


def _times(a: Interval, b: Interval) -> Interval:
    ends = [0.0 if x == 0 or y == 0 else x * y for x in a for y in b]
    return Interval(min(ends), max(ends))


def _square(a: Interval) -> Interval:
    ends = (a.low * a.low, a.high * a.high)
    return Interval(0.0 if a.low <= 0 <= a.high else min(ends), max(ends))


def _reciprocal(a: Interval) -> Interval:
    if a.low < 0 < a.high or a.low == a.high == 0:
        return ANY
    return Interval(1 / a.high if a.high else -INF, 1 / a.low if a.low else INF)


def _unknown(*_: Interval) -> Interval:
    return ANY


def _rising(value: Callable[[float], float], domain: Interval = ANY) -> Callable[[Interval], Interval]:
    """The range of a function that never falls, on its domain."""

    def image(a: Interval) -> Interval:
        if a.high < domain.low or a.low > domain.high:
            return ANY
        return Interval(value(max(a.low, domain.low)), value(min(a.high, domain.high)))

    return image


def _at(x: float, value: Callable[[float], float], below: float, above: float) -> float:
    """`value(x)`, with its limits where x is infinite or the value overflows."""
    if math.isinf(x):
        return above if x > 0 else below
    try:
        return value(x)
    except OverflowError:
        return above


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _log(x: float) -> float:
    return _at(x, math.log, 0, INF) if x > 0 else -INF


def _exp(x: float) -> float:
    return _at(x, math.exp, 0, INF)


def _smooth_step(a: Interval, least: float) -> Interval:
    """Functions between min(x, 0) and max(x, 0) with one dip down to `least`: silu and gelu."""
    return Interval(max(least, a.low) if a.low < 0 else 0.0, max(a.high, 0.0))


def _sign(x: float) -> float:
    return float((x > 0) - (x < 0))


def _logaddexp(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if math.isinf(high) or math.isinf(low) else high + math.log1p(math.exp(low - high))


def _two(value: Callable[[float, float], float]) -> Callable[[Interval, Interval], Interval]:
    return lambda a, b: Interval(value(a.low, b.low), value(a.high, b.high))


def _wave(_: Interval) -> Interval:
    return Interval(-1, 1)


def _comparison(*_: Interval) -> Interval:
    return Interval(0, 1)


POSITIVE = Interval(0, INF)
FUNCTION_RANGES: Mapping[str, Callable[..., Interval]] = {
    "exp": _rising(_exp),
    "expm1": _rising(lambda x: _at(x, math.expm1, -1, INF)),
    "log": _rising(_log, POSITIVE),
    "log1p": _rising(lambda x: -INF if x <= -1 else _at(x, math.log1p, 0, INF), Interval(-1, INF)),
    "sqrt": _rising(lambda x: _at(x, math.sqrt, 0, INF), POSITIVE),
    "rsqrt": lambda a: _reciprocal(_rising(lambda x: _at(x, math.sqrt, 0, INF), POSITIVE)(a)),
    "tanh": _rising(lambda x: _at(x, math.tanh, -1, 1)),
    "erf": _rising(lambda x: _at(x, math.erf, -1, 1)),
    "sigmoid": _rising(lambda x: _at(x, _sigmoid, 0, 1)),
    "log_sigmoid": _rising(lambda x: _at(x, lambda v: -_softplus(-v), -INF, 0)),
    "softplus": _rising(lambda x: _at(x, _softplus, 0, INF)),
    "relu": _rising(lambda x: max(x, 0.0)),
    "sign": _rising(_sign),
    "gelu": lambda a: _smooth_step(a, -0.17),
    "silu": lambda a: _smooth_step(a, -0.2785),
    "abs": lambda a: Interval(max(a.low, -a.high, 0.0), max(-a.low, a.high)),
    "square": _square,
    "sin": _wave,
    "cos": _wave,
    "maximum": _two(max),
    "minimum": _two(min),
    "logaddexp": _two(_logaddexp),
    **{name: _comparison for name in ("lt", "le", "gt", "ge", "eq", "ne")},
}
