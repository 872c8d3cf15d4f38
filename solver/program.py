"""A sympy formula as a straight-line program, which is run over arrays of points or over boxes.

In: formulas over named variables. Out: a `Program`: a list of steps, each shared sub-formula once.

Not `sympy.lambdify`: it takes longer than all the rest of a small solve, and it prints x/49 as (1/49)*x,
whose floor at x = 49 is 0. Here x/49 is a division.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import sympy
from sympy.logic.boolalg import BooleanFalse, BooleanTrue

from rekern.solver.boxes import BOX_OPERATIONS, EVERYTHING, Box
from rekern.solver.errors import SolverError
from rekern.solver.points import POINT_OPERATIONS, Values, quiet
from rekern.solver.text import nearest

DIRECT = {
    sympy.ceiling: "ceiling",
    sympy.floor: "floor",
    sympy.Mod: "mod",
    sympy.Abs: "abs",
    sympy.exp: "exp",
    sympy.log: "log",
    sympy.Le: "le",
    sympy.Lt: "lt",
    sympy.Eq: "eq",
    sympy.Not: "not",
    sympy.ITE: "select",
}
SWAPPED = {sympy.Ge: "le", sympy.Gt: "lt"}
CHAINED = {sympy.Add: "add", sympy.Max: "max", sympy.Min: "min", sympy.And: "min", sympy.Or: "max"}
VOCABULARY = "+ - * / **, Abs, ceiling, exp, floor, log, Max, Min, Mod, Piecewise, comparisons, And, Or, Not"


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on the results of earlier steps; a constant has a `value`, a variable a `name`."""

    operation: str
    reads: tuple[int, ...] = ()
    value: float = 0.0
    name: str = ""

    def __str__(self) -> str:
        inner = {"constant": f"{self.value:g}", "variable": self.name}
        return inner.get(self.operation) or f"{self.operation}({', '.join(f'%{r}' for r in self.reads)})"


@dataclass(frozen=True, slots=True)
class Program:
    """Formulas over named variables, in evaluation order; `outputs` are the steps that hold their results."""

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def __str__(self) -> str:
        lines = [f"%{i} = {step}" for i, step in enumerate(self.steps)]
        return "\n".join([*lines, "return " + ", ".join(f"%{i}" for i in self.outputs)])

    def at(self, point: Mapping[str, Values]) -> list[Values]:
        """Each formula at each point; the arrays of the variables are broadcast against each other.

        A formula that reads few variables has a result of few axes. Undefined values are NaN, 1/0 is inf.
        """
        results: list[Values] = []
        with quiet():
            for step in self.steps:
                if step.operation == "constant":
                    results.append(step.value)
                elif step.operation == "variable":
                    results.append(point[step.name])
                else:
                    results.append(POINT_OPERATIONS[step.operation](*[results[i] for i in step.reads]))
        return [results[i] for i in self.outputs]

    def over(self, box: Mapping[str, Box]) -> list[Box]:
        """An interval for each formula that holds its value at every point of the box, and perhaps more."""
        results: list[Box] = []
        for step in self.steps:
            if step.operation == "constant":
                results.append(EVERYTHING if math.isnan(step.value) else (step.value, step.value))
            elif step.operation == "variable":
                results.append(box[step.name])
            else:
                results.append(BOX_OPERATIONS[step.operation](*[results[i] for i in step.reads]))
        return [results[i] for i in self.outputs]


def compile_program(symbols: Mapping[sympy.Symbol, str], formulas: Mapping[str, sympy.Expr]) -> Program:
    """The program of some formulas over `symbols`, each of which is read under its name.

    Args:
        formulas: By what an error calls each of them.

    Raises:
        SolverError: a formula reads another symbol, or uses a function outside the vocabulary.

    >>> x, y = sympy.symbols("x y", integer=True, positive=True)
    >>> print(compile_program({x: "x", y: "y"}, {"tiles": sympy.ceiling(x / 3) * y}))
    %0 = y
    %1 = 3
    %2 = x
    %3 = div(%2, %1)
    %4 = ceiling(%3)
    %5 = mul(%0, %4)
    return %5
    """
    builder = _Builder(symbols)
    outputs = tuple(builder.formula(label, formula) for label, formula in formulas.items())
    return Program(tuple(builder.steps), outputs)


