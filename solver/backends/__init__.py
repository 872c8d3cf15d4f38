"""Other searches with the same meaning as the native one; each asks for its package when it is first used.

In: a `Problem`. Out: the same solutions in the same order, or the same `Infeasible`.
"""
