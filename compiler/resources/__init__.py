"""What a kernel uses of a chip, as formulas that the solver can read: shared memory, accumulators.

In: tile sizes, as whole numbers or symbols. Out: bytes or registers, as whole numbers or formulas.
"""
