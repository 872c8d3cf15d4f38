"""Sizes for a CPU: what is compiled into a kernel, and how a call is shared out.

In: `Programs`, the lengths of the axes, how many sequences, heads and threads there are, a machine. Out: a
`CpuPlan`: the solution of a small integer problem over the machine's registers and caches.

Three kinds of step want three problems. Where a task owns columns of a matrix state, the columns are a
register tile and the steps of a block must stay in the second-level cache. Where batch rows share a weight,
more rows of a task save reads of it and leave fewer tasks. Where a row of numbers is streamed, its columns
are split only to feed the threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from rekern.hwmodels import Machine
from rekern.ir import Apply, walk
from rekern.loops.order import arrange
from rekern.loops.program import Program
from rekern.plans import remembered
from rekern.schedules.passes import MOST_ROWS, CpuSizes
from rekern.schedules.programs import Programs

if TYPE_CHECKING:
    from sympy import Expr

    from rekern.solver import Problem, Solution

MOST_BLOCK = 64
SPARE_REGISTERS = 6  # broadcast scalars, loads in flight and the constants of the loop
READ_BACK = "the steps of a block are written and read back while they are in the second-level cache"
ROW_OVERHEAD = 3.0  # cycles of a loop over rows of the state that do not depend on the columns


@dataclass(frozen=True)
class RunSizes:
    """What a call is given: sequences of a task, steps of a block, columns of a task, tasks along columns."""

    rows: int
    block: int
    columns: int
    tiles: int
    groups: int
    threads: int


@dataclass(frozen=True)
class CpuPlan:
    """The sizes of one kind of call."""

    compiled: CpuSizes
    run: RunSizes


@dataclass(frozen=True)
class Shape:
    """What sizes depend on: lengths of the axes, sequences, heads, threads, and whether in float64."""

    lengths: tuple[tuple[str, int], ...]
    sequences: int
    heads: int
    threads: int
    double: bool

    @staticmethod
    def of(lengths: Mapping[str, int], sequences: int, heads: int, threads: int, double: bool) -> Shape:
        return Shape(tuple(lengths.items()), max(1, sequences), heads, threads, double)

    def bucket(self, programs: Programs) -> Shape:
        """The shape with the same best sizes: calls that only differ in batch or heads share a plan.

        A register tile depends on the lengths alone, so that a new batch builds nothing new; beyond what
        keeps all threads busy, more sequences change nothing either.
        """
        if programs.tiled:
            return replace(self, sequences=1, heads=1, threads=1)
        most = MOST_ROWS * self.threads if programs.rows else self.threads
        return replace(self, sequences=min(self.sequences, most), heads=min(self.heads, self.threads))


@lru_cache(maxsize=1024)
def plan(programs: Programs, shape: Shape, machine: Machine) -> CpuPlan:
    """Choose all sizes.

    Raises:
        rekern.solver.Infeasible: no size fits the machine.
    """
    assert machine.cpu is not None
    bucket = shape.bucket(programs)
    key = {"spec": programs.spec.meaning, "shape": bucket, "machine": machine.resource_vector()}
    values = remembered(key, lambda: solution(programs, bucket, machine).values)
    real = "double" if shape.double else "float"
    lanes = machine.cpu.vector_bytes // (8 if shape.double else 4)
    compiled = CpuSizes(real, machine.cpu.vector_bytes, values.get("vectors", 0) * lanes)
    columns = compiled.tile or values.get("columns", lanes)
    lane = programs.lane
    tiles = -(-dict(shape.lengths)[lane] // columns) if lane is not None else 1
    groups = min(tiles, -(-shape.threads // (shape.sequences * shape.heads)))
    run = RunSizes(values.get("rows", 1), values["block"], columns, tiles, groups, shape.threads)
    return CpuPlan(compiled, run)


def solution(programs: Programs, shape: Shape, machine: Machine) -> Solution:
    """The best sizes with their predicted costs and the slack of every limit."""
    from rekern.solver import solve

    return solve(problem(programs, shape, machine))


def problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """The problem that the sizes of a call solve."""
    if programs.tiled:
        return tile_problem(programs, shape, machine)
    if programs.rows:
        return row_problem(programs, shape, machine)
    return stream_problem(programs, shape, machine)


def tile_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Columns of a matrix state: as many vectors as their sums have registers, and little padding."""
    from sympy import ceiling

    from rekern.solver import Limit, Problem, Variable

    cpu = machine.cpu
    assert cpu is not None and programs.lane is not None
    number = 8 if shape.double else 4
    lanes = cpu.vector_bytes // number
    length = dict(shape.lengths)[programs.lane]
    vectors = Variable("vectors", 1, 8)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    v, b = vectors.symbol, block.symbol
    rows = state_rows(programs, shape)
    passes = (programs.forward, programs.silent_recording, programs.backward)
    sums = max(register_sums(p) for p in passes)
    slot = slot_rows(programs, shape) * v * cpu.vector_bytes
    tiles = ceiling(length / (v * lanes))
    tasks = shape.sequences * shape.heads
    waves = ceiling(tasks * tiles / shape.threads) / tasks
    operations = sum(vector_operations(p) for p in passes)
    return Problem(
        f"the column tile of {programs.spec.name}",
        (vectors, block),
        (
            Limit(
                "registers",
                sums * v + SPARE_REGISTERS,
                at_most=cpu.vector_registers,
                unit="registers",
                reason="sums over the rows of the state stay in registers",
            ),
            Limit(
                "block_in_cache",
                (b + 1) * slot,
                at_most=max(cpu.l2_bytes // 2, number * lanes * 5 * slot_rows(programs, shape)),
                unit="bytes",
                reason=READ_BACK,
            ),
        ),
        {
            "arithmetic": waves * rows * v * operations / cpu.fma_per_cycle / cpu.clock_hz,
            "loops": waves * rows * ROW_OVERHEAD * len(passes) / cpu.clock_hz,
            "kept_states": waves * 2 * rows * v * cpu.vector_bytes / b / cpu.dram_bytes_per_s,
        },
    )


def row_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Batch rows of a task: they share every read of a weight, but those of one task run one by one."""
    from sympy import Min, ceiling

    from rekern.solver import Limit, Problem, Variable

    cpu = machine.cpu
    assert cpu is not None
    number = 8 if shape.double else 4
    rows = Variable("rows", 1, MOST_ROWS)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    r, b = rows.symbol, block.symbol
    weights = weight_numbers(programs, shape)
    waves = ceiling(ceiling(shape.sequences / r) * shape.heads / shape.threads)
    resident = weights * number <= cpu.l2_bytes
    bandwidth = (
        cpu.l2_bytes_per_cycle * cpu.clock_hz if resident else cpu.l3_bytes_per_s or cpu.dram_bytes_per_s
    )
    slot = slot_rows(programs, shape) * number
    return Problem(
        f"the batch rows of {programs.spec.name}",
        (rows, block),
        (
            Limit(
                "block_in_cache",
                (b + 1) * slot * r,
                at_most=max(cpu.l2_bytes // 2, 5 * MOST_ROWS * slot),
                unit="bytes",
                reason=READ_BACK,
            ),
        ),
        {
            "products": waves
            * Min(r, shape.sequences, evaluate=False)
            * 2
            * weights
            / cpu.float32_flops_per_s,
            "weights": waves * weights * number / bandwidth,
            "kept_states": r * slot / b / cpu.dram_bytes_per_s,
        },
    )


def stream_problem(programs: Programs, shape: Shape, machine: Machine) -> Problem:
    """Columns of a streamed row: whole rows if the threads have work, else just enough pieces."""
    from sympy import ceiling

    from rekern.solver import Limit, Problem, Variable

    cpu = machine.cpu
    assert cpu is not None
    number = 8 if shape.double else 4
    lanes = cpu.vector_bytes // number
    lengths = dict(shape.lengths)
    whole = -(-lengths[programs.lane] // lanes) * lanes if programs.lane is not None else lanes
    columns = Variable("columns", lanes, whole, multiple_of=lanes)
    block = Variable("block", 4, MOST_BLOCK, powers_of_two=True)
    c, b = columns.symbol, block.symbol
    tasks = shape.sequences * shape.heads
    rows = len(programs.spec.operands) + len(programs.spec.states)
    waves = ceiling(tasks * ceiling(whole / c) / shape.threads)
    slot: Expr | int = slot_rows(programs, shape) * number
    if programs.lane is not None:
        slot = slot * c
    return Problem(
        f"the columns of {programs.spec.name}",
        (columns, block),
        (
            Limit(
                "block_in_cache",
                (b + 1) * slot,
                at_most=max(cpu.l2_bytes // 2, 5 * slot_rows(programs, shape) * number * whole),
                unit="bytes",
                reason=READ_BACK,
            ),
        ),
        {
            "memory": waves * c * rows * number / cpu.dram_bytes_per_s,
            "rows": waves * rows * ROW_OVERHEAD * 4 / cpu.clock_hz,
            "kept_states": slot / b / cpu.dram_bytes_per_s,
        },
    )


# -- counts that the problems are made of --------------------------------------------------------------------


def state_rows(programs: Programs, shape: Shape) -> int:
    """Rows along the lane (numbers, without one) of all states of one task."""
    return sum(_rows(o.axes, programs.lane, shape) * _cells(o.dims) for o in programs.spec.states)


def slot_rows(programs: Programs, shape: Shape) -> int:
    """The same of everything that a step hands to its gradient."""
    kept = sum(_rows([i.dim for i in k.axes], programs.lane, shape) for k in programs.backstep.kept)
    return state_rows(programs, shape) + kept


def weight_numbers(programs: Programs, shape: Shape) -> int:
    """Numbers of all parameters with two axes or more."""
    found = (o for o in programs.spec.of_kind("param") if len(o.axes) > 1)
    return sum(_rows(o.axes, None, shape) * _cells(o.dims) for o in found)


def register_sums(program: Program) -> int:
    """The most sums along rows that one nest of `program` keeps in registers at a time."""
    nests = arrange(program).nests
    sums = (sum(s.reduce is not None and s.reduce[1] in n.outer for s in n.statements) for n in nests)
    return max([1, *sums])


def vector_operations(program: Program) -> int:
    """Vector instructions for each vector of the state, over all nests of `program`."""
    count = 0
    for nest in arrange(program).nests:
        if nest.outer:
            values = walk(s.value for s in nest.statements)
            count += sum(isinstance(n, Apply) and n.free >= {*nest.outer} for n in values)
    return max(1, count)


def _rows(axes: list[str] | tuple[str, ...], lane: str | None, shape: Shape) -> int:
    lengths = dict(shape.lengths)
    rows = 1
    for axis in axes:
        rows *= 1 if axis == lane else lengths[axis]
    return rows


def _cells(dims: tuple[int | str, ...]) -> int:
    cells = 1
    for dim in dims:
        cells *= dim if isinstance(dim, int) else 1
    return cells
