"""What `rekern calibrate` measured on this very machine, laid over the numbers of its file.

In: a machine, and who it is. Out: the same with the measured numbers, if there are any. A damaged overlay is
ignored with one warning. An overlay is a TOML file below the cache folder, named like the machine and the
processor, so that several machines can share a home:

    name = "x86_avx512"
    processor = "AMD EPYC 9B14 (family 25 model 17), 2 cores"

    [cpu.measured]      # `rekern calibrate`, with date and compiler
    clock_hz = 3.66e9   # how it was measured
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

from rekern.hwmodels.cpu import Cpu
from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.gpu import Gpu
from rekern.hwmodels.home import cache_dir
from rekern.hwmodels.parse import check_keys
from rekern.hwmodels.schema import Machine
from rekern.hwmodels.sources import check_sources


def overlay_path(name: str, processor: str) -> Path:
    """Where the overlay of a machine is kept.

    >>> overlay_path("x86_avx512", "AMD EPYC 9B14 (family 25 model 17), 2 cores").name
    'x86_avx512-amd-epyc-9b14-family-25-model-17-2-cores.toml'
    """
    who = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(R\)|\(TM\)|\bCPU\b", "", processor).lower()).strip("-")
    return cache_dir() / "machines" / f"{name}-{who}.toml"


def measured(text: str, machine: Machine, processor: str) -> dict[str, Any]:
    """The numbers of an overlay, by key of [cpu] or [gpu].

    Raises:
        MachineError: the text is no overlay of this machine.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MachineError(str(error)) from None
    check_keys(("name", "processor", machine.kind), data, "the overlay", ("name", "processor", machine.kind))
    for key, expected in (("name", machine.name), ("processor", processor)):
        if data[key] != expected:
            raise MachineError(f"{key} = {data[key]!r}, expected {expected!r}")
    table = data[machine.kind]
    numbers = table.get("measured") if isinstance(table, dict) else None
    if not isinstance(numbers, dict) or set(table) != {"measured"}:
        raise MachineError(f"expected one table, [{machine.kind}.measured]")
    check_keys([f.name for f in dataclasses.fields(Cpu if machine.kind == "cpu" else Gpu)], numbers, "the table")
    check_sources(text)
    return numbers


def with_overlay(machine: Machine, processor: str) -> Machine:
    """The machine as it was measured, or as it is where nobody measured it."""
    path = overlay_path(machine.name, processor)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return machine
    except (OSError, UnicodeDecodeError) as error:
        return _ignored(machine, path, str(error))
    try:
        return calibrated(machine, measured(text, machine, processor))
    except MachineError as error:
        return _ignored(machine, path, str(error))


def calibrated(machine: Machine, numbers: dict[str, Any]) -> Machine:
    """The machine with other numbers.

    Raises:
        MachineError: the numbers make no machine.
    """
    if machine.cpu is not None:
        return dataclasses.replace(machine, cpu=dataclasses.replace(machine.cpu, **numbers))
    assert machine.gpu is not None
    return dataclasses.replace(machine, gpu=dataclasses.replace(machine.gpu, **numbers))


def _ignored(machine: Machine, path: Path, why: str) -> Machine:
    warnings.warn(
        f"ignored the calibration in {path}: {why}\nrun `rekern calibrate` again, or delete the file",
        stacklevel=2,
    )
    return machine
