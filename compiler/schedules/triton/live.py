"""What a block holds at once: tensors that are alive together, counted in the text of a kernel.

In: a `TritonPass`. Out: how many tensors of each shape there are at every line of its loops where they are most.
A tensor lives from the line that defines it to the last that reads it; states live from step to step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rekern.schedules.gpu.work import power_of_two
from rekern.schedules.programs import programs as programs_of
from rekern.schedules.triton.backward import backward_pass
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.order import ASSIGNED, WORD
from rekern.schedules.triton.passes import Sizes, TritonPass, Variant
from rekern.spec import Recurrence

Shape = tuple[str, ...]


@dataclass(frozen=True)
class Held:
    """What a block of one pass holds.

    Args:
        most: Tensors of each shape, at lines where no other line has more of all.
        loads: Tensors that a step loads of each sequence of a block.
    """

    most: tuple[Counter[Shape], ...]
    loads: int


@lru_cache(maxsize=256)
def held(spec: Recurrence, lengths: tuple[tuple[str, int], ...], backward: bool) -> Held:
    """Of the pass that records, or of the gradient. `lengths` do not matter for the count; a text is made of them."""
    programs = programs_of(spec)
    lane = programs.lane
    columns = power_of_two(dict(lengths)[lane]) if lane else 0
    sizes = Sizes(lengths, columns, 16 if programs.rows else 0, 4, 1)
    view = (
        backward_pass(programs, sizes, Variant()) if backward else forward_pass(programs, sizes, Variant(), True)
    )
    rows = [n for line in view.walk if " = tl.load(" in line for n in _defined([line])]
    return Held(_largest(alive(view)), sum("rows" in view.shapes.get(n, ()) for n in rows))


def alive(view: TritonPass) -> list[Counter[Shape]]:
    """The tensors at each line of the loops of a kernel."""
    outside = {n for part in ("params", "states") for n in _defined(view.lines[part])}
    found: list[Counter[Shape]] = []
    for body in (view.walk, view.again) if view.blocks else (view.walk,):
        of_block = _defined(view.lines["block_states"]) if body is view.again else set()
        found += _alive_in(body, outside | of_block, view.shapes)
    return found


def _defined(lines: Sequence[str]) -> set[str]:
    return {m[1] for line in lines if (m := ASSIGNED.match(line))}


def _alive_in(body: Sequence[str], outside: set[str], shapes: Mapping[str, Shape]) -> list[Counter[Shape]]:
    """After each line of a loop: what has been defined and is read later, in this step or the next one."""
    reads = [{w for w in WORD.findall(line.split(" = ", 1)[-1]) if w in shapes} for line in body]
    defined = [m[1] if (m := ASSIGNED.match(line)) and m[1] in shapes else None for line in body]
    # What lives on after the loop: states, and what was there before and is not defined again.
    now = {n for n in outside if n in shapes}
    found: list[Counter[Shape]] = []
    for read, name in zip(reversed(reads), reversed(defined), strict=True):
        found.append(Counter(shapes[n] for n in now))
        now = (now - {name} if name else now) | read
    return found


def _largest(counts: list[Counter[Shape]]) -> tuple[Counter[Shape], ...]:
    """Without those of which another has as many of every shape."""
    kept: list[Counter[Shape]] = []
    for count in counts:
        if not any(count <= other for other in kept):
            kept = [other for other in kept if not other <= count] + [count]
    return tuple(kept)
