"""Rewrites keep value and slope, and are never less accurate nor less finite; what they make of formulas."""

import itertools
import time
from collections.abc import Iterator

import mpmath
import pytest
import torch
from torch import Tensor

from rekern import ir, zoo
from rekern.analysis.wording import formula
from rekern.functions import FUNCTIONS
from rekern.gradient import gradient
from rekern.ir import Apply, Node, Number, Read
from rekern.math import abs as absolute
from rekern.math import exp, log, log1p, log_sigmoid, logaddexp, rsqrt, sigmoid, silu, softplus, sqrt, tanh
from rekern.rules import COMPLEMENT, RULES, STABLE, Rule, match, rewrite
from rekern.trace import Array

mpmath.mp.dps = 60
SIZES = (0, 1e-30, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1, 1.5, 3, 7, 15, 20, 30, 50, 80)
GRID = [float(torch.tensor(x, dtype=torch.float32)) for x in sorted({s * x for s in (-1, 1) for x in SIZES})]
ULP = 2.0**-23

EXACT = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "sqrt": mpmath.sqrt,
    "rsqrt": lambda a: 1 / mpmath.sqrt(a),
    "square": lambda a: a * a,
    "abs": abs,
    "tanh": mpmath.tanh,
    "sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
    "log_sigmoid": lambda a: -mpmath.log1p(mpmath.exp(-a)),
    "softplus": lambda a: mpmath.log1p(mpmath.exp(a)),
    "silu": lambda a: a / (1 + mpmath.exp(-a)),
    "logaddexp": lambda a, b: mpmath.log(mpmath.exp(a) + mpmath.exp(b)),
    "gt": lambda a, b: mpmath.mpf(a > b),
    "lt": lambda a, b: mpmath.mpf(a < b),
    "ne": lambda a, b: mpmath.mpf(a != b),
}
Letters = dict[Node, float]


def exact(node: Node, at: Letters) -> mpmath.mpf:
    match node:
        case Number():
            return mpmath.mpf(node.value)
        case Apply():
            return EXACT[node.function](*(exact(a, at) for a in node.arguments))
    return mpmath.mpf(at[node])


def in_torch(node: Node, at: dict[Node, Tensor]) -> Tensor:
    match node:
        case Number():
            return torch.full_like(next(iter(at.values())), node.value)
        case Apply():
            return FUNCTIONS[node.function].torch(*(in_torch(a, at) for a in node.arguments))
    return at[node]


def letters(row: Rule) -> list[Node]:
    return [n for n in ir.walk([row.pattern]) if isinstance(n, Read)]


def places(row: Rule) -> Iterator[Letters]:
    """Values of the letters where the rule claims to hold, as float32 has them."""
    names = letters(row)
    choices = [[1.0, -2.0, 0.5] if n.operand.startswith("#") else GRID for n in names]
    for values in itertools.product(*choices):
        at = dict(zip(names, values))
        if exact(row.holds, at) != 0:
            yield at


def relative_error(value: float, true: mpmath.mpf) -> float:
    return float(abs(mpmath.mpf(value) - true) / max(abs(true), mpmath.mpf(2) ** -126))


@pytest.mark.parametrize("row", RULES, ids=lambda r: r.name)
def test_a_rule_keeps_the_value(row: Rule) -> None:
    for at in places(row):
        before, after = exact(row.pattern, at), exact(row.replacement, at)
        assert abs(before - after) <= mpmath.mpf(10) ** -15 * abs(before) + mpmath.mpf(10) ** -22, at


@pytest.mark.parametrize("row", RULES, ids=lambda r: r.name)
def test_a_rule_is_never_less_accurate_nor_less_finite(row: Rule) -> None:
    """In float32: finite wherever the old form is, and its worst error is no larger, or a few roundings."""
    worst = {"old": 0.0, "new": 0.0}
    for at in places(row):
        true = exact(row.pattern, at)
        tensors = {n: torch.tensor(x, dtype=torch.float32) for n, x in at.items()}
        old, new = (float(in_torch(n, tensors)) for n in (row.pattern, row.replacement))
        representable = abs(true) < mpmath.mpf(2) ** 127
        assert new == pytest.approx(new, nan_ok=False) and (abs(new) < float("inf") or not representable), at
        if torch.isfinite(torch.tensor(old)) and representable:
            worst["old"] = max(worst["old"], relative_error(old, true))
            worst["new"] = max(worst["new"], relative_error(new, true))
    assert worst["new"] <= worst["old"] + 3 * ULP


