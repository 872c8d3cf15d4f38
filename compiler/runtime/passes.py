"""The passes of a spec as a call needs them: a library, and the tensors that it takes in order.

In: `Programs` and sizes. Out: a `BuiltPass`. What a pass takes is remembered under all that it and its source depend
on, with the name of the library, so that the next process neither derives a gradient nor prints a source to find it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rekern.backends.cpp import Source, builders, library_name, load, processor, start_objects, stored, toolchain
from rekern.digests import digest_of, digest_of_files
from rekern.entries import path_of, read_entry, warn_damaged, write_entry
from rekern.loops.program import Place
from rekern.render import headers_for, render
from rekern.schedules.passes import CpuSizes, Pass, PassName, Slot
from rekern.schedules.programs import Programs
from rekern.schedules.time_loop import backward_pass, forward_pass
from rekern.settings import Settings

SCHEMA = 2
GENERATOR = ("analysis", "backends", "loops", "printers", "runtime", "schedules")  # beside what stands above them


SavedRow = tuple[Place, tuple[str, ...]]


@dataclass(frozen=True)
class Interface:
    """What a pass takes.

    weights: Which of the slots are weights that are laid out for products.
    saved: The rows that a streamed forward pass keeps for its gradient, each with its axes.
    vectors: Those that a gradient writes down for itself, each with its axis.
    """

    slots: tuple[Slot, ...]
    weights: tuple[int, ...] = ()
    saved: tuple[SavedRow, ...] = ()
    vectors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class BuiltPass:
    """A pass that can be called. `rows`: whether a task takes several sequences; `axes`: the lengths it is given."""

    interface: Interface
    rows: bool
    axes: tuple[str, ...]
    library: ctypes.CDLL


def view(programs: Programs, sizes: CpuSizes, name: PassName) -> Pass:
    """The pass `name` as its template sees it."""
    return backward_pass(programs, sizes) if name == "backward" else forward_pass(programs, sizes, name)


def source_of(programs: Programs, sizes: CpuSizes, seen: Pass) -> Source:
    """The C++ of a pass."""
    return Source(f"{programs.spec.name} {seen.name}", render(seen), headers_for(sizes))


SHARED = '#include "arrays.h"\n'  # the headers by which passes are linked with objects
SHARED_BY_ROWS = SHARED + '#include "panels.h"\n#include "outer.h"\n'


def find(programs: Programs, sizes: CpuSizes, name: PassName) -> Future[BuiltPass]:
    """The pass `name`, built in the background where it is not there yet.

    Raises:
        BuildError: there is no compiler. That it fails is known when the result is asked for.
    """
    folder, key = Settings.read().cache_dir / "passes", _key(programs, sizes, name)
    entry = read_entry(folder, key, "pass")
    if entry is not None:
        try:
            interface, library = from_json(entry), stored(entry["library"])
        except (KeyError, TypeError, ValueError):
            warn_damaged(path_of(folder, key), "pass")
        else:
            if library is not None:
                found: Future[BuiltPass] = Future()
                found.set_result(_built(programs, interface, library))
                return found
    # What all kernels share depends on no formula, and takes longer to compile than most kernels.
    start_objects(Source(name, SHARED_BY_ROWS if programs.rows else SHARED, headers_for(sizes)))
    # Formulas are shared between passes, so they are worked on by one thread; compilers run beside it.
    seen = view(programs, sizes, name)
    source = source_of(programs, sizes, seen)
    made = interface_of(programs, seen)

    def build() -> BuiltPass:
        library = load(source)
        write_entry(folder, key, {**to_json(made), "library": library_name(source)})
        return _built(programs, made, library)

    return builders().submit(build)


def _built(programs: Programs, interface: Interface, library: ctypes.CDLL) -> BuiltPass:
    return BuiltPass(interface, programs.rows, programs.spec.axes, library)


def interface_of(programs: Programs, seen: Pass) -> Interface:
    """What a pass takes, read off its view."""
    weights = tuple(dict.fromkeys(source.slot for p in seen.packed for source in p.sources))
    if seen.name in ("forward", "step"):
        return Interface(seen.slots, weights)
    saved = tuple((place, tuple(i.dim for i in axes)) for place, axes in programs.saved.items())
    if seen.name == "recording":
        return Interface(seen.slots, weights, saved)
    _, vectors = programs.weight_terms
    return Interface(seen.slots, weights, saved, tuple((name, index.dim) for name, (index, _) in vectors.items()))


def to_json(interface: Interface) -> dict[str, object]:
    """An interface as lists of words and numbers."""
    return {
        "slots": [[s.use, s.operand, list(s.cell)] for s in interface.slots],
        "weights": list(interface.weights),
        "saved": [[name, list(cell), list(axes)] for (name, cell), axes in interface.saved],
        "vectors": [list(pair) for pair in interface.vectors],
    }


def from_json(entry: Mapping[str, Any]) -> Interface:
    """The way back.

    Raises:
        KeyError, TypeError, ValueError: the entry does not hold an interface.
    """
    return Interface(
        tuple(Slot(use, operand, tuple(cell)) for use, operand, cell in entry["slots"]),
        tuple(int(slot) for slot in entry["weights"]),
        tuple(((name, tuple(cell)), tuple(axes)) for name, cell, axes in entry["saved"]),
        tuple((name, axis) for name, axis in entry["vectors"]),
    )


def _key(programs: Programs, sizes: CpuSizes, name: PassName) -> dict[str, object]:
    """All that the source of a pass depends on, what it takes, and what is made of it."""
    tools = toolchain()
    return {
        "schema": SCHEMA,
        "generator": generator(),
        "spec": programs.spec.name,
        "meaning": programs.spec.meaning,
        "pass": name,
        "sizes": str(sizes),
        "toolchain": digest_of(tools.version, *tools.flags, processor()),
    }


@cache
def generator() -> str:
    """A digest of the code and the templates that sources come from: another version of them makes other sources."""
    return digest_of_files(generator_files())


def generator_files() -> list[Path]:
    """Every file that a source may depend on."""
    root = Path(__file__).parent.parent
    spec = find_spec("rekern.templates")    # found, not imported
    templates = map(Path, (spec.submodule_search_locations or ()) if spec else ())
    code = [*root.glob("*.py"), *(p for folder in GENERATOR for p in (root / folder).rglob("*.py"))]
    return sorted([*code, *(p for folder in templates for p in (folder / "cpp").glob("*.j2"))])
