"""Templates of Triton kernels for GPUs."""
