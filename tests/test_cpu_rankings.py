"""What the solver chooses on every CPU: one text file a machine, whose diff is the review of a change of the model.

`pytest tests/test_cpu_rankings.py --update-golden`, then read the diff.
"""

from __future__ import annotations

import pytest

from conftest import Golden
from rekern import zoo
from rekern.cli.workload import workloads
from rekern.hwmodels import load, names
from rekern.schedules.cpu.choose import problem
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import programs
from rekern.solver import solve
from rekern.solver.text import point, seconds

CPUS = [name for name in names() if load(name).kind == "cpu"]
SPECS = ("lstm", "gru", "hgrn", "selective_scan", "gla", "mlstm", "gated_delta_rule", "rwkv7")
TOP = 8


@pytest.mark.parametrize("machine", CPUS)
def test_rankings(machine: str, golden: Golden) -> None:
    lines = []
    for name in SPECS:
        for load_of in workloads(zoo.load(name)):
            p = programs(load_of.spec)
            for threads in (1, 16):
                tokens = load_of.batch * load_of.time
                shape = Shape.of(load_of.sizes, load_of.batch, load_of.heads, threads, False, tokens).bucket(p)
                lines.append(f"{name} {load_of}, {threads} threads")
                found = solve(problem(p, shape, load(machine)), TOP)
                lines += [f"    {seconds(s.cost)}  {point(s.values)}" for s in found]
    golden("\n".join(lines))
