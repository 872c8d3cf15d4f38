"""What is known of a recurrence before any target is chosen: each question is one function of one file.

stages: which states need which. kinds: affine, max-plus, pointwise or dense. affine: the `transition` of an
affine state. logs: the logarithm of a decay. bounds: the range of a formula. readout: how outputs read
states. counts: operations and bytes. facts: all of it, as one value.
"""
