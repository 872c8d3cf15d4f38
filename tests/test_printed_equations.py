"""Recurrences as text and LaTeX: a few that a person has read, and the law that brackets are where needed."""

import ast
import cProfile
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Golden
from rekern import ir, zoo
from rekern.functions import FUNCTIONS
from rekern.ir import Index, Node
from rekern.math import exp, maximum, outer, sigmoid, sum, tanh
from rekern.printers import latex
from rekern.printers.text import WIDTH, formula
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence

K, K1, V = Index("K"), Index("K", 1), Index("V")


@recurrence
def every_fact(
    s=State("K", init=2, dtype="float64"),
    k=Input("K", unit_norm=True),
    low=Input(at_least=-1, at_most=2.5),
    rate=Scalar(),
):
    s = rate * low * s + k
    return s, {"first": s, "total": sum(s, axis=0)}


@recurrence
def two_layers(h=State(2, "D"), x=Input("D"), R=Param(2, "D", "D")):
    """No names for what is shared, and rows that read alike."""
    a = tanh(R @ h[:, :, None])[..., 0] + x
    return maximum(a, sigmoid(a)) * exp(a), x


READ = [
    *(zoo.load(n) for n in ("lstm", "gated_delta_rule", "mlstm", "layer_norm_lstm")),
    zoo.gated_delta_product,
]
READ += [zoo.gated_delta_product.bind(n=2), every_fact, two_layers]


@pytest.mark.parametrize("spec", READ, ids=lambda s: s.name + "".join(f"-{n}{v}" for n, v in s.bindings))
def test_text(spec: Recurrence, golden: Golden) -> None:
    golden(str(spec))


@pytest.mark.parametrize("name", ["lstm", "mlstm", "rwkv4"])
def test_latex(name: str, golden: Golden) -> None:
    golden(zoo.load(name)._repr_latex_(), "tex")


@pytest.mark.parametrize("name", zoo.names())
def test_every_line_uses_only_lines_above_it_and_fits(name: str) -> None:
    spec = zoo.load(name)
    text = str(spec.bind(n=4) if "n" in spec.axes else spec)
    assert all(len(line) <= WIDTH + 15 for line in text.splitlines())
    known = {o.name for o in spec.operands if o.kind != "state"} | {f"{o.name}(t-1)" for o in spec.states}
    known |= {*FUNCTIONS, "sum", "max", *spec.axes, *"jkvdn", "t"}
    for line in text.split("\n\n")[-1].replace("\n        ", " ").splitlines():
        left, right = line.split(" = ", 1)
        words = "".join(c if c.isalnum() or c == "_" else " " for c in right.replace("sum_", "sum ")).split()
        assert {w for w in words if not w[0].isdigit()} <= {k.removesuffix("(t-1)") for k in known}, line
        known.add(left.split("[")[0].strip())


@pytest.mark.parametrize("name", zoo.names())
def test_latex_is_balanced(name: str) -> None:
    spec = zoo.load(name)
    text = latex.equations(spec.bind(n=2) if "n" in spec.axes else spec)
    assert text.count("{") == text.count("}") and text.count(r"\left") == text.count(r"\right")
    lines = text.removeprefix("$$\\begin{aligned}\n").removesuffix("\n\\end{aligned}$$").split(" \\\\\n")
    assert all(line.count(" &= ") == 1 for line in lines)


def test_latex_of_what_unrolls_says_what_to_bind() -> None:
    assert r"\texttt{declare it as a number, or bind it: spec.bind(n=2)}" in latex.equations(
        zoo.gated_delta_product
    )


def test_a_profiler_is_left_alone() -> None:
    with cProfile.Profile() as profile:
        text = str(zoo.lstm)
    assert "h[d] = " in text and "out[d] = h[d]" in text
    assert profile.getstats()


def test_what_is_shared_has_a_name_without_the_authors_help() -> None:
    @recurrence
    def plain(S=State("K", "V"), k=Input("K"), v=Input("V")):
        return S + outer(k, v - k @ S), {"read": k @ S, "more": tanh(v - k @ S) * (k @ k)}

    assert str(plain).splitlines()[-4:] == [
        "  read[v] = sum_k k[k] * S(t-1)[k,v]",
        "  S[k,v] = S(t-1)[k,v] + k[k] * (v[v] - read[v])",
        "  u = sum_k k[k] * k[k]",
        "  more[v] = tanh(v[v] - read[v]) * u",
    ]


