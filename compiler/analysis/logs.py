"""The logarithm of a decay, as a formula that stays finite, or the reason why there is none.

In: a formula, and the spec whose facts may be used. Out: a formula whose exponential is the first one, or a
`Reason`. Schedules add up logarithms over many steps, so a decay without one keeps the time loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rekern import ir
from rekern.analysis.bounds import Ranges
from rekern.analysis.wording import short
from rekern.ir import Apply, Node, Number, Read
from rekern.rules import rewrite
from rekern.spec import Recurrence


@dataclass(frozen=True)
class Reason:
    """Why a question has no answer, in words."""

    text: str

    def __str__(self) -> str:
        return self.text


def log_decay(node: Node, spec: Recurrence | None = None, ranges: Ranges | None = None) -> Node | Reason:
    """The logarithm of `node`, if it is positive and its logarithm stays finite for finite operands.

    >>> g, f = ir.read("g"), ir.read("f")
    >>> short(log_decay(ir.mul(ir.apply("exp", g), ir.apply("sigmoid", f))))
    'g + log_sigmoid(f)'
    >>> print(log_decay(f))
    may be negative: 'f' has no at_least fact
    """
    known = ranges if ranges is not None else Ranges(spec)
    found = _log(rewrite([node])[0], known)
    return rewrite([found])[0] if not isinstance(found, Reason) else found


def _log(node: Node, ranges: Ranges) -> Node | Reason:
    """The logarithm, by structure first and by the range of values last."""
    match node:
        case Number(value=value):
            return ir.number(math.log(value)) if 0 < value < math.inf else _outside(node, ranges)
        case Apply(function="exp", arguments=(a,)):
            return a
        case Apply(function="sigmoid", arguments=(a,)):
            return ir.apply("log_sigmoid", a)
        case Apply(function="sqrt", arguments=(a,)):
            return _scaled(0.5, a, ranges)
        case Apply(function="rsqrt", arguments=(a,)):
            return _scaled(-0.5, a, ranges)
        case Apply(function="square", arguments=(a,)):
            return _scaled(2.0, a, ranges)
        case Apply(function="mul" | "div" | "maximum" | "minimum" | "where" | "abs"):
            found = _by_parts(node, ranges)
            return found if not isinstance(found, Reason) or ranges(node).low <= 0 else ir.apply("log", node)
    if ranges(node).low > 0:
        return ir.apply("log", node)
    if isinstance(node, Apply) and node.function == "add":
        return _by_parts(node, ranges)
    return _outside(node, ranges)


def _scaled(times: float, node: Node, ranges: Ranges) -> Node | Reason:
    found = _log(node, ranges)
    return found if isinstance(found, Reason) else ir.mul(ir.number(times), found)


def _by_parts(node: Apply, ranges: Ranges) -> Node | Reason:
    """From the logarithms of the arguments: of a product their sum, of a sum of positives their logaddexp."""
    *condition, a, b = node.arguments if node.function != "abs" else (*node.arguments, ir.number(1))
    if node.function == "where" and (ir.is_number(a, 0) or ir.is_number(b, 0)):
        return Reason(f"it is 0 where a condition holds: {short(node)}; to restart, pass reset=...")
    logs = (_log(a, ranges), _log(b, ranges))
    for found in logs:
        if isinstance(found, Reason):
            return found
    first, second = (found for found in logs if not isinstance(found, Reason))
    match node.function:
        case "mul":
            return ir.add(first, second)
        case "div":
            return ir.sub(first, second)
        case "add":
            return ir.apply("logaddexp", first, second)
        case "abs":
            return first
        case name:
            return ir.apply(name, *condition, first, second)


def _outside(node: Node, ranges: Ranges) -> Reason:
    """Why `node` has no logarithm that is always finite."""
    low, high = ranges(node)
    if low == high == 0:
        return Reason("it is 0: nothing of the state is kept")
    if high <= 0:
        return Reason(f"it is never positive: {short(node)} is at most {high:g}")
    if isinstance(node, Read):
        kind = ranges.operands[node.operand].kind if node.operand in ranges.operands else "input"
        if kind in ("state", "scalar"):
            return Reason(f"may be negative: {kind} '{node.operand}' can have any sign")
    if low < 0 and isinstance(node, Read):
        fact = "no at_least fact" if low == -math.inf else f"at_least={low:g}"
        return Reason(f"may be negative: '{node.operand}' has {fact}")
    if low < 0:
        return Reason(f"may be negative: {short(node)} is in {ranges(node)}")
    return Reason(f"may be 0, where its logarithm is not finite: {short(node)} is in {ranges(node)}")
