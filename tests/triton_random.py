"""Random recurrences in Triton's interpreter, drawn where they run: made-up specs cannot be sent to a process."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from kernel_checks import close, draw, errors, exact, run
from random_specs import random_specs
from rekern.spec import Recurrence
from triton_interpreter import kernel_of

LENGTHS = [1, 3, 5, 17]
CALLS = {
    "plain": {},
    "reversed": {"reverse": True},
    "packed": {"cu_seqlens": torch.tensor([0, 2, 2, 5])},
    "reset": {"reset": torch.tensor([[False, False, True, True, False]])},
}


@settings(
    max_examples=5 if settings.default and settings.default.derandomize else 100,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
    deadline=None,
    derandomize=True,
)
@given(spec=random_specs(), data=st.data())
def check(spec: Recurrence, data: st.DataObject) -> None:
    """A random spec, called in a random way, agrees with its equations."""
    note(spec.doc)
    sizes = {axis: data.draw(st.sampled_from(LENGTHS), label=axis) for axis in "DKV"}
    call = data.draw(st.sampled_from(list(CALLS)), label="call")
    operands, state = draw(spec, batch=1, time=5, sequences=3 if call == "packed" else None, sizes=sizes)
    expected = run(None, spec, exact(operands), exact(state), **CALLS[call])
    assume(all(t.isfinite().all() for _, t in expected.items()))
    plain = run(None, spec, operands, state, dtype=None, **CALLS[call])
    assume(max(errors(plain, expected).values()) < 1e-6)  # numbers on which float32 loses much say nothing
    close(run(kernel_of(spec), spec, operands, state, **CALLS[call]), expected, 1e-5, 5e-5)


def check_many() -> None:
    """`check`, under a name that can be sent to another process."""
    check()
