"""The elementwise functions of the language: one row each, and what every stage needs to know of it.

In: nothing. Out: `FUNCTIONS[name]`, with the arity, the value on floats, the torch function that defines the
meaning, and the partial derivatives as formulas. A new function is a new row here and `rk_<name>` in
`templates/cpp/vector_math.h.j2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import gelu, logsigmoid, silu

from rekern.ir import Node, add, apply, div, mul, neg, number, sub

Partials = Callable[..., tuple[Node | None, ...]]  # (result, *arguments) -> d result / d argument; None is 0


@dataclass(frozen=True)
class Function:
    """One elementwise function.

    `torch` defines the meaning (ties and edges included); `partials` must agree with its autograd.
    """

    name: str
    arity: int
    torch: Callable[..., torch.Tensor]
    partials: Partials
    latex: str
    infix: bool = False


def _where(condition: Node, a: Node, b: Node) -> Node:
    return apply("where", condition, a, b)


def _side(mine: Node, other: Node, comparison: str) -> Node:
    """1 where `mine` is the chosen side of a maximum or minimum, 1/2 at ties, as torch has it."""
    tie = _where(apply("eq", mine, other), number(0.5), number(0))
    return _where(apply(comparison, mine, other), number(1), tie)


def _erf_slope(x: Node) -> Node:
    return mul(number(2 / math.sqrt(math.pi)), apply("exp", neg(apply("square", x))))


def _gelu_slope(x: Node) -> Node:
    """Phi(x) + x phi(x), with Phi(x) = gelu(x)/x avoided: it is 0/0 at 0."""
    density = mul(number(1 / math.sqrt(2 * math.pi)), apply("exp", mul(number(-0.5), apply("square", x))))
    cumulative = mul(number(0.5), add(number(1), apply("erf", mul(number(math.sqrt(0.5)), x))))
    return add(cumulative, mul(x, density))


def _nothing(*_: Node) -> tuple[None, ...]:
    return (None, None)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)) for every x; torch's own turns into x above a threshold."""
    return torch.logaddexp(x, torch.zeros_like(x))


def _as_number(compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda a, b: compare(a, b).to(torch.promote_types(a.dtype, b.dtype))


def _called(name: str) -> str:
    return r"\operatorname{{" + name + "}}({})"


# fmt: off
ROWS = (
    Function("add", 2, torch.add, lambda y, a, b: (number(1), number(1)), "{} + {}", infix=True),
    Function("sub", 2, torch.sub, lambda y, a, b: (number(1), number(-1)), "{} - {}", infix=True),
    Function("mul", 2, torch.mul, lambda y, a, b: (b, a), r"{} \, {}", infix=True),
    Function("div", 2, torch.div, lambda y, a, b: (div(number(1), b), neg(div(y, b))), r"\frac{{{}}}{{{}}}"),
    Function("neg", 1, torch.neg, lambda y, a: (number(-1),), "-{}", infix=True),
    Function("exp", 1, torch.exp, lambda y, a: (y,), r"e^{{{}}}"),
    Function("log", 1, torch.log, lambda y, a: (div(number(1), a),), r"\log({})"),
    Function("log1p", 1, torch.log1p, lambda y, a: (div(number(1), add(number(1), a)),), _called("log1p")),
    Function("expm1", 1, torch.expm1, lambda y, a: (add(y, number(1)),), _called("expm1")),
    Function("sqrt", 1, torch.sqrt, lambda y, a: (div(number(0.5), y),), r"\sqrt{{{}}}"),
    Function("rsqrt", 1, torch.rsqrt,
             lambda y, a: (mul(number(-0.5), div(y, a)),), r"\frac{{1}}{{\sqrt{{{}}}}}"),
    Function("abs", 1, torch.abs, lambda y, a: (apply("sign", a),), r"\left|{}\right|"),
    Function("sign", 1, torch.sign, lambda y, a: (None,), _called("sign")),
    Function("sin", 1, torch.sin, lambda y, a: (apply("cos", a),), r"\sin({})"),
    Function("cos", 1, torch.cos, lambda y, a: (neg(apply("sin", a)),), r"\cos({})"),
    Function("erf", 1, torch.erf, lambda y, a: (_erf_slope(a),), _called("erf")),
    Function("tanh", 1, torch.tanh, lambda y, a: (sub(number(1), apply("square", y)),), r"\tanh({})"),
    Function("sigmoid", 1, torch.sigmoid, lambda y, a: (mul(y, sub(number(1), y)),), r"\sigma({})"),
    Function("log_sigmoid", 1, logsigmoid, lambda y, a: (apply("sigmoid", neg(a)),), r"\log\sigma({})"),
    Function("softplus", 1, _softplus, lambda y, a: (apply("sigmoid", a),), _called("softplus")),
    Function("relu", 1, torch.relu, lambda y, a: (apply("gt", a, number(0)),), _called("relu")),
    Function("gelu", 1, gelu, lambda y, a: (_gelu_slope(a),), _called("gelu")),
    Function("silu", 1, silu,
             lambda y, a: (mul(apply("sigmoid", a), add(number(1), sub(a, y))),), _called("silu")),
    Function("square", 1, torch.square, lambda y, a: (mul(number(2), a),), "{}^2"),
    Function("maximum", 2, torch.maximum,
             lambda y, a, b: (_side(a, b, "gt"), _side(b, a, "gt")), r"\max({}, {})"),
    Function("minimum", 2, torch.minimum,
             lambda y, a, b: (_side(a, b, "lt"), _side(b, a, "lt")), r"\min({}, {})"),
    Function("logaddexp", 2, torch.logaddexp,
             lambda y, a, b: (apply("exp", sub(a, y)), apply("exp", sub(b, y))),
             r"\log(e^{{{}}} + e^{{{}}})"),
    Function("where", 3, lambda c, a, b: torch.where(c != 0, a, b),
             lambda y, c, a, b: (None, _where(c, number(1), number(0)), _where(c, number(0), number(1))),
             r"\begin{{cases}} {1} & {0} \\ {2} & \text{{else}} \end{{cases}}"),
    Function("lt", 2, _as_number(torch.lt), _nothing, "{} < {}", infix=True),
    Function("le", 2, _as_number(torch.le), _nothing, r"{} \le {}", infix=True),
    Function("gt", 2, _as_number(torch.gt), _nothing, "{} > {}", infix=True),
    Function("ge", 2, _as_number(torch.ge), _nothing, r"{} \ge {}", infix=True),
    Function("eq", 2, _as_number(torch.eq), _nothing, "{} = {}", infix=True),
    Function("ne", 2, _as_number(torch.ne), _nothing, r"{} \ne {}", infix=True),
)
# fmt: on

FUNCTIONS = {row.name: row for row in ROWS}
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
ARITHMETIC = frozenset({"add", "sub", "mul", "div", "neg"})
CHEAP = ARITHMETIC | COMPARISONS | {"abs", "sign", "square", "relu", "maximum", "minimum", "where"}
