"""Counts of a step that the problems of a CPU's sizes are made of.

In: `Programs` and a `Shape`. Out: whole numbers.
"""

from __future__ import annotations

import math

from rekern.ir import Apply, walk
from rekern.loops.order import arrange
from rekern.loops.program import Program, is_early
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import Programs

MOST_BLOCK = 64  # steps
READ_BACK = "the steps of a block are written and read back while they are in the second-level cache"
ROW_OVERHEAD = 3.0  # cycles of a loop over rows of the state that do not depend on the columns


def state_rows(programs: Programs, shape: Shape) -> int:
    """Rows along the lane (numbers, without one) of all states of one task."""
    return sum(_rows(o.axes, programs.lane, shape) * cells(o.dims) for o in programs.spec.states)


def slot_rows(programs: Programs, shape: Shape) -> int:
    """The same of everything that a step hands to its gradient."""
    kept = sum(_rows([i.dim for i in k.axes], programs.lane, shape) for k in programs.backstep.kept)
    return state_rows(programs, shape) + kept


def weight_numbers(programs: Programs, shape: Shape) -> int:
    """Numbers of all parameters with two axes or more."""
    found = (o for o in programs.spec.of_kind("param") if len(o.axes) > 1)
    return sum(_rows(o.axes, None, shape) * cells(o.dims) for o in found)


def early_weights(programs: Programs, shape: Shape) -> tuple[int, int]:
    """Numbers of the weights that are multiplied with inputs, and numbers in one row of factors and products."""
    weights = row = 0
    for nest in arrange(programs.forward).nests:
        if is_early(programs.forward, nest.statements[0]):
            for s in nest.statements:
                assert s.matrix is not None
                weights += _rows([i.dim for i in s.matrix.indices], None, shape)
                row += _rows([i.dim for i in s.axes], None, shape)
            assert nest.statements[0].vector is not None
            row += _rows([i.dim for i in nest.statements[0].vector.indices], None, shape)
    return weights, row


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


def cells(dims: tuple[int | str, ...]) -> int:
    """How many arrays the literal axes make of an operand."""
    return math.prod(dim for dim in dims if isinstance(dim, int))
