"""What a wrong declaration or body is told: the line quoted, what was expected, what to do next."""

import math

import pytest

from conftest import Golden
from rekern import zoo
from rekern.errors import SpecError
from rekern.math import outer, sigmoid
from rekern.spec import Input, Scalar, State, recurrence, scalar_value
from wrong_specs import catalogue, message, wrong


@wrong
def an_undefined_name(c=State("D"), i=Input("D"), f=Input("D"), z=Input("D")):
    c = f * c0 + i * z  # noqa: F821
    return c, c


@wrong
def a_name_used_too_early(h=State("D"), x=Input("D")):
    h = gate * h + x  # noqa: F821
    gate = sigmoid(x)  # noqa: F841
    return h, h


@wrong
def no_output(h=State("D"), c=State("D"), x=Input("D")):
    return h + x


@wrong
def states_not_in_a_tuple(h=State("D"), c=State("D"), x=Input("D")):
    return h + x, c, h


@wrong
def nothing_returned(h=State("D"), x=Input("D")):
    h = h + x


@wrong
def too_few_states(h=State("D"), c=State("D"), x=Input("D")):
    return h + x, h


@wrong
def a_state_of_another_shape(S=State("K", "V"), k=Input("K"), v=Input("V")):
    return S.T + outer(v, k), k @ S


@wrong
def no_outputs(h=State("D"), x=Input("D")):
    return h + x, {}


@wrong
def an_output_that_is_not_an_array(h=State("D"), x=Input("D")):
    return h + x, None


@wrong
def an_output_without_a_word_for_a_name(h=State("D"), x=Input("D")):
    return h + x, {"the output": h}


@wrong
def an_output_named_like_a_state(h=State("D"), x=Input("D")):
    return h + x, {"h": h}


@wrong
def an_error_of_pythons(h=State("D"), x=Input("D")):
    return h + x, [h, x][2]


@wrong
def a_parameter_without_declaration(h=State("D"), x=None):
    return h, h


@wrong
def no_state(x=Input("D")):
    return x, x


@wrong
def not_a_function():
    recurrence(math.sin)


@wrong
def an_axis_of_no_length():
    Input(0, "D")


@wrong
def an_axis_of_the_wrong_type():
    Input(True, 2.5)


@wrong
def an_axis_that_is_no_name():
    State("head dim")


@wrong
def a_state_in_half_precision():
    State("D", dtype="bfloat16")


@wrong
def bind_of_no_axis():
    zoo.lstm.bind(n=2)


@wrong
def bind_to_no_size():
    zoo.lstm.bind(D=0)


@wrong
def what_unrolls_is_not_bound():
    return zoo.gated_delta_product.step


@wrong
def a_call():
    zoo.lstm(1, x=2)


@wrong
def a_scalar_without_default():
    spec = recurrence(lambda h=State("D"), a=Scalar(): (h, h * a))
    scalar_value(spec, spec.operand("a"), {"D": 3})


@wrong
def a_scalar_that_depends_on_no_axis():
    spec = recurrence(lambda h=State("D"), a=Scalar(default="K**-0.5"): (h, h * a))
    scalar_value(spec, spec.operand("a"), {"D": 3})


def test_messages(golden: Golden) -> None:
    golden(catalogue(__name__))


def test_the_cause_is_shown_only_where_it_is_not_ours() -> None:
    with pytest.raises(SpecError) as ours:
        recurrence(no_output).step  # noqa: B018
    with pytest.raises(SpecError) as theirs:
        recurrence(an_error_of_pythons).step  # noqa: B018
    assert ours.value.__cause__ is None and ours.value.__suppress_context__
    assert isinstance(theirs.value.__cause__, IndexError)


def test_a_spec_without_source_says_the_line() -> None:
    scope: dict[str, object] = {"State": State}
    exec(compile("def made(h=State('D')):\n    return h, h[0]\n", "<made>", "exec"), scope)
    text = message(lambda: recurrence(scope["made"]).step)
    assert "\n    line 2 of <made>\n" in text
