"""A real formula as an integer expression of CP-SAT: its value in fixed point, with a bound of the error.

In: a formula of a problem's cost. Out: `Scaled`.

A formula of few variables is a table: every row of them that the limits allow, and the value there. A wider one is
taken apart: a sum, a product, a maximum and a choice of narrower ones. Nothing is decided by these numbers: they
say where to look, and the native programs say what is found there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import sympy
from numpy.typing import NDArray
from ortools.sat.python import cp_model
from sympy.logic.boolalg import BooleanTrue

from rekern.solver.backends.integers import NotWhole, Translator, Whole, number
from rekern.solver.backends.table import MOST_ROWS, Rows, reads, rows, value_at
from rekern.solver.errors import SolverError
from rekern.solver.problem import Problem
from rekern.solver.program import Program, compile_program

BITS = 32               # of a value: 10 digits, so that few points lie within the error of the best
SHORT_ROWS = 20_000     # a table up to here is handed over in less time than a formula takes to take apart


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """A value v as an integer: `whole` differs from v * 2**bits by at most `error`."""

    whole: Whole
    bits: int
    error: int

    @property
    def largest(self) -> int:
        """The largest magnitude of `whole`."""
        return max(abs(self.whole.low), abs(self.whole.high))


class Scaler:
    """Adds the constraints of real formulas to a model."""

    def __init__(self, problem: Problem, model: cp_model.CpModel, translator: Translator) -> None:
        self.problem, self.model, self.translator = problem, model, translator

    def formula(self, formula: sympy.Expr) -> Scaled:
        """The value of a formula wherever all limits are met.

        Raises:
            SolverError: it reads too many variables at once for a table and cannot be taken apart.
        """
        found = rows(self.problem, reads(formula))
        if found is not None and length(found) <= SHORT_ROWS:
            return self._table(formula, found)
        try:
            return self._taken_apart(formula)
        except NotWhole:
            if found is None:
                raise too_wide(self.problem, formula) from None
            return self._table(formula, found)

    def _taken_apart(self, formula: sympy.Expr) -> Scaled:
        if isinstance(formula, sympy.Add):
            return self.total([self.formula(term) for term in formula.args])
        if isinstance(formula, sympy.Mul):
            return reduce(self._product, map(self.formula, self._factors(formula)))
        if isinstance(formula, sympy.Max):
            return self._extreme(formula, max, self.model.add_max_equality)
        if isinstance(formula, sympy.Min):
            return self._extreme(formula, min, self.model.add_min_equality)
        if isinstance(formula, sympy.Piecewise):
            return self._chosen(formula)
        ratio = self.translator.formula(self._program(formula))
        bits = 0 if ratio.under.one else BITS // 2
        top = self.translator.times(ratio.top, number(1 << bits))
        return Scaled(self.translator.floor_of(top, ratio.under), bits, 0 if ratio.under.one else 1)

    def _factors(self, formula: sympy.Mul) -> list[sympy.Expr]:
        """Products of as many factors as still make a short table; the widest factor stays alone."""
        groups: list[sympy.Expr] = []
        for factor in sorted(formula.args, key=lambda f: (len(reads(f)), sympy.default_sort_key(f))):
            if groups:
                together = groups[-1] * factor
                found = rows(self.problem, reads(together))
                if found is not None and length(found) <= SHORT_ROWS:
                    groups[-1] = together
                    continue
            groups.append(factor)
        return groups

    def _program(self, formula: sympy.Basic) -> Program:
        symbols = {v.symbol: v.name for v in self.problem.variables}
        return compile_program(symbols, {f"a part of {self.problem.name!r}": formula})

    # -- operations ------------------------------------------------------------------------------------------

    def total(self, terms: Sequence[Scaled]) -> Scaled:
        """The sum."""
        terms = self._alike(terms)
        whole = reduce(self.translator.plus, (term.whole for term in terms), number(0))
        return Scaled(whole, terms[0].bits if terms else 0, sum(term.error for term in terms))

    def _product(self, a: Scaled, b: Scaled) -> Scaled:
        whole = self.translator.times(a.whole, b.whole)
        error = a.largest * b.error + b.largest * a.error + a.error * b.error
        found = Scaled(whole, a.bits + b.bits, error)
        return self._lowered(found, max(0, found.largest.bit_length() - BITS - 2))

    def _extreme(
        self,
        formula: sympy.Max | sympy.Min,
        choose: Callable[[list[int]], int],
        add: Callable[[cp_model.LinearExpr, list[cp_model.LinearExpr]], object],
    ) -> Scaled:
        terms = self._alike([self.formula(term) for term in formula.args])
        low, high = choose([t.whole.low for t in terms]), choose([t.whole.high for t in terms])
        found = self.translator.new(low, high)
        add(found.expr, [t.whole.expr for t in terms])
        return Scaled(found, terms[0].bits, max(t.error for t in terms))

    def _chosen(self, formula: sympy.Piecewise) -> Scaled:
        branches = self._alike([self.formula(value) for value, _ in formula.args])
        conditions = [condition for _, condition in formula.args]
        if not isinstance(conditions[-1], BooleanTrue):
            raise NotWhole
        found = branches[-1].whole
        for branch, condition in zip(branches[-2::-1], conditions[-2::-1], strict=True):
            truth = self.translator.formula(self._program(condition))
            found = self.translator.chosen(truth.whole, branch.whole, found)
        return Scaled(found, branches[0].bits, max(branch.error for branch in branches))

    def _alike(self, terms: Sequence[Scaled]) -> list[Scaled]:
        """The same values with as many bits as the coarsest has."""
        bits = min((term.bits for term in terms), default=0)
        return [self._lowered(term, term.bits - bits) for term in terms]

    def _lowered(self, value: Scaled, bits: int) -> Scaled:
        """The same value without its last bits."""
        if bits == 0:
            return value
        step = 1 << bits
        old = value.whole
        if old.fixed:
            new = number(old.low // step)
        else:
            new = self.translator.new(old.low // step, old.high // step)
            self.model.add_linear_constraint(old.expr - step * new.expr, 0, step - 1)
        return Scaled(new, value.bits - bits, -(-value.error // step) + 1)

    def _table(self, formula: sympy.Expr, found: Rows) -> Scaled:
        values = np.broadcast_to(np.asarray(value_at(self.problem, formula, found), dtype=np.float64), length(found))
        if not np.isfinite(values).all():
            raise too_wide(self.problem, formula)
        largest = float(np.abs(values).max(initial=0.0))
        exact = largest < 1 << BITS and bool((values == np.rint(values)).all())
        bits = 0 if exact or largest == 0 else BITS - math.frexp(largest)[1]
        whole = np.rint(np.ldexp(values, bits)).astype(np.int64)
        error = 0 if exact else 1
        if len(set(whole.tolist())) == 1:
            return Scaled(number(int(whole[0])), bits, error)
        value = self.translator.new(int(whole.min(initial=0)), int(whole.max(initial=0)))
        allow(self.model, self.translator, found, [(value.expr, whole)])
        return Scaled(value, bits, error)


def allow(
    model: cp_model.CpModel,
    translator: Translator,
    found: Rows,
    further: Sequence[tuple[cp_model.LinearExpr, NDArray[np.int64]]] = (),
) -> None:
    """Only these rows are allowed."""
    if length(found) == 0:
        model.add_bool_or([])
        return
    exprs = [translator.variables[name].expr for name in found] + [expr for expr, _ in further]
    columns = [column.astype(np.int64).tolist() for column in (*found.values(), *(column for _, column in further))]
    model.add_allowed_assignments(exprs, list(zip(*columns, strict=True)))


def length(found: Rows) -> int:
    """How many rows; without variables there is one."""
    return min((len(column) for column in found.values()), default=1)


def too_wide(problem: Problem, formula: sympy.Basic) -> SolverError:
    """A formula is neither made of integer operations nor a table of reasonable length."""
    return SolverError(
        f"the back end 'cpsat' cannot state a part of {problem.name!r}:\n    {formula}\n"
        f"It is not made of integer operations below 2**60, and has no table of at most {MOST_ROWS:,} rows over "
        f"{', '.join(sorted(reads(formula))) or 'no variable'}.\ntry: the native search."
    )