@pytest.mark.parametrize("row", RULES, ids=lambda r: r.name)
def test_a_rule_keeps_the_slope(row: Rule) -> None:
    """Where the old form has a finite gradient in float64 (and loses no digits), the new one has the same."""
    for at in places(row):
        slopes = []
        for node in (row.pattern, row.replacement):
            tensors = {n: torch.tensor(x, dtype=torch.float64, requires_grad=True) for n, x in at.items()}
            free = [t for n, t in tensors.items() if isinstance(n, Read) and n.operand.startswith("?")]
            slopes.append([g.item() for g in torch.autograd.grad(in_torch(node, tensors), free)])
        for old, new in zip(*slopes):
            if torch.isfinite(torch.tensor(old)):
                assert new == pytest.approx(old, rel=1e-6, abs=1e-12), at


# -- what they make of formulas ------------------------------------------------------------------------------

a, b, q = (Array((), {(): ir.read(n)}) for n in "abq")


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        (1 / (1 + exp(-a)), sigmoid(a)),
        (1 / (exp(a) + 1), sigmoid(-a)),
        (3 / (1 + exp(a - b)), 3 * sigmoid(-(a - b))),
        (exp(a) / (exp(a) + 1), sigmoid(a)),
        (exp(-a) / (1 + exp(-a)), sigmoid(-a)),
        (1 - 1 / (1 + exp(-a)), sigmoid(-a)),
        (log(1 - sigmoid(a)), log_sigmoid(-a)),
        (log(1 / (1 + exp(-a))), log_sigmoid(a)),
        (-log(1 + exp(-a)), -softplus(-a)),
        (exp(-log(1 + exp(a))), sigmoid(-a)),
        (log(1 + exp(a * b)), softplus(a * b)),
        (log(exp(q) + exp(a - b)), logaddexp(q, a - b)),
        (log(a + 1), log1p(a)),
        (log(1 - a), log1p(-a)),
        (a * (1 / (1 + exp(-a))), silu(a)),
        (a / (1 + exp(-a)), silu(a)),
        ((exp(a) - exp(-a)) / (exp(-a) + exp(a)), tanh(a)),
        ((exp(2 * a) - 1) / (exp(2 * a) + 1), tanh(0.5 * (2 * a))),
        ((1 - exp(-2 * a)) / (1 + exp(-2 * a)), -tanh(0.5 * (-2 * a))),
        (2 / (1 + exp(-a)) - 1, tanh(0.5 * a)),
        (0.5 * (tanh(a) + 1), sigmoid(2 * a)),
        (q * (1 / sqrt(a + b)), q * rsqrt(a + b)),
        (sqrt(a * a + 0), absolute(a)),
    ],
    ids=lambda x: formula(x.cells[()]),
)
def test_formulas_become_stable(written: Array, becomes: Array) -> None:
    assert rewrite([written.cells[()]]) == [becomes.cells[()]]


OTHERS = [exp(a) / (1 + exp(b)), 1 / (2 + exp(a)), log(exp(a) - exp(b)), a * sigmoid(b), 1 - tanh(a)]


@pytest.mark.parametrize("kept", OTHERS, ids=lambda x: formula(x.cells[()]))
def test_other_formulas_stay_as_they_are(kept: Array) -> None:
    assert rewrite([kept.cells[()]]) == [kept.cells[()]]


def test_rewriting_again_changes_nothing() -> None:
    for name in zoo.names():
        spec = zoo.load(name)
        roots = (spec.bind(n=2) if "n" in spec.axes else spec).step.roots()
        once = rewrite(roots)
        assert rewrite(once) == once


def test_formulas_under_sums_keep_their_indices() -> None:
    k = ir.Index("K")
    x = ir.read("x", (), (k,))
    gate = ir.div(ir.number(1), ir.add(ir.number(1), ir.apply("exp", ir.neg(x))))
    assert rewrite([ir.reduce("sum", k, gate)]) == [ir.reduce("sum", k, ir.apply("sigmoid", x))]


def test_tables_can_be_chosen() -> None:
    (gate,) = (1 - sigmoid(a)).cells.values()
    assert rewrite([gate], STABLE) == [gate]
    assert rewrite([gate], COMPLEMENT) == [ir.apply("sigmoid", ir.neg(ir.read("a")))]


def test_a_letter_stands_for_one_formula_only() -> None:
    x = ir.read("?x")
    pattern = ir.add(ir.apply("exp", x), ir.apply("exp", ir.neg(x)))
    one, two = (ir.apply("exp", ir.read(n)) for n in "ab")
    assert list(match(pattern, ir.add(one, two), {})) == []
    mirrored = ir.add(ir.apply("exp", ir.neg(ir.read("a"))), one)
    assert [found[x] for found in match(pattern, mirrored, {})] == [ir.neg(ir.read("a")), ir.read("a")]


def test_rewriting_is_quick() -> None:
    roots = gradient(zoo.load("layer_norm_lstm")).roots()
    rewrite(roots)
    start = time.process_time()
    rewrite(roots)
    assert time.process_time() - start < 0.1    # about 0.01
