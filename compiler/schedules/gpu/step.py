"""Schedule `step`: one token, the state updated in place. It is part of every plan.

In: a `Call`. Out: its `Design`.
"""

from __future__ import annotations

from rekern.schedules.gpu import dense, time_loop
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import Design


def design(call: Call) -> Design:
    """The sizes of the kernel for one token."""
    return dense.step(call) if call.is_dense else time_loop.step(call)
