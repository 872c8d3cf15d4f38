"""The gate: kernels compiled for a named machine that need not be there, and judged by what they take.

In: candidates in order of rank, and a machine. Out: a verdict on each. `gate` is in `gate.run`.
"""
