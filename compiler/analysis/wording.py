"""Formulas as one line of text, for reasons and summaries.

In: a formula. Out: text in the notation of specs, with `sum[k'](...)` for a sum over the index k'.
"""

from __future__ import annotations

from collections.abc import Iterable

from rekern.ir import Apply, Node, Number, Read, Reduce, Size

INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2)}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
COMPARISON, UNARY, ATOM = 0, 3, 9
LONGEST = 100


def formula(node: Node) -> str:
    """`node` as text.

    >>> from rekern import ir
    >>> a, b = ir.read("a"), ir.read("b", (2,), (ir.Index("K"),))
    >>> formula(ir.mul(ir.sub(ir.number(1), a), ir.apply("exp", ir.neg(b))))
    '(1 - a) * exp(-b[2, k])'
    """
    return _text(node)[0]


def short(node: Node) -> str:
    """`formula(node)`, cut after 100 characters."""
    text = formula(node)
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def listing(words: Iterable[str]) -> str:
    """Words as a person lists them.

    >>> listing(["h", "c", "n"])
    'h, c and n'
    """
    *front, last = words
    return f"{', '.join(front)} and {last}" if front else last


def _text(node: Node) -> tuple[str, int]:
    """The text of `node` and how tightly it binds."""
    match node:
        case Number():
            return f"{node.value:.6g}", ATOM if node.value >= 0 else UNARY
        case Size():
            return node.dim, ATOM
        case Read():
            at = ", ".join([*map(str, node.component), *map(str, node.indices)])
            return (f"{node.operand}[{at}]" if at else node.operand), ATOM
        case Reduce():
            return f"{node.operation}[{node.index}]({formula(node.body)})", ATOM
        case Apply(function=name) if name in INFIX:
            sign, level = INFIX[name]
            left, right = node.arguments
            return f"{_inside(left, level)} {sign} {_inside(right, level + (name in ('sub', 'div')))}", level
        case Apply(function=name) if name in COMPARE:
            left, right = node.arguments
            return f"{_inside(left, 1)} {COMPARE[name]} {_inside(right, 1)}", COMPARISON
        case Apply(function="neg"):
            return f"-{_inside(node.arguments[0], UNARY)}", UNARY
        case Apply():
            return f"{node.function}({', '.join(map(formula, node.arguments))})", ATOM


def _inside(node: Node, level: int) -> str:
    """The text of an argument, in brackets where it binds less than its place."""
    text, binds = _text(node)
    return text if binds >= level else f"({text})"
