"""A sympy formula as a straight-line program, which is run over arrays of points or over boxes.

In: formulas over named variables. Out: a `Program`: a list of steps, each shared sub-formula once.

Not `sympy.lambdify`: it takes longer than all the rest of a small solve, and it prints x/49 as (1/49)*x,
whose floor at x = 49 is 0. Here x/49 is a division.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sympy
from numpy.typing import NDArray
from sympy.logic.boolalg import BooleanFalse, BooleanTrue

from rekern.solver.boxes import Box, apply
from rekern.solver.errors import SolverError
from rekern.solver.formulas import AtMost, Least, Most, RoundedDown, RoundedUp, When
from rekern.solver.points import EXACT_BELOW, POINT_OPERATIONS, Values, quiet
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
    RoundedUp: "ceiling",
    RoundedDown: "floor",
    AtMost: "le",
    When: "select",
}
SWAPPED = {sympy.Ge: "le", sympy.Gt: "lt"}
CHAINED = {
    sympy.Add: "add",
    sympy.Max: "max",
    sympy.Min: "min",
    sympy.And: "min",
    sympy.Or: "max",
    Least: "min",
    Most: "max",
}
Floats = NDArray[np.float64]

NEEDS_EXACT = {
    "mod", "eq", "le", "lt", "ceiling", "floor", "ceiling_of_ratio", "floor_of_ratio",
}
TRUTH = {"le", "lt", "eq", "not"}
KEEPS_WHOLE = {"add", "mul", "max", "min", "mod", "abs", "select"}
ALWAYS_DEFINED = {
    "add", "mul", "max", "min", "ceiling", "floor", "ceiling_of_ratio", "floor_of_ratio", "abs", "select", *TRUTH,
}
MOST_BITS = 1000    # of a power whose size is computed
VOCABULARY = (
    "+ - * / **, Abs, ceiling, exp, floor, log, Max, Min, Mod, Piecewise, comparisons, And, Or, Not, "
    "Least, Most, RoundedUp, RoundedDown, AtMost, When"
)


class Step(NamedTuple):
    """One operation on the results of earlier steps; a constant has a `value`, a variable a `name`.

    What is known of its result whatever the variables: `whole` (a whole number), `nonnegative`, `positive`,
    `defined` (never NaN). `above_zero`: its operands allow the short form of its operation on intervals.
    """

    operation: str
    reads: tuple[int, ...] = ()
    value: float = 0.0
    name: str = ""
    whole: bool = False
    nonnegative: bool = False
    positive: bool = False
    defined: bool = False
    above_zero: bool = False

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
        results = self.trace(point)
        return [results[i] for i in self.outputs]

    def trace(self, point: Mapping[str, Values]) -> list[Values]:
        """The result of each step."""
        results: list[Values] = []
        with quiet():
            for step in self.steps:
                if step.operation == "constant":
                    results.append(step.value)
                elif step.operation == "variable":
                    results.append(point[step.name])
                else:
                    results.append(POINT_OPERATIONS[step.operation](*[results[i] for i in step.reads]))
        return results

    def over(self, box: Mapping[str, Box]) -> list[Box]:
        """An interval for each formula that holds its value at every point of the box, and perhaps more.

        Of a formula whose variables are all points the two ends are the same object: its value.
        """
        results: list[Box] = []
        with quiet():
            for step in self.steps:
                if step.operation == "constant":
                    results.append((step.value, step.value))
                elif step.operation == "variable":
                    results.append(box[step.name])
                else:
                    operands = [results[i] for i in step.reads]
                    results.append(apply(step.operation, step.above_zero, operands))
        return [results[i] for i in self.outputs]

    def part(self, wanted: Sequence[int]) -> Program:
        """The program of some of the formulas: those at these places among the outputs."""
        if list(wanted) == list(range(len(self.outputs))):
            return self
        needed = {self.outputs[i] for i in wanted}
        for at in range(len(self.steps) - 1, -1, -1):
            if at in needed:
                needed.update(self.steps[at].reads)
        place = {old: new for new, old in enumerate(sorted(needed))}
        kept = [self.steps[old] for old in place]
        steps = tuple(Step(s[0], tuple([place[r] for r in s[1]]), *s[2:]) for s in kept)
        return Program(steps, tuple(place[self.outputs[i]] for i in wanted))

    def reads(self) -> list[frozenset[str]]:
        """The variables that each formula reads."""
        read: list[frozenset[str]] = []
        for step in self.steps:
            own = frozenset((step.name,) if step.name else ())
            read.append(own.union(*(read[i] for i in step.reads)))
        return [read[i] for i in self.outputs]

    def inexact(self, box: Mapping[str, Box]) -> list[float]:
        """For each formula 0; or, where rounding of large whole numbers may change it, the largest of them.

        A product that is only compared with a bound may be rounded; a rest, an equality, a comparison, a
        difference or a ceiling must be exact, so all that it reads must stay below `EXACT_BELOW`.
        """
        if max(self._sizes(box), default=0.0) <= EXACT_BELOW:
            return [0.0] * len(self.outputs)
        ends = self._every_step().over(box)
        large: list[float] = []
        risky: list[float] = []
        for step, (low, high) in zip(self.steps, ends, strict=True):
            size = max(abs(float(low)), abs(float(high))) if step.whole else 0.0
            large.append(max([size if size > EXACT_BELOW else 0.0, *(large[i] for i in step.reads)]))
            difference = step.operation == "add" and not step.above_zero
            exact = step.operation in NEEDS_EXACT or difference
            below = [large[i] if exact else 0.0 for i in step.reads]
            risky.append(max([0.0, *below, *(risky[i] for i in step.reads)]))
        return [risky[i] for i in self.outputs]

    def _every_step(self) -> Program:
        return Program(self.steps, tuple(range(len(self.steps))))

    def _sizes(self, box: Mapping[str, Box]) -> list[float]:
        """A quick bound of the magnitude of each step that must be exact or leads to one; inf: not known."""
        sizes: list[float] = []
        least: list[float] = []     # of the magnitude of what cannot be negative; 0: not known
        for step in self.steps:
            reads, low = step.reads, 0.0
            operands = [sizes[i] for i in reads]
            match step.operation:
                case "constant":
                    size = low = abs(step.value)
                case "variable":
                    size, low = float(box[step.name][1]), float(box[step.name][0])
                case "add":
                    size = operands[0] + operands[1]
                    low = least[reads[0]] + least[reads[1]] if step.above_zero else 0.0
                case "mul":
                    size, low = operands[0] * operands[1], least[reads[0]] * least[reads[1]]
                case "div":
                    under = least[reads[1]]
                    size = operands[0] / under if under else math.inf
                    low = least[reads[0]] / operands[1] if operands[1] else 0.0
                case "pow":
                    base, exponent = max(1.0, operands[0]), operands[1]
                    size = base**exponent if math.log2(base) * exponent < MOST_BITS else math.inf
                case "min" if step.above_zero:
                    size, low = min(operands), min(least[i] for i in reads)
                case "max":
                    size, low = max(operands), max(least[i] for i in reads)
                case "select":
                    size, low = max(operands[1:]), min(least[i] for i in reads[1:])
                case "min" | "abs" | "mod" | "floor_of_ratio" | "floor":
                    size = max(operands)
                case "ceiling" | "ceiling_of_ratio":
                    size, low = operands[0] + 1, least[reads[0]]
                case _:
                    size = 1.0 if step.operation in TRUTH else math.inf
            sizes.append(size)
            least.append(low if step.nonnegative else 0.0)
        # A number that is no whole one matters only through what is rounded to one.
        return [size for size, step in zip(sizes, self.steps, strict=True) if step.whole]

    def largest(self, box: Mapping[str, Box]) -> Floats:
        """The largest whole number on the way to the results, in each box; 0 where all of them are exact."""
        found: Floats = np.zeros(())
        for step, ends in zip(self.steps, self._every_step().over(box), strict=True):
            if step.whole and step.operation != "constant":
                found = np.fmax(found, np.fmax(np.abs(ends[0]), np.abs(ends[1])))
        return np.where(found > EXACT_BELOW, found, 0.0)


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
    %4 = ceiling_of_ratio(%3)
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
        if kind is sympy.Symbol:
            if formula not in self.symbols:
                raise self._error(self._not_a_variable(formula))
            above = bool(formula.is_positive)
            named = Step("variable", (), 0.0, self.symbols[formula], True, True, above, True)
            return self._emit(named)
        if isinstance(formula, (BooleanTrue, BooleanFalse)):
            return self._constant(float(bool(formula)))
        if isinstance(formula, (sympy.Number, sympy.NumberSymbol)):
            return self._constant(float(formula))
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
                    result = self._constant(math.nan)
                result = self._call("select", self.visit(condition), self.visit(value), result)
        assert result is not None
        return result

    def _chain(self, operation: str, slots: list[int]) -> int:
        result = slots[0]
        for slot in slots[1:]:
            result = self._call(operation, result, slot)
        return result

    def _constant(self, value: float) -> int:
        facts = value.is_integer(), value >= 0, value > 0, not math.isnan(value)
        return self._emit(Step("constant", (), value, "", *facts))

    def _call(self, operation: str, *reads: int) -> int:
        operands = [self.steps[i] for i in reads]
        whole = all(o.whole for o in operands)
        if operation in ("ceiling", "floor"):
            [operand] = operands
            if operand.whole:
                return reads[0]
            if operand.operation == "div" and all(self.steps[i].whole for i in operand.reads):
                operation += "_of_ratio"
        nonnegative = all(o.nonnegative for o in operands)
        at_zero = nonnegative or (operation == "max" and any(o.nonnegative for o in operands))
        positive = at_zero and _positive(operation, operands)
        defined = all(o.defined for o in operands)
        if operation not in ALWAYS_DEFINED:
            # A power, a rest or a quotient of positive numbers, and no other, is sure to have a value.
            defined &= operation == "exp" or all(o.positive for o in operands[-1:])
            defined &= operation not in ("pow", "log") or operands[0].positive
        facts = (
            operation in TRUTH or "_of_ratio" in operation or operation in ("ceiling", "floor")
            or (whole and operation in KEEPS_WHOLE)
            or (whole and operation == "pow" and operands[1].nonnegative),
            operation in TRUTH or operation in ("abs", "exp") or (at_zero and operation != "log"),
            operation == "exp" or positive,
            defined,
            nonnegative and (operation != "div" or operands[1].positive),
        )
        return self._emit(Step(operation, reads, 0.0, "", *facts))

    def _emit(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1


def _positive(operation: str, operands: Sequence[Step]) -> bool:
    """Whether the result is above 0 if all operands are at least 0."""
    if operation in ("add", "max"):
        return any(o.positive for o in operands)
    if operation in ("mul", "div", "min", "ceiling", "ceiling_of_ratio", "abs"):
        return all(o.positive for o in operands)
    if operation == "pow":
        return operands[0].positive
    return operation == "select" and all(o.positive for o in operands[1:])
