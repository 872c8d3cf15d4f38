"""What the solver chooses on every GPU: one text file a machine, whose diff is the review of a change of the model.

`pytest tests/test_gpu_rankings.py --update-golden`, then read the diff.
"""

from __future__ import annotations

import pytest

from conftest import Golden
from rekern import zoo
from rekern.hwmodels import load, names
from rekern.schedules.gpu.call import Call, Dtype
from rekern.schedules.gpu.ranking import alternatives, rank
from rekern.schedules.gpu.rates import has_matrix
from rekern.schedules.gpu.usual import usual_calls
from rekern.solver import Solution
from rekern.solver.text import seconds

GPUS = [name for name in names() if load(name).kind == "gpu"]
SPECS = ("lstm", "hgrn", "selective_scan", "simple_gla", "gla", "gated_delta_rule", "rwkv7")
TOP = 8
LEAST_SHARE = 0.05  # of the time of a call; what a shorter launch does is of no interest


@pytest.mark.parametrize("machine", GPUS)
def test_rankings(machine: str, golden: Golden) -> None:
    gpu = load(machine).gpu
    assert gpu is not None
    dtype: Dtype = "bfloat16" if has_matrix(gpu, "bfloat16") else "float16"
    blocks = [shown(call) for spec in SPECS for call in usual_calls(zoo.load(spec), load(machine), dtype)]
    golden("\n\n".join(blocks))


def shown(call: Call) -> str:
    """The best sizes of every schedule; and of the best one, the next sizes of every launch."""
    ranking = rank(call)
    lines = [str(call)]
    for choice in ranking.choices:
        lines.append(f"{seconds(choice.seconds)} {choice.schedule}: {terms(choice.solution)}")
    for name, error in ranking.unfit.items():
        lines.append(f"{name} does not fit: {', '.join(c.limit.name for c in error.conflicts)}")
    for launch, cost in ranking.best.solution.terms.items():
        if cost > LEAST_SHARE * ranking.best.seconds:
            found = alternatives(call, ranking.best, launch, TOP)
            if len(found) == 1:
                continue        # it shares all its sizes
            names = [name.removeprefix(f"{launch} ") for name in found[0].values]
            lines.append(f"{launch} ({', '.join(names)})")
            lines += [f"    {seconds(s.cost)}  {' '.join(map(str, s.values.values()))}" for s in found]
    return "\n".join(lines)


def terms(solution: Solution) -> str:
    """Seconds of every launch that costs something."""
    return ", ".join(f"{name} {seconds(value)}" for name, value in solution.terms.items() if value)
