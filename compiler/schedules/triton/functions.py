"""The functions of the language that Triton does not have: `templates/triton/functions.j2` defines them.

In: names that formulas use. Out: all names that a kernel has to define.
"""

from __future__ import annotations

from collections.abc import Mapping

# The functions of the language that Triton does not have, with those that they call.
FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": (), "tanh": (), "log_sigmoid": ("log1p",), "softplus": ("log1p",), "silu": (), "gelu": (),
    "relu": (), "square": (), "sign": (), "expm1": (), "log1p": (), "logaddexp": ("log1p",),
}  # fmt: skip


def closure(functions: set[str]) -> set[str]:
    """`functions` and those that they call."""
    return functions | {other for name in functions for other in FUNCTIONS[name]}
