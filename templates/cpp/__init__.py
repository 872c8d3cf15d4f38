"""Templates of C++ kernels for CPUs."""