# -- brackets ------------------------------------------------------------------------------------------------

SUM = ir.reduce("sum", K, ir.mul(ir.read("q", (), (K,)), ir.read("S", (), (K, V))))
LETTERS = {"a": 0.3, "b": -1.7, "c": 2.9}


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (ir.mul(SUM, ir.read("a")), "(sum_k q[k] * S[k,v]) * a"),
        (ir.mul(ir.read("a"), SUM), "a * sum_k q[k] * S[k,v]"),
        (ir.div(ir.mul(ir.read("a"), SUM), ir.number(2)), "(a * sum_k q[k] * S[k,v]) / 2"),
        (ir.add(SUM, ir.read("a")), "sum_k q[k] * S[k,v] + a"),
        (ir.sub(ir.read("a"), SUM), "a - sum_k q[k] * S[k,v]"),
        (ir.neg(SUM), "-sum_k q[k] * S[k,v]"),
        (ir.apply("square", SUM), "(sum_k q[k] * S[k,v])^2"),
        (ir.reduce("sum", V, ir.apply("add", SUM, ir.read("b"))), "sum_v (sum_k q[k] * S[k,v] + b)"),
        (ir.reduce("max", V, ir.apply("exp", SUM)), "max_v exp(sum_k q[k] * S[k,v])"),
        (ir.mul(ir.read("k", (), (K,)), SUM), "k[k] * sum_k' q[k'] * S[k',v]"),
        (ir.number(-math.inf), "-inf"),
        (ir.number(1e-6), "1e-06"),
        (ir.div(ir.read("a"), ir.size("D")), "a / D"),
        (ir.read("R", (2,), (K, K1)), "R[2,k,k']"),
    ],
)
def test_sums_have_brackets_where_factors_follow(node: Node, text: str) -> None:
    assert formula(node) == text


def expressions() -> st.SearchStrategy[Node]:
    leaves = st.sampled_from([ir.read(n) for n in LETTERS]) | st.sampled_from([-2.0, 0.5, 3.0]).map(ir.number)

    def grown(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        unary = st.builds(ir.apply, st.sampled_from(["neg", "square", "tanh"]), parts)
        binary = st.sampled_from(["add", "sub", "mul", "div", "lt", "ge", "maximum"])
        return (
            unary
            | st.builds(ir.apply, binary, parts, parts)
            | st.builds(ir.apply, st.just("where"), parts, parts, parts)
        )

    return st.recursive(leaves, grown, max_leaves=12)


def value(node: Node) -> float:
    if isinstance(node, ir.Number):
        return node.value
    if isinstance(node, ir.Read):
        return LETTERS[node.operand]
    assert isinstance(node, ir.Apply)
    return PYTHON[node.function](*(value(a) for a in node.arguments))


def divide(a: float, b: float) -> float:
    return a / b if b else math.inf


PYTHON = {
    "neg": lambda a: -a, "square": lambda a: a * a, "tanh": math.tanh, "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": divide, "lt": lambda a, b: a < b,
    "ge": lambda a, b: a >= b, "maximum": max, "where": lambda c, a, b: a if c else b,
}  # fmt: skip


@given(expressions())
def test_brackets_keep_the_value(node: Node) -> None:
    text = formula(node).replace("^2", "**2")
    names = {**LETTERS, **{n: f for n, f in PYTHON.items() if n.isidentifier()}}
    try:
        read_back = eval(text, {"__builtins__": {}}, names)
    except ZeroDivisionError:
        return
    assert read_back == pytest.approx(value(node), rel=1e-9, abs=1e-9, nan_ok=True)


@given(expressions())
def test_every_bracket_is_needed(node: Node) -> None:
    """But for those around a leading minus, which are there for the eye."""
    text = formula(node).replace("^2", "**2")
    opened: list[int] = []
    for at, char in enumerate(text):
        if char == "(":
            opened.append(at)
        elif char == ")":
            start = opened.pop()
            call = start > 0 and text[start - 1].isalpha()
            if not call and text[start + 1] != "-":
                without = text[:start] + text[start + 1 : at] + text[at + 1 :]
                assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(without)), text
