"""Kernels in Triton: what a launch computes, as lines for a template.

In: `Programs`, sizes that the solver has chosen, a `Variant`. Out: a `Launch` view, which `render_triton` prints.
"""
