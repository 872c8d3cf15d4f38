"""Kernels that fit: the compiler is asked, because no formula knows all that it holds in registers.

In: sizes in order of cost, a function that makes a kernel of sizes. Out: the first kernel that neither spills nor
exceeds a limit of the machine. What a compiler has said before is remembered, as by `rekern.gate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rekern.backends.compile import compile_source, toolchain_of
from rekern.backends.offline import Source
from rekern.errors import BuildError, PlanError
from rekern.gate.memory import Question, recall, store
from rekern.gate.verdicts import Accepted, Candidate, Failed, Rejected, gpu_of, judge
from rekern.hwmodels import Machine
from rekern.runtime.gpu.launches import source_of
from rekern.schedules.triton.passes import Sizes, TritonPass

MOST_TRIES = 8  # a kernel that spills takes the compiler up to ten seconds
MOST_WARPS = 16
LEAST_COLUMNS = 16  # shorter rows of a tile are less than a line of memory


@dataclass(frozen=True)
class Option:
    """Sizes of a launch, with what the solver believes that they take.

    Args:
        registers: Of a thread.
        shared_bytes: Of a block.
    """

    sizes: Sizes
    registers: float
    shared_bytes: float

    def __str__(self) -> str:
        s = self.sizes
        tile = [f"columns={s.columns}"] * (s.columns > 0) + [f"rows={s.rows}"] * (s.rows > 0)
        return ", ".join([*tile, f"warps={s.warps}", f"stages={s.stages}"])


def smaller(sizes: Sizes) -> list[Sizes]:
    """These sizes, then fewer loads in flight, then less of the tile, rows before columns, then more warps for it."""
    found = [sizes]
    while found[-1].stages > 1:
        found.append(replace(found[-1], stages=found[-1].stages // 2))
    while (last := found[-1]).rows > 1 or last.columns > LEAST_COLUMNS:
        found.append(replace(last, rows=last.rows // 2) if last.rows > 1 else replace(last, columns=last.columns // 2))
    while found[-1].warps < MOST_WARPS:
        found.append(replace(found[-1], warps=found[-1].warps * 2))
    return found


def first_that_fits(
    what: str, options: Sequence[Option], make: Callable[[Sizes], TritonPass], machine: Machine, needs: str
) -> TritonPass:
    """The first kernel that fits; options that take no less of what was short are left out.

    Args:
        what: The kernel in words, for the message.
        needs: What to do if there is none.

    Raises:
        PlanError: none of them fits; the text has what was tried.
        BuildError: none of them compiles.
    """
    left, told, failed = list(options), list[str](), list[str]()
    while left and len(told) < MOST_TRIES:
        option = left[0]
        view = make(option.sizes)
        verdict = ask(source_of(view), machine)
        if isinstance(verdict, Accepted):
            return view
        told.append(f"    {option}: {verdict}")
        if isinstance(verdict, Failed):
            failed.append(verdict.message)
        left = _lighter(option, left[1:], verdict)
    if failed and len(failed) == len(told):
        raise BuildError(failed[0])
    raise PlanError("\n".join([f"no sizes fit: {what}", *told, f"try: {needs}"]))


def _lighter(tried: Option, left: Sequence[Option], verdict: Rejected | Failed) -> list[Option]:
    """Options that take less of what was short, in order of cost; loads in flight are given up last, half at a time."""
    fewer = [o for o in left if o.sizes.stages <= tried.sizes.stages // 2]
    if isinstance(verdict, Failed):
        return [o for o in left if o.registers < tried.registers]
    short = {reason.limit for reason in verdict.reasons}
    if "shared_memory" in short:
        left = [o for o in left if o.shared_bytes < tried.shared_bytes]
    if short - {"shared_memory"}:
        left = [o for o in left if o.registers < tried.registers] or [
            o for o in fewer if o.registers == tried.registers and o in left
        ]
    return list(left)


def ask(source: Source, machine: Machine) -> Accepted | Rejected | Failed:
    """What the compiler says of a kernel for `machine`, in this process or in an earlier one."""
    architecture = gpu_of(machine).architecture
    question = Question(source, architecture, toolchain_of(source, architecture), disassemble=False)
    found = recall(question)
    remembered = found is not None
    if found is None:
        try:
            found = compile_source(source, architecture, disassemble=False).resources
        except BuildError as error:
            found = str(error)
        store(question, found)
    if isinstance(found, str):
        return Failed(found, remembered)
    return judge(Candidate(source, matrix_units=False), found, machine, remembered)
