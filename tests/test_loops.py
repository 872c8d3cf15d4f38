"""Loop nests: the C++ of three passes as a person would type it, and how often a step walks a state."""

import pytest

from conftest import Golden
from rekern import ir, zoo
from rekern.functions import CHEAP
from rekern.ir import Read
from rekern.loops.order import arrange
from rekern.loops.program import Nest, Program
from rekern.render import render
from rekern.schedules.passes import CpuSizes, Pass
from rekern.schedules.programs import programs
from rekern.schedules.time_loop import backward_pass, forward_pass
from rekern.spec import Step, derived
from rekern.zoo import gated_delta_rule, gla, lstm

COLUMNS = CpuSizes("float", 64, 64, 32)
ROWS = CpuSizes("float", 64, 0, 32)


def body(view: Pass) -> str:
    """What a task does; the memory around it is the same for all."""
    text = render(view)
    return text[text.index("void run_task") : text.index("}  // namespace")]


def test_forward_of_gla(golden: Golden) -> None:
    golden(body(forward_pass(programs(gla), COLUMNS)), "cpp")


def test_forward_of_lstm(golden: Golden) -> None:
    golden(body(forward_pass(programs(lstm), ROWS)), "cpp")


def test_backward_of_gated_delta_rule(golden: Golden) -> None:
    golden(render(backward_pass(programs(gated_delta_rule), COLUMNS)), "cpp")


def touches(nest: Nest, name: str) -> bool:
    values = [v for s in nest.statements for v in s.reads()]
    read = any(isinstance(n, Read) and n.operand == name for n in ir.walk(values))
    return read or any(s.target[0] == name for s in nest.statements)


def walks(program: Program, name: str) -> int:
    """Nests that read or write an array."""
    return sum(touches(nest, name) for nest in arrange(program).nests)


WALKS = {"gla": 1, "simple_gla": 1, "mlstm": 1, "gated_delta_rule": 2, "kda": 2, "rwkv7": 2}


@pytest.mark.parametrize(("name", "times"), WALKS.items(), ids=WALKS)
def test_a_step_walks_its_state_as_rarely_as_can_be(name: str, times: int) -> None:
    """Once where it is only decayed and written, twice where it is read before it is written."""
    p = programs(zoo.load(name))
    state = p.spec.states[0].name
    assert walks(p.forward, state) == times
    assert walks(p.backward, f"d:{state}") <= 2


def test_a_dense_step_multiplies_once_for_all_gates() -> None:
    nests = arrange(programs(zoo.lstm).forward).nests
    assert [len(nest.statements) for nest in nests if nest.statements[0].matrix is not None] == [4]


def test_the_gradient_of_a_gate_is_computed_once() -> None:
    """It is the cotangent of an input, and what the weight is multiplied with."""
    functions = [
        node.function
        for nest in arrange(programs(zoo.lstm).backward).nests
        for node in ir.walk(s.value for s in nest.statements if s.matrix is None)
        if isinstance(node, ir.Apply) and node.function not in CHEAP
    ]
    assert functions == ["tanh"]  # of the new c: the gates are kept


def test_what_is_kept_for_the_gradient_is_the_gate_unless_its_sum_is_needed() -> None:
    kept = {k.name: k.value for k in programs(zoo.gru).backstep.kept}
    functions = sorted(v.function if isinstance(v, ir.Apply) else "sum" for v in kept.values())
    assert functions == ["sigmoid", "sigmoid", "sum"]  # the reset gate multiplies the third sum


def everything(program: Program) -> list[tuple[str, tuple[str, ...]]]:
    return [(s.target[0], tuple(map(str, s.axes))) for n in arrange(program).nests for s in n.statements]


@pytest.mark.parametrize("name", ["based", "layer_norm_lstm", "gated_delta_product"])
def test_the_same_spec_always_makes_the_same_loops(name: str) -> None:
    """Else every process would compile a kernel of its own."""
    spec = zoo.load(name)
    spec = spec.bind(n=2) if "n" in spec.axes else spec
    step = spec.step
    again = derived(spec.name, spec.operands, Step(step.states, step.outputs, step.output_dims, True))
    for pass_name in ("forward", "recording", "backward"):
        assert everything(getattr(programs(spec), pass_name)) == everything(getattr(programs(again), pass_name))
