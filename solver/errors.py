"""The base of what the solver raises on purpose; `infeasible.Infeasible` is the other.

In: what is wrong with a problem. Out: a message that quotes it and says what was expected.
"""


class SolverError(Exception):
    """A problem is stated wrongly, cannot be evaluated, or is too large for the search."""
