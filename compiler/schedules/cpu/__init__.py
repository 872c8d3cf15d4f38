"""Sizes of CPU kernels: what is compiled in, and how a call is shared out."""
