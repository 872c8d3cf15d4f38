"""The search by CP-SAT of Google's OR-Tools.

In: a `Problem`. Out: the same as the native search.

Limits become integer constraints, or tables of the rows that they allow. The cost, which is real, becomes an
integer in fixed point with a known error (`scaled`). CP-SAT minimises that integer, lists every point within the
error of the minimum, and the native programs judge those; then it goes on above, until no point that is left can
be among the best. So the result is exact, ties included, whatever the fixed point rounds. That was chosen before
a list of all feasible points, which is as exact and takes as long as there are points, and before an objective alone,
which can only break ties as it rounds. There is one worker, so that a solve repeats itself.
"""

from __future__ import annotations

import math
from fractions import Fraction

from rekern.solver.backends.missing import missing, nothing_found

try:
    from ortools.sat.python import cp_model
except ModuleNotFoundError as error:
    raise missing("cpsat", "ortools", error) from None

from rekern.solver.backends.integers import LARGEST, NotWhole, Ratio, Translator, Whole
from rekern.solver.backends.ranking import Ranking
from rekern.solver.backends.scaled import Scaled, Scaler, allow, too_wide
from rekern.solver.backends.table import hopeless, rows
from rekern.solver.clock import Clock
from rekern.solver.conflict import explain
from rekern.solver.points import ROUNDING
from rekern.solver.problem import Limit, Problem, Variable, programs
from rekern.solver.solution import Solution

FEW_POINTS = 2000       # a limit on variables with at most so many points is best a table
WIDER = 4               # each listing above the first goes so many times as far as the one before
TIE = 2.0**-38          # relative; more than what ranks may be rounded by


def solve(problem: Problem, top: int, deadline: float | None) -> tuple[Solution, ...]:
    """The `top` best solutions, best first.

    Args:
        deadline: Seconds from now.

    Raises:
        Infeasible: no choice meets all limits.
        OutOfTime: nothing was found before the deadline.
        SolverError: a formula can neither be stated in integers nor as a table.
    """
    clock = Clock(deadline)
    if hopeless(problem):
        raise explain(problem, clock)
    search = _Search(problem, top, clock)
    unproven = search.run()
    ranking = search.ranking
    ranking.judge()
    if ranking.best:
        return ranking.solutions(unproven)
    if unproven is None:
        raise explain(problem, clock)
    raise nothing_found(problem, "cpsat", deadline)


class _Search:
    def __init__(self, problem: Problem, top: int, clock: Clock) -> None:
        self.problem, self.clock = problem, clock
        self.ranking = Ranking(problem, top)
        self.model = cp_model.CpModel()
        self.variables = {v.name: _variable(self.model, v) for v in problem.variables}
        self.translator = Translator(self.model, self.variables)
        for at, limit in enumerate(problem.limits):
            if limit.reads:
                self._state(at, limit)
        scaler = Scaler(problem, self.model, self.translator)
        self.cost: Scaled = scaler.total([scaler.formula(term) for term in problem.cost.values()])

    def run(self) -> float | None:
        """Offer points to the ranking until they are known to be the best.

        Returns:
            None; or if the deadline comes first, seconds that any other point costs at least.
        """
        cost = self.cost
        low, width = cost.whole.low, 2 * cost.error
        while True:
            solver = self._solver()
            model = self.model.clone()
            model.add(cost.whole.expr >= low)
            model.minimize(cost.whole.expr)
            status = solver.solve(model)
            if status == cp_model.INFEASIBLE:
                return None
            if status == cp_model.FEASIBLE:
                self.ranking.offer(self._point(solver))
            if status != cp_model.OPTIMAL:
                low = max(low, math.ceil(solver.best_objective_bound)) if status == cp_model.FEASIBLE else low
                return self._at_least(low)
            least = round(solver.objective_value)
            self.ranking.judge()
            if self._done(least):
                return None
            if not self._list(least, least + width):
                return self._at_least(least)
            low, width = least + width + 1, WIDER * (width + 1)
            self.ranking.judge()
            if self._done(low):
                return None

    def _at_least(self, low: int) -> float:
        """What a point costs at least whose cost in fixed point is `low` or more."""
        return math.ldexp(low - self.cost.error, -self.cost.bits)

    def _done(self, low: int) -> bool:
        worst = self.ranking.worst
        return self._at_least(low) > worst + abs(worst) * TIE

    def _list(self, low: int, high: int) -> bool:
        """Offer every point with a cost in this range; False: the deadline came first."""
        solver = self._solver()
        solver.parameters.enumerate_all_solutions = True
        model = self.model.clone()
        model.add_linear_constraint(self.cost.whole.expr, low, high)
        status = solver.solve(model, _Each(self))
        return bool(status in (cp_model.OPTIMAL, cp_model.INFEASIBLE))

    def _solver(self) -> cp_model.CpSolver:
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        if math.isfinite(self.clock.left):
            solver.parameters.max_time_in_seconds = self.clock.left
        return solver

    def _point(self, found: cp_model.CpSolver | cp_model.CpSolverSolutionCallback) -> tuple[int, ...]:
        return tuple(found.value(whole.expr) for whole in self.variables.values())

    # -- limits ----------------------------------------------------------------------------------------------

    def _state(self, at: int, limit: Limit) -> None:
        """Add a limit: at least what the native programs allow, and no more but for rounding."""
        points = math.prod(len(v.values()) for v in self.problem.variables if v.name in limit.reads)
        if points > FEW_POINTS:
            try:
                return self._compare(limit, self.translator.formula(programs(self.problem)[0].part([at])))
            except NotWhole:
                pass
        found = rows(self.problem, limit.reads)
        if found is None:
            raise too_wide(self.problem, limit.expression)
        allow(self.model, self.translator, found)

    def _compare(self, limit: Limit, value: Ratio) -> None:
        sign = 1 if limit.at_least is None else -1
        bound = sign * Fraction(limit.bound)
        top = Whole(sign * value.top.expr, *sorted((sign * value.top.low, sign * value.top.high)))
        if value.under.one:
            high = math.floor(bound + Fraction(ROUNDING) * abs(bound))
            self.model.add(top.expr <= max(min(high, LARGEST), -LARGEST))
            return
        left = max(abs(top.low), abs(top.high)) * bound.denominator
        right = value.under.high * abs(bound.numerator)
        if max(left, right) > LARGEST:
            raise NotWhole
        by_rounding = int(4 * ROUNDING * max(left, right))
        self.model.add(
            top.expr * bound.denominator <= value.under.expr * bound.numerator + by_rounding
        )


class _Each(cp_model.CpSolverSolutionCallback):
    def __init__(self, search: _Search) -> None:
        super().__init__()
        self.search = search

    def on_solution_callback(self) -> None:
        """Called by CP-SAT for each point."""
        self.search.ranking.offer(self.search._point(self))


def _variable(model: cp_model.CpModel, variable: Variable) -> Whole:
    values = variable.values()
    if isinstance(values, range):
        count = model.new_int_var(0, len(values) - 1, variable.name)
        return Whole(values.start + values.step * count, values[0], values[-1])
    domain = cp_model.Domain.from_values(list(values))
    return Whole(model.new_int_var_from_domain(domain, variable.name), min(values), max(values))
