"""The schedule `alternating` against the float64 reference, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from rekern import zoo
from rekern.schedules.programs import programs
from staged_cells import STAGED
from test_dense_cells import SPECS
from triton_interpreter import Call, errors_of, errors_with_graphs, interpreter, limited, spec_of, step_in_place

__all__ = ["interpreter"]
LIMITS = {torch.float32: (1e-5, 5e-5), torch.float16: (2e-3, 4e-3)}
DENSE = [n for n in zoo.names() if programs(spec_of(n)).rows]
CELLS = [*(f"test_dense_cells:{s.name}" for s in SPECS), *(f"staged_cells:{s.name}" for s in STAGED)]
KINDS = ("lstm", "layer_norm_lstm", "staged_cells:swapped", "staged_cells:early")
LENGTHS = {"D": 20, "N": 7}
BOUNDARIES = torch.tensor([0, 0, 2, 3, 7])


ALTERNATING = ("alternating",)


def check(interpreter: Call, name: str, dtype: torch.dtype = torch.float32, **options: object) -> None:
    """A kernel of this schedule, whichever one the solver would choose, agrees with the reference."""
    given = {"lengths": LENGTHS, "among": ALTERNATING, **options}
    limited(interpreter(errors_of, name, dtype, **given), *LIMITS[dtype])


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("name", DENSE + CELLS)
def test_every_dense_cell(name: str, dtype: torch.dtype, interpreter: Call) -> None:
    check(interpreter, name, dtype, batch=3, time=2)


def test_axes_that_tiles_do_not_divide(interpreter: Call) -> None:
    check(interpreter, "lstm", batch=5, lengths={"D": 37})


@pytest.mark.parametrize("batch, time, heads", [(0, 2, 1), (1, 0, 1), (1, 1, 1), (17, 1, 2)])
@pytest.mark.parametrize("name", ["gru", "staged_cells:early"])
def test_any_batch_time_and_heads(name: str, batch: int, time: int, heads: int, interpreter: Call) -> None:
    check(interpreter, name, batch=batch, time=time, heads=heads)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_packed_sequences_with_restarts(name: str, reverse: bool, interpreter: Call) -> None:
    reset = torch.zeros(1, 7, dtype=torch.bool)
    reset[0, [1, 3, 6]] = True
    check(interpreter, name, time=7, sequences=4, cu_seqlens=BOUNDARIES, reset=reset, reverse=reverse)


@pytest.mark.parametrize("name", KINDS)
def test_restarts_in_both_directions(name: str, interpreter: Call) -> None:
    reset = torch.tensor([[True, False, False, True], [False, False, True, False]])
    for reverse in (False, True):
        check(interpreter, name, batch=2, time=4, reset=reset, reverse=reverse)


@pytest.mark.parametrize(
    "name, shared",
    [
        ("lstm", ("R", "b")),
        ("lstm", ("x",)),
        ("staged_cells:early", ("x", "W")),
        ("test_dense_cells:two_weights", ("A",)),
    ],
)
def test_heads_in_groups(name: str, shared: tuple[str, ...], interpreter: Call) -> None:
    check(interpreter, name, batch=2, time=2, heads=4, one_head=shared)


def test_one_step_in_place(interpreter: Call) -> None:
    assert interpreter(step_in_place, ALTERNATING) < 1e-5


def test_a_graph_is_replayed_for_the_tensors_that_it_was_captured_with(interpreter: Call) -> None:
    """And for no others: results of a call are its own, though memory and numbers come and go."""
    found, captured, replayed = interpreter(errors_with_graphs, "lstm", 8)
    limited(found, *LIMITS[torch.float32])
    assert (captured, replayed) == (2, 5)  # the first call makes the kernels; each set is launched once, then captured
