"""Sizes for a CPU: what is compiled into a kernel, and how a call is shared out.

In: `Programs`, the lengths of the axes, how many sequences, heads and threads there are, a machine. Out: a
`CpuPlan`: the solution of a small integer problem over the machine's registers and caches.

Three kinds of step want three problems. Where a task owns columns of a matrix state, the columns are a
register tile and the steps of a block must stay in the second-level cache. Where batch rows share a weight,
more rows of a task save reads of it and leave fewer tasks. Where a row of numbers is streamed, its columns
are split only to feed the threads, and results go past the caches where they would not stay in them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from rekern.hwmodels import Machine
from rekern.plans import remembered
from rekern.schedules.cpu.shape import CpuPlan, RunSizes, Shape
from rekern.schedules.passes import CpuSizes
from rekern.schedules.programs import Programs

if TYPE_CHECKING:
    from rekern.solver import Problem, Solution


@lru_cache(maxsize=1024)
def plan(programs: Programs, shape: Shape, machine: Machine) -> CpuPlan:
    """Choose all sizes.

    Raises:
        rekern.solver.Infeasible: no size fits the machine.
    """
    bucket = shape.bucket(programs)
    key = {"spec": programs.spec.meaning, "shape": bucket, "machine": machine.resource_vector()}
    values = remembered(key, lambda: solution(programs, bucket, machine).values)
    untiled = _untiled(shape.double, machine)
    compiled = replace(untiled, tile=values.get("vectors", 0) * untiled.lanes)
    columns = compiled.tile or values.get("columns", compiled.lanes)
    lane = programs.lane
    tiles = -(-dict(shape.lengths)[lane] // columns) if lane is not None else 1
    groups = min(tiles, -(-shape.threads // (shape.sequences * shape.heads)))
    run = RunSizes(
        values.get("rows", 1),
        values.get("block", 1),
        values.get("ahead", 1),
        columns,
        tiles,
        groups,
        shape.threads,
        bool(values.get("past_caches", 0)),
        values.get("team", 1),
    )
    return CpuPlan(compiled, run)


def compiled_sizes(programs: Programs, double: bool, machine: Machine) -> CpuSizes | None:
    """What is compiled in whatever the lengths of a call; None where a register tile depends on them."""
    return None if programs.tiled else _untiled(double, machine)


def _untiled(double: bool, machine: Machine) -> CpuSizes:
    assert machine.cpu is not None
    cpu = machine.cpu
    return CpuSizes("double" if double else "float", cpu.vector_bytes, 0, cpu.vector_registers)


def solution(programs: Programs, shape: Shape, machine: Machine) -> Solution:
    """The best sizes with their predicted costs and the slack of every limit."""
    from rekern.solver import solve

    return solve(problem(programs, shape, machine))


def problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """The problem that the sizes of a call solve."""
    # What a problem is made of is imported where there is one: a remembered plan needs neither sympy nor the solver.
    if programs.tiled:
        from rekern.schedules.cpu.tile import tile_problem

        return tile_problem(programs, shape, machine)
    if programs.rows:
        from rekern.schedules.cpu.rows import row_problem

        return row_problem(programs, shape, machine)
    from rekern.schedules.cpu.stream import stream_problem

    return stream_problem(programs, shape, machine)