class _Builder:
    def __init__(self, symbols: Mapping[sympy.Symbol, str]) -> None:
        self.symbols = symbols
        self.steps: list[Step] = []
        self.known: dict[object, int] = {}
        self.label, self.whole = "", sympy.S.Zero

    def formula(self, label: str, formula: sympy.Expr) -> int:
        self.label, self.whole = label, formula
        return self.visit(formula)

    def visit(self, formula: sympy.Basic) -> int:
        """The step that holds `formula`."""
        found = self.known.get(formula)
        if found is None:
            found = self.known[formula] = self._new(formula)
        return found

    def _new(self, formula: sympy.Basic) -> int:
        kind = type(formula)
        if isinstance(formula, sympy.Symbol):
            if formula not in self.symbols:
                raise self._error(self._not_a_variable(formula))
            return self._emit(Step("variable", name=self.symbols[formula]))
        if isinstance(formula, (BooleanTrue, BooleanFalse)):
            return self._emit(Step("constant", value=float(bool(formula))))
        if formula.is_number and isinstance(formula, (sympy.Number, sympy.NumberSymbol)):
            return self._emit(Step("constant", value=float(formula)))
        if kind is sympy.Mul:
            return self._product(formula)
        if kind is sympy.Pow:
            if formula.exp.is_Number and formula.exp.is_negative:
                return self._call("div", self.visit(sympy.S.One), self.visit(formula.base**-formula.exp))
            return self._call("pow", *map(self.visit, formula.args))
        if kind is sympy.Ne:
            return self._call("not", self._call("eq", *map(self.visit, formula.args)))
        if kind is sympy.Piecewise:
            return self._piecewise(formula)
        if kind in DIRECT:
            return self._call(DIRECT[kind], *map(self.visit, formula.args))
        if kind in SWAPPED:
            return self._call(SWAPPED[kind], *map(self.visit, reversed(formula.args)))
        if kind in CHAINED:
            return self._chain(CHAINED[kind], [self.visit(a) for a in formula.args])
        raise self._error(f"cannot evaluate {formula}. The solver knows: {VOCABULARY}.")

    def _error(self, fault: str) -> SolverError:
        return SolverError(f"{self.label}:\n    {self.whole}\n{fault}")

    def _not_a_variable(self, symbol: sympy.Symbol) -> str:
        names = list(self.symbols.values())
        if symbol.name in names:
            return f"{symbol.name!r} has the name of a variable but is another symbol: use Variable.symbol."
        text = f"{symbol.name!r} is not a variable. Variables here: {', '.join(names) or 'none'}."
        return f"{text} {nearest(symbol.name, names)}".rstrip()

    def _product(self, formula: sympy.Mul) -> int:
        """One division of two products, so that a quotient of whole numbers is rounded once."""
        over: list[int] = []
        under: list[int] = []
        for factor in formula.args:
            if factor.is_Rational and factor.q != 1:
                under.append(self.visit(sympy.Integer(factor.q)))
                if factor.p != 1:
                    over.append(self.visit(sympy.Integer(factor.p)))
            elif factor.is_Pow and factor.exp.is_Number and factor.exp.is_negative:
                under.append(self.visit(factor.base**-factor.exp))
            else:
                over.append(self.visit(factor))
        top = self._chain("mul", over or [self.visit(sympy.S.One)])
        return self._call("div", top, self._chain("mul", under)) if under else top

    def _piecewise(self, formula: sympy.Piecewise) -> int:
        result: int | None = None
        for value, condition in reversed(formula.args):
            if isinstance(condition, BooleanTrue):
                result = self.visit(value)
            else:
                if result is None:      # no branch for the rest: undefined there
                    result = self._emit(Step("constant", value=math.nan))
                result = self._call("select", self.visit(condition), self.visit(value), result)
        assert result is not None
        return result

    def _chain(self, operation: str, slots: list[int]) -> int:
        result = slots[0]
        for slot in slots[1:]:
            result = self._call(operation, result, slot)
        return result

    def _call(self, operation: str, *reads: int) -> int:
        return self._emit(Step(operation, reads))

    def _emit(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1
