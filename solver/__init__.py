"""Solver: integer variables, limits on them, a cost; and the search for the cheapest choice.

In: a `Problem`. Out: `solve` gives the best `Solution`, or `Infeasible` says which limits exclude each other.
It knows nothing of hardware or of recurrences.
"""

from rekern.solver.errors import SolverError
from rekern.solver.infeasible import Conflict, Infeasible
from rekern.solver.problem import Limit, Problem, Variable
from rekern.solver.search import evaluate, solve
from rekern.solver.solution import Slack, Solution

__all__ = [
    "Conflict",
    "Infeasible",
    "Limit",
    "Problem",
    "Slack",
    "Solution",
    "SolverError",
    "Variable",
    "evaluate",
    "solve",
]
