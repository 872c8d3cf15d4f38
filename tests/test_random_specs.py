"""Recurrences nobody has thought of: kernels of random specs give what the equations say, gradients too."""

import re
from importlib.resources import files

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from kernel_checks import agree, close, draw, errors, exact, run, threads
from random_specs import random_specs, written
from rekern.api import compile
from rekern.printers.cpp_names import TAKEN, identifier
from rekern.spec import Recurrence

LENGTHS = [1, 3, 5, 17, 20]
CALLS = {
    "plain": {},
    "reversed": {"reverse": True},
    "packed": {"cu_seqlens": torch.tensor([0, 2, 2, 5])},
    "reset": {"reset": torch.tensor([[False, False, True, True, False]])},
}


@settings(
    max_examples=10 if settings.default.derandomize else settings.default.max_examples,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink would compile for hours
    suppress_health_check=list(HealthCheck),
)
@given(spec=random_specs(), data=st.data())
def test_a_random_recurrence_agrees_with_its_equations(spec: Recurrence, data: st.DataObject) -> None:
    note(spec.doc)
    sizes = {axis: data.draw(st.sampled_from(LENGTHS), label=axis) for axis in "DKV"}
    call = data.draw(st.sampled_from(list(CALLS)), label="call")
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), label="dtype")
    sequences = 3 if call == "packed" else None
    operands, state = draw(spec, batch=1, time=5, sequences=sequences, sizes=sizes, dtype=dtype)
    if data.draw(st.booleans(), label="declared initial states"):
        state = {}
    expected = run(None, spec, exact(operands), exact(state), **CALLS[call])
    assume(all(t.isfinite().all() for _, t in expected.items()))
    if dtype == torch.float32:  # numbers on which float32 loses much say nothing
        plain = run(None, spec, operands, state, dtype=None, **CALLS[call])
        assume(max(errors(plain, expected).values()) < 1e-6)
    with threads(2):
        actual = run(compile(spec), spec, operands, state, **CALLS[call])
    limits = (1e-10, 1e-9) if dtype == torch.float64 else (1e-5, 5e-5)
    close(actual, expected, *limits)


# -- what random specs have found ----------------------------------------------------------------------------

FOUND = {
    "an old number is read after the nest has overwritten it": (
        ["s=State()", "h=State('D')", "y=Input()", "x=Input('D')"],
        ["new = tanh(y)", "return (new, x), {'o': s + y, 'p': h}"],
    ),
    "two states change places": (
        ["s=State('D')", "h=State('D')", "a=State('D', 'D')", "x=Input('D')"],
        ["return (h, s, 0.5 * a.T), x + a @ x"],
    ),
    "the sum of a vector axis goes to an array that lies along another": (
        ["s=State()", "x=Input('D')", "k=Input('K')"],
        ["return s, mean(tanh(x[:, None, None] * x[:, None] * k), axis=2)"],
    ),
    "the gradient of a maximum finds the number it came from": (
        ["s=State('K')", "y=Input(2)", "k=Input('K')"],
        [
            "z = max(y[:, None, None] * k[:, None] * k * 2.3, axis=1)",
            "return 0.5 * s + max(s * k * 1.7, axis=0), z",
        ],
    ),
    "a choice is added to a sum": (
        ["s=State('D', 'D')", "x=Input('D')"],
        ["s = outer(where(x < 0.29, x, 2 * x), x)", "return s, x"],
    ),
    "the pass and the steps it runs again have arrays of one name": (
        ["s=State('D', 'D')", "x=Input('D')", "k=Input('K')"],
        ["return s, tanh(max(k[:, None, None] - x[:, None] - x, axis=0)) @ ((x[:, None] + k) @ k)"],
    ),
    "temporaries of one spelling are told apart": (
        ["s=State('D', 'D')", "x=Input('D')", "v=Input('V')", "y=Input(2)"],
        [
            "k = x @ ((x[:, None] * v) @ (v[:, None] * x))",
            "k = k * rsqrt(1 + k @ k) * tanh(y[0] * y[0])",
            "s = s + 0.5 * outer(k, tanh(minimum(x @ s, mean(v, axis=0))) - k @ s)",
            "return s, x",
        ],
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_once_went_wrong_stays_right(case: str) -> None:
    spec = written(*FOUND[case])
    agree(spec, *draw(spec, time=4, sizes={"D": 17, "K": 20, "V": 3}))


# -- names ---------------------------------------------------------------------------------------------------

ODD_NAMES = [
    ["x", "x_0", "d_x", "x_tensor", "kept_0", "step", "next_s", "s_first", "double"],
    ["first", "x", "last", "s_x", "d_o", "value", "NULL", "exp_x", "at_d", "α"],
]


@pytest.mark.parametrize("names", ODD_NAMES, ids=" ".join)
def test_operands_may_have_any_name(names: list[str]) -> None:
    one, *rest = names
    declared = ["s=State('D')", f"{one}=Input(2, 'D')", f"{rest[0]}=State('D')", f"{rest[1]}=State('D')"]
    declared += [f"{n}=Input('D')" for n in rest[2:4]] + [f"{n}=Param('D')" for n in rest[4:]]
    lines = [
        f"s = 0.5 * s + tanh({' * '.join(rest)} + {one}[0] * {one}[1])",
        f"{rest[0]} = 0.5 * {rest[0]} + s",
        f"return (s, {rest[0]}, {rest[1]} * s), mean(s * {one}[1], axis=0)",
    ]
    agree(spec := written(declared, lines), *draw(spec, time=3, sizes={"D": 5}))


@pytest.mark.parametrize("axes", [("rows", "d", "D"), ("D2", "D", "time")], ids=" ".join)
def test_axes_may_have_any_name(axes: tuple[str, str, str]) -> None:
    a, b, c = axes
    spec = written(
        [f"s=State('{a}', '{b}')", f"x=Input('{a}')", f"y=Input('{b}')", f"w=Param('{a}', '{c}')"],
        ["s = 0.5 * s + tanh(outer(x, y) * mean(s @ y, axis=0))", "return s, (s @ y) @ w"],
    )
    agree(spec, *draw(spec, time=3, sizes={a: 5, b: 3, c: 2}))


def test_every_word_of_the_templates_is_known() -> None:
    """An operand of such a name is wrapped, so that it does not hide what the template means."""
    text = ""
    for name in ("pass", "forward", "backward"):
        text += files("rekern.templates").joinpath(f"cpp/{name}.cpp.j2").read_text()
    text += files("rekern.templates").joinpath("cpp/task.j2").read_text()
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\w*\{\{.*?\}\}\w*", " ", text, flags=re.DOTALL)
    text = re.sub(r'//.*|"[^"]*"|^\s*#.*', "", text, flags=re.MULTILINE)
    words = {w for w in re.findall(r"(?<![\w.>])[A-Za-z]\w*", text) if identifier((w, ())) == w}
    assert words - TAKEN - {"visibility"} == set()
