"""Counts of a step that the problems of a CPU's sizes are made of.

In: `Programs` and a `Shape`. Out: whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rekern.ir import Apply, Read, walk
from rekern.loops.order import arrange
from rekern.loops.program import Nest, Program, is_early
from rekern.schedules.cpu.shape import Shape
from rekern.schedules.programs import Programs

MOST_BLOCK = 64  # steps
READ_BACK = "the steps of a block are written and read back while they are in the second-level cache"
ROW_OVERHEAD = 3.0  # cycles of a loop over rows of the state that do not depend on the columns
ROW_SUM = 2.0  # cycles of a sum along a row, beside its additions: a vector stored and joined with its neighbours
STEP_OVERHEAD = 150.0  # cycles of a step that depend on no axis: finding its rows, waiting for the last sums


def state_rows(programs: Programs, shape: Shape) -> int:
    """Rows along the lane (numbers, without one) of all states of one task."""
    return sum(_rows(o.axes, programs.lane, shape) * cells(o.dims) for o in programs.spec.states)


def slot_rows(programs: Programs, shape: Shape) -> int:
    """The same of everything that a step hands to its gradient."""
    kept = sum(_rows([i.dim for i in k.axes], programs.lane, shape) for k in programs.backstep.kept)
    return state_rows(programs, shape) + kept


def columns_and_rest(programs: Programs, shape: Shape, kept: bool) -> tuple[int, int]:
    """Of the states of one task (and of what else a step hands to its gradient, `kept`): rows along the lane, and
    numbers of arrays without it."""
    found = [(o.axes, cells(o.dims)) for o in programs.spec.states]
    found += [(tuple(i.dim for i in k.axes), 1) for k in programs.backstep.kept] if kept else []
    rows = sum(_rows(axes, programs.lane, shape) * n for axes, n in found if programs.lane in axes)
    numbers = sum(_rows(axes, None, shape) * n for axes, n in found if programs.lane not in axes)
    return rows, numbers


def shared_numbers(programs: Programs, shape: Shape) -> int:
    """Numbers of a step's inputs without the lane: every tile of columns reads them, and adds to their cotangents."""
    found = (o for o in programs.spec.of_kind("input") if programs.lane not in o.axes)
    return sum(_rows(o.axes, None, shape) * cells(o.dims) for o in found)


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


@dataclass(frozen=True)
class Walk:
    """What one nest over rows along the lane does for each vector of them, and for each row.

    Args:
        multiply_adds: Instructions for each vector, a product with the sum that it goes into counted once.
        arrays: Vectors that are read and written there, each array once.
        sums: Sums over rows, each a vector for each vector of a row.
        row_sums: Sums along the rows, one number for each row.
    """

    multiply_adds: int
    arrays: int
    sums: int
    row_sums: int


def walks(program: Program) -> tuple[Walk, ...]:
    """The nests of `program` that walk over rows along the lane."""
    return tuple(_walk(nest) for nest in arrange(program).nests if nest.outer and nest.lane is not None)


def _walk(nest: Nest) -> Walk:
    assert nest.lane is not None
    space = {*nest.outer, nest.lane}
    nodes = [n for n in walk(s.value for s in nest.statements) if n.free >= space]
    functions = [n.function for n in nodes if isinstance(n, Apply)]
    reduced = [s.reduce[1] for s in nest.statements if s.reduce is not None]
    additions = sum(f in ("add", "sub") for f in functions) + len(reduced)
    products = functions.count("mul")
    others = len(functions) + len(reduced) - additions - products
    read = {(n.operand, n.component) for n in nodes if isinstance(n, Read)}
    written = [s.target for s in nest.statements if s.reduce is None]
    row_sums = reduced.count(nest.lane)
    return Walk(
        max(products, additions) + others, len(read) + len(written), len(reduced) - row_sums, row_sums
    )


def _rows(axes: list[str] | tuple[str, ...], lane: str | None, shape: Shape) -> int:
    lengths = dict(shape.lengths)
    rows = 1
    for axis in axes:
        rows *= 1 if axis == lane else lengths[axis]
    return rows


def cells(dims: tuple[int | str, ...]) -> int:
    """How many arrays the literal axes make of an operand."""
    return math.prod(dim for dim in dims if isinstance(dim, int))
