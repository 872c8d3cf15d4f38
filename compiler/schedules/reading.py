"""What a step reads.

In: a `Program`. Out: the arrays that it reads, at all, in the step itself, or number by number.
"""

from __future__ import annotations

from collections.abc import Collection

from rekern import ir
from rekern.loops.order import arrange
from rekern.loops.program import Place, Program


def reads(program: Program) -> set[Place]:
    """The arrays that a program reads."""
    return {
        (n.operand, n.component)
        for n in ir.walk([a.value for a in program.assigns])
        if isinstance(n, ir.Read)
    }


def reads_in_step(program: Program, early: Collection[Place]) -> set[Place]:
    """The arrays that the step itself reads, where products with `early` rows are done outside it."""
    found = set()
    for nest in arrange(program).nests:
        for s in nest.statements:
            vector = s.vector and (s.vector.operand, s.vector.component)
            if s.matrix is not None and vector in early:
                continue
            found |= {(n.operand, n.component) for n in ir.walk(s.reads()) if isinstance(n, ir.Read)}
    return found


def reads_elementwise(program: Program) -> set[Place]:
    """The arrays that a program reads number by number, and not as the matrix of a contraction."""
    values = [s.value for nest in arrange(program).nests for s in nest.statements if s.matrix is None]
    return {(n.operand, n.component) for n in ir.walk(values) if isinstance(n, ir.Read)}
