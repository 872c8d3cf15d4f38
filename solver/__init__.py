"""Solver: integer variables, limits on them, a cost; and the search for the cheapest choice.

In: a `Problem`. Out: `solve` gives the best `Solution`, or `Infeasible` says which limits exclude each other.
It knows nothing of hardware or of recurrences.
"""

from rekern.solver.errors import OutOfTime, SolverError
from rekern.solver.infeasible import Conflict, Infeasible
from rekern.solver.limit import Limit
from rekern.solver.problem import Problem
from rekern.solver.rejections import Rejections, rejections
from rekern.solver.search import evaluate, solve
from rekern.solver.solution import Slack, Solution
from rekern.solver.variable import Variable

__all__ = [
    "Conflict",
    "Infeasible",
    "Limit",
    "OutOfTime",
    "Problem",
    "Rejections",
    "Slack",
    "Solution",
    "SolverError",
    "Variable",
    "evaluate",
    "rejections",
    "solve",
]
