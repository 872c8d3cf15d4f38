"""Stable rewrites: formulas as people write them, into forms that neither overflow nor cancel.

In: formulas. Out: formulas with the same value for every real number in the stated domain, the same
derivative, and a result that is at least as accurate and at least as finite in floating point.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from rekern import ir
from rekern.ir import Apply, Node, Number, Read
from rekern.math import (
    abs,
    exp,
    expm1,
    log,
    log1p,
    log_sigmoid,
    logaddexp,
    rsqrt,
    sigmoid,
    silu,
    softplus,
    sqrt,
    square,
    tanh,
)
from rekern.rewrite import rebuild, substitute
from rekern.trace import Array

Bindings = Mapping[Node, Node]
ANYTHING, CONSTANT = "?", "#"  # how the name of a metavariable starts: what it stands for


@dataclass(frozen=True)
class Rule:
    """`pattern` equals `replacement` for every real value of its letters for which `holds` is not 0."""

    name: str
    pattern: Node
    replacement: Node
    holds: Node


def rule(name: str, pattern: Array, replacement: Array, holds: Array | None = None) -> Rule:
    always = ir.number(1)
    return Rule(name, pattern.cells[()], replacement.cells[()], always if holds is None else holds.cells[()])


def letter(name: str) -> Array:
    return Array((), {(): ir.read(name)})


x, y = letter(ANYTHING + "x"), letter(ANYTHING + "y")
c = letter(CONSTANT + "c")  # stands for numbers only

# Each holds for every real letter, or where its last column says. A pattern meets parts that were rewritten
# before, so later forms speak of expm1 and softplus; `-x` in a pattern matches every formula y, as x = -y.
STABLE = (
    rule("sigmoid", c / (1 + exp(-x)), c * sigmoid(x)),
    rule("sigmoid of the exponential", exp(x) / (1 + exp(x)), sigmoid(x)),
    rule("sigmoid of tanh", 0.5 * (1 + tanh(x)), sigmoid(2 * x)),
    rule("sigmoid of tanh, halved", (1 + tanh(x)) / 2, sigmoid(2 * x)),
    rule("exp of log_sigmoid", exp(log_sigmoid(x)), sigmoid(x)),
    rule("exp of minus softplus", exp(-softplus(x)), sigmoid(-x)),
    rule("silu", x * sigmoid(x), silu(x)),
    rule("silu, divided", x / (1 + exp(-x)), silu(x)),
    rule("tanh", (exp(x) - exp(-x)) / (exp(x) + exp(-x)), tanh(x)),
    rule("tanh of expm1", expm1(x) / (exp(x) + 1), tanh(0.5 * x)),
    rule("tanh of sigmoid", 2 * sigmoid(x) - 1, tanh(0.5 * x)),
    rule("tanh of sigmoid, turned", 1 - 2 * sigmoid(x), -tanh(0.5 * x)),
    rule("softplus", log(1 + exp(x)), softplus(x)),
    rule("softplus of log1p", log1p(exp(x)), softplus(x)),
    rule("log_sigmoid", log(sigmoid(x)), log_sigmoid(x)),
    rule("logaddexp", log(exp(x) + exp(y)), logaddexp(x, y)),
    rule("log of exp", log(exp(x)), x),
    rule("log1p", log(1 + x), log1p(x), x > -1),
    rule("log1p, turned", log(1 - x), log1p(-x), x < 1),
    rule("expm1", exp(x) - 1, expm1(x)),
    rule("expm1, added", exp(x) + -1, expm1(x)),
    rule("expm1, turned", 1 - exp(x), -expm1(x)),
    rule("rsqrt", 1 / sqrt(x), rsqrt(x), x > 0),
    rule("abs", sqrt(square(x)), abs(x), x != 0),  # at 0 the left has no derivative
    rule("abs of a product", sqrt(x * x), abs(x), x != 0),
)

# One more exponential where sigmoid(x) is needed as well (1 - z beside z): for exactness, not for speed.
COMPLEMENT = (rule("complement", 1 - sigmoid(x), sigmoid(-x)),)

RULES = STABLE + COMPLEMENT


def rewrite(roots: Iterable[Node], rules: tuple[Rule, ...] = RULES) -> list[Node]:
    """`roots` with every rule applied wherever it matches, until none does.

    >>> from rekern.ir import add, apply, div, number, read
    >>> f = read("f")
    >>> gate = div(number(1), add(number(1), apply("exp", f)))
    >>> rewrite([gate]) == [apply("sigmoid", apply("neg", f))]
    True
    """
    table = _by_function(rules)
    roots = list(roots)
    done: dict[Node, Node] = {}
    becomes: dict[Node, Node] = {}  # one step further, not yet at its end
    stack = roots[::-1]
    while stack:
        node = stack[-1]
        needs = (becomes[node],) if node in becomes else ir.children(node)
        waiting = [n for n in needs if n not in done]
        if node in done:
            stack.pop()
        elif waiting:
            stack.extend(waiting)
        elif node in becomes:
            done[node] = done[becomes[node]]
        else:
            parts = tuple(done[p] for p in ir.children(node))
            better = _apply_first(table, node) if parts == ir.children(node) else rebuild(node, parts)
            if better is None or better is node:
                done[node] = node
            else:
                becomes[node] = better
    return [done[root] for root in roots]


@cache
def _by_function(rules: tuple[Rule, ...]) -> dict[str, list[Rule]]:
    table: dict[str, list[Rule]] = {}
    for row in rules:
        if not isinstance(row.pattern, Apply):
            raise ValueError(f"rule {row.name!r}: a pattern is a function of something, not a single letter")
        table.setdefault(row.pattern.function, []).append(row)
    return table


def _apply_first(table: Mapping[str, list[Rule]], node: Node) -> Node | None:
    if not isinstance(node, Apply):
        return None
    for row in table.get(node.function, ()):
        for bound in match(row.pattern, node, {}):
            return substitute([row.replacement], bound)[0]
    return None


def match(pattern: Node, node: Node, bound: Bindings) -> Iterator[Bindings]:
    """Every way to read `node` as `pattern`, given what the letters stand for so far.

    >>> a, b = ir.read("a"), ir.read("b")
    >>> ways = match(ir.add(ir.number(1), ir.read("?x")), ir.add(a, ir.number(1)), {})
    >>> [found[ir.read("?x")] == a for found in ways]
    [True]
    """
    match pattern:
        case Read(operand=name) if name.startswith((ANYTHING, CONSTANT)):
            if pattern in bound:
                if bound[pattern] is node:
                    yield bound
            elif name.startswith(ANYTHING) or isinstance(node, Number):
                yield {**bound, pattern: node}
        case Apply(function="neg", arguments=(Read() as inner,)):
            yield from _match_negated(inner, node, bound)
        case Apply():
            if isinstance(node, Apply) and node.function == pattern.function:
                yield from _match_all(pattern.arguments, node.arguments, bound)
                if pattern.function in ir.COMMUTATIVE:
                    yield from _match_all(pattern.arguments, node.arguments[::-1], bound)
        case _:
            if pattern is node:
                yield bound


def _match_negated(inner: Node, node: Node, bound: Bindings) -> Iterator[Bindings]:
    """`-x` reads every formula y, as x = -y."""
    return match(inner, ir.neg(node), bound)


def _match_all(patterns: tuple[Node, ...], nodes: tuple[Node, ...], bound: Bindings) -> Iterator[Bindings]:
    if not patterns:
        yield bound
        return
    for found in match(patterns[0], nodes[0], bound):
        yield from _match_all(patterns[1:], nodes[1:], found)
