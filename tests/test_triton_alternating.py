"""The schedule `alternating` against the float64 reference, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from rekern import zoo
from rekern.schedules.programs import programs
from rekern.spec import Recurrence
from test_dense_cells import SPECS
from triton_interpreter import Call, errors_of, interpreter, limited, spec_of

__all__ = ["interpreter"]
LIMITS = {torch.float32: (1e-5, 5e-5), torch.float16: (2e-3, 4e-3)}
DENSE = [n for n in zoo.names() if programs(spec_of(n)).rows]
LENGTHS = {"D": 37, "N": 7}


ALTERNATING = ("alternating",)
CELLS = [f"test_dense_cells:{s.name}" for s in SPECS]


def errors(interpreter: Call, name: str, *arguments: object, **options: object) -> dict[str, float]:
    found: dict[str, float] = interpreter(errors_of, name, *arguments, lengths=LENGTHS, among=ALTERNATING, **options)
    return found


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("name", DENSE + CELLS)
def test_every_dense_cell(name: str, dtype: torch.dtype, interpreter: Call) -> None:
    limited(errors(interpreter, name, dtype, batch=3), *LIMITS[dtype])
