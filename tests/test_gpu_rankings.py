"""What the solver chooses on every GPU: one text file a machine, whose diff is the review of a change of the model.

`pytest tests/test_gpu_rankings.py --update-golden`, then read the diff.
"""

from __future__ import annotations

import pytest

from rekern import zoo
from rekern.hwmodels import load, names
from rekern.schedules.gpu.call import Call, Dtype
from rekern.schedules.gpu.ranking import Choice, rank
from rekern.schedules.gpu.rates import has_matrix
from rekern.schedules.gpu.usual import usual_calls
from rekern.solver.text import seconds

GPUS = [name for name in names() if load(name).kind == "gpu"]
SPECS = ("lstm", "slstm", "hgrn", "selective_scan", "simple_gla", "gla", "mlstm", "gated_delta_rule", "kda", "rwkv7")
TOP = 8


@pytest.mark.parametrize("machine", GPUS)
def test_rankings(machine: str, golden) -> None:  # type: ignore[no-untyped-def]
    gpu = load(machine).gpu
    assert gpu is not None
    dtype: Dtype = "bfloat16" if has_matrix(gpu, "bfloat16") else "float16"
    blocks = [shown(call) for spec in SPECS for call in usual_calls(zoo.load(spec), load(machine), dtype)]
    golden("\n\n".join(blocks))


def shown(call: Call) -> str:
    """The best of a call, each on one line, and why the other schedules are not among them."""
    ranking = rank(call, TOP)
    lines = [str(call), *(f"{n}. {line(c)}" for n, c in enumerate(ranking.choices[:TOP], 1))]
    for name, error in ranking.unfit.items():
        lines.append(f"   {name} does not fit: {', '.join(c.limit.name for c in error.conflicts)}")
    return "\n".join(lines)


def line(choice: Choice) -> str:
    """Time of all passes, the share of each launch, and the sizes."""
    solution = choice.solution
    shares = ", ".join(f"{name} {value / solution.cost:.0%}" for name, value in solution.terms.items() if value)
    sizes = " ".join(str(value) for value in solution.values.values())
    return f"{seconds(solution.cost)} {choice.schedule} [{sizes}]: {shares}"
