"""rekern compiles a recurrence, written as in the paper, into fast kernels: forward, gradient, one-token step."""
