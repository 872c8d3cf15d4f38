"""The public entry: from a recurrence to a kernel.

In: a `Recurrence`, a target. Out: a `Kernel`, or a `GpuKernel` for a GPU that was named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from rekern.errors import PlanError
from rekern.hwmodels import Machine, MachineError, load
from rekern.runtime.kernel import Kernel
from rekern.spec import Recurrence

if TYPE_CHECKING:
    from rekern.runtime.gpu.kernel import GpuKernel

_kernels: dict[str, Kernel | GpuKernel] = {}


@overload
def compile(spec: Recurrence, target: Literal["auto", "cpu"] = "auto", *, check_facts: bool = False) -> Kernel: ...
@overload
def compile(spec: Recurrence, target: str, *, check_facts: bool = False) -> Kernel | GpuKernel: ...
def compile(spec: Recurrence, target: str = "auto", *, check_facts: bool = False) -> Kernel | GpuKernel:
    """Compile `spec`.

    Two specs of one meaning share a kernel. Nothing is built before the first call.

    Args:
        target: "auto": where the tensors of a call are, on the CPU or on a GPU; "cpu"; or a GPU by its name in
            `rekern hw ls` or by the path of a machine file. It need not be there for its kernels to be seen.
        check_facts: Compare the values of every call with the facts that the spec declares (`at_most`, `at_least`,
            `unit_norm`), at the price of reading the operands once more.

    Raises:
        SpecError: the body of the spec cannot be read.
        PlanError: there is no such target.
    """
    if not isinstance(spec, Recurrence):
        raise PlanError(f"compile takes a recurrence, not {spec!r}; decorate the function with @rekern.recurrence")
    key = f"{spec.name}-{spec.meaning}-{target}" + ("-checked" if check_facts else "")
    if key not in _kernels:
        if target in ("auto", "cpu"):
            _kernels[key] = Kernel(spec, check_facts, any_device=target == "auto")
        else:
            from rekern.runtime.gpu.kernel import GpuKernel  # with the solver, which imports numpy

            _kernels[key] = GpuKernel(spec, _gpu(target), check_facts)
    return _kernels[key]


def _gpu(target: str) -> Machine:
    try:
        machine = load(target)
    except MachineError as error:
        raise PlanError(f"there is no target {target!r}; expected 'auto', 'cpu' or a GPU\n{error}") from error
    if machine.gpu is None:
        raise PlanError(f"target {machine.name} is a {machine.kind}, expected a GPU; for the CPU at hand: 'cpu'")
    return machine
