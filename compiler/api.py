"""The public entry: from a recurrence to a kernel.

In: a `Recurrence`. Out: a `Kernel`.
"""

from __future__ import annotations

from rekern.errors import PlanError
from rekern.runtime.kernel import Kernel
from rekern.spec import Recurrence

_kernels: dict[str, Kernel] = {}


def compile(spec: Recurrence, target: str = "auto", *, check_facts: bool = False) -> Kernel:
    """Compile `spec`.

    Two specs of one meaning share a kernel. Nothing is built before the first call.

    Args:
        target: "auto" or "cpu".
        check_facts: Compare the values of every call with the facts that the spec declares (`at_most`, `at_least`,
            `unit_norm`), at the price of reading the operands once more.

    Raises:
        SpecError: the body of the spec cannot be read.
        PlanError: there is no such target.
    """
    if not isinstance(spec, Recurrence):
        raise PlanError(
            f"compile takes a recurrence, not {spec!r}; decorate the function with @rekern.recurrence"
        )
    if target not in ("auto", "cpu"):
        raise PlanError(f"there is no target {target!r}; expected 'auto' or 'cpu'")
    key = f"{spec.name}-{spec.meaning}" + ("-checked" if check_facts else "")
    if key not in _kernels:
        _kernels[key] = Kernel(spec, check_facts)
    return _kernels[key]
