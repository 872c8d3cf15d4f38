"""What is known of a recurrence before any target is chosen: each question is one function of one file.

stages: which states need which. kinds: affine, max-plus, pointwise or dense. affine: an affine update as a
`transition`. logs: the logarithm of a decay. bounds: the range of a formula. readout: how outputs read states.
counts: operations and bytes. facts: all of these, as one value.
"""
