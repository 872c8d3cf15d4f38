"""What a wrong call says: the operand, what it is, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import rekern as rk
from rekern import zoo
from rekern.errors import ArgumentError

GLA = {"q": (1, 6, 2, 4), "k": (1, 6, 2, 4), "v": (1, 6, 2, 3), "g": (1, 6, 2, 4)}


def gla(**changed: object) -> Callable[[], object]:
    operands: dict[str, object] = {n: torch.rand(*shape) for n, shape in GLA.items()}
    operands.update(changed)
    return lambda: rk.compile(zoo.gla)(**{n: t for n, t in operands.items() if t is not None})


def lstm(**changed: Tensor) -> Callable[[], object]:
    shapes = {"x": (2, 3, 1, 4, 5), "R": (1, 4, 5, 5), "b": (1, 4, 5)}
    return lambda: rk.compile(zoo.lstm)(**{**{n: torch.rand(*s) for n, s in shapes.items()}, **changed})


def bounds(*values: float, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "missing": (gla(v=None), "gla needs the operand 'v': [B, T, H, V]; pass v=..."),
    "unknown": (gla(w=torch.rand(1)), "gla has no operand 'w'; it takes q, k, v, g, scale"),
    "state as operand": (
        gla(S=torch.rand(1)),
        "no operand 'S'; it takes q, k, v, g, scale; pass states as state={'S': ...}",
    ),
    "unknown state": (gla(state={"h": torch.rand(1)}), "gla has no state 'h'; it has S"),
    "no tensor": (gla(q=1.0), "operand 'q' is a float, expected a tensor"),
    "rank": (gla(q=torch.rand(1, 6, 4)), "operand 'q' has shape [1, 6, 4], expected [B, T, H, K]"),
    "dtype": (gla(q=torch.ones(1, 6, 2, 4, dtype=torch.int64)), "operand 'q' is torch.int64, expected one of float32"),
    "device": (gla(q=torch.rand(1, 6, 2, 4, device="meta")), "operand 'q' is on meta, this kernel runs on the CPU"),
    "axis": (
        gla(k=torch.rand(1, 6, 2, 5)),
        "axis K is 5 in operand 'k' [1, 6, 2, 5] but 4 in 'q' [1, 6, 2, 4]; they must agree",
    ),
    "batch": (gla(v=torch.rand(2, 6, 2, 3)), "axis B is 2 in operand 'v'"),
    "time": (gla(v=torch.rand(1, 7, 2, 3)), "axis T is 7 in operand 'v'"),
    "empty": (gla(v=torch.rand(1, 6, 2, 0)), "axis V is empty in 'v' [1, 6, 2, 0]"),
    "heads": (
        gla(q=torch.rand(1, 6, 3, 4), k=torch.rand(1, 6, 4, 4), v=torch.rand(1, 6, 4, 3), g=torch.rand(1, 6, 4, 4)),
        "operand 'q' [1, 6, 3, 4] has 3 heads, which do not divide the 4 of the call",
    ),
    "state heads": (gla(state={"S": torch.rand(1, 1, 4, 3)}), "state 'S' [1, 1, 4, 3] has 1 heads, the call has 2"),
    "state rows": (
        gla(state={"S": torch.rand(3, 2, 4, 3)}),
        "state 'S' [3, 2, 4, 3] has 3 rows, the call has 1 sequences",
    ),
    "literal axis": (
        lstm(x=torch.rand(2, 3, 1, 3, 5)),
        "operand 'x' has shape [2, 3, 1, 3, 5], expected [B, T, H, 4, D]",
    ),
    "square": (lstm(R=torch.rand(1, 4, 5, 6)), "axis D is 6 in operand 'R'"),
    "bounds fall": (
        gla(cu_seqlens=bounds(0, 4, 2, 6)),
        "cu_seqlens falls from 4 to 2 at sequence 1; boundaries never fall",
    ),
    "bounds end": (gla(cu_seqlens=bounds(0, 4)), "cu_seqlens runs from 0 to 4, expected from 0 to T = 6"),
    "bounds dtype": (
        gla(cu_seqlens=bounds(0, 6, dtype=torch.float32)),
        "cu_seqlens is torch.float32 [2], expected int32",
    ),
    "reset": (gla(reset=torch.zeros(1, 5, dtype=torch.bool)), "reset is torch.bool [1, 5], expected bool [1, 6]"),
    "scalar": (gla(scale=torch.rand(2)), "scalar 'scale' has shape [2], expected one number"),
    "scalar text": (gla(scale="big"), "scalar 'scale' is 'big', expected a number"),
    "sparse": (gla(v=torch.rand(1, 6, 2, 3).to_sparse()), "operand 'v' is torch.sparse_coo; make it dense with"),
    "states as a list": (gla(state=[torch.rand(1)]), "state is a list, expected a dict of tensors by name: S"),
    "state no tensor": (gla(state={"S": 3}), "state 'S' is a int, expected a tensor"),
    "reset no tensor": (gla(reset=True), "reset is a bool, expected a tensor"),
    "trained scalar": (
        gla(scale=torch.rand((), requires_grad=True)),
        "scalar 'scale' gets no gradient; declare it as a Param",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_says_what_and_what_to_do(case: str) -> None:
    call, message = CASES[case]
    with pytest.raises(ArgumentError) as caught:
        call()
    assert message in str(caught.value)


def test_packing_wants_one_row() -> None:
    operands = {n: torch.rand(2, *shape[1:]) for n, shape in GLA.items()}
    with pytest.raises(ArgumentError, match="packed in one row, B = 1, but B is 2"):
        rk.compile(zoo.gla)(**operands, cu_seqlens=bounds(0, 6))


def test_a_step_has_no_time() -> None:
    operands = {n: torch.rand(*shape) for n, shape in GLA.items()}
    with pytest.raises(ArgumentError, match=r"operand 'q' of a step has shape \[1, 6, 2, 4\], expected \[B, H, K\]"):
        rk.compile(zoo.gla).step(**operands)


def test_a_step_in_place_wants_its_states() -> None:
    operands = {n: torch.rand(shape[0], *shape[2:]) for n, shape in GLA.items()}
    with pytest.raises(ArgumentError, match=r"needs every state in torch.float32; 'S' is missing"):
        rk.compile(zoo.gla).step(**operands, in_place=True)


def test_a_step_in_place_wants_rows_of_its_own() -> None:
    operands = {n: torch.rand(2, *shape[2:]) for n, shape in GLA.items()}
    shared = torch.zeros(1, 2, 4, 3).expand(2, 2, 4, 3)
    with pytest.raises(ArgumentError, match="cannot write state 'S', whose rows share memory; pass a copy"):
        rk.compile(zoo.gla).step(**operands, state={"S": shared}, in_place=True)


def test_an_axis_that_only_a_state_has_wants_that_state() -> None:
    @rk.recurrence
    def lonely(h=rk.State("N"), x=rk.Input()):
        h = h + x
        return h, x * 2

    with pytest.raises(ArgumentError, match=r"the length of axis N is unknown, only a state has it; pass state=\{'h'"):
        rk.compile(lonely)(x=torch.rand(1, 3, 1))


def test_a_target_is_the_cpu_or_a_gpu_by_name() -> None:
    with pytest.raises(rk.RekernError, match="there is no target 'cuda'; expected 'auto', 'cpu' or a GPU\nno machine"):
        rk.compile(zoo.gla, target="cuda")
    with pytest.raises(rk.RekernError, match="target x86_avx512 is a cpu, expected a GPU; for the CPU at hand: 'cpu'"):
        rk.compile(zoo.gla, target="x86_avx512")
    with pytest.raises(rk.RekernError, match="compile takes a recurrence"):
        rk.compile(lambda h: h)
