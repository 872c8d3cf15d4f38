"""Calls of kernels for GPUs: from tensors to launches.

In: checked operands on one device. Out: outputs, final states and gradients.
"""
