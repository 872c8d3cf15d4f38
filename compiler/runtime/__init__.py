"""Runtime: kernels as callables, their gradients, and their registration with PyTorch."""
