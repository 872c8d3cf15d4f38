"""Calibrates this machine and keeps the numbers where `rekern.hwmodels.detect()` finds them.

In: what to measure and for how long. Out: a `Calibration`; `save` writes its overlay, all of it or nothing.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rekern.backends.cpp import toolchain
from rekern.calibrate import cpu as on_cpu
from rekern.calibrate.measurement import Measurement, host_timer, take_turns
from rekern.errors import RekernError
from rekern.hwmodels import Machine, detect
from rekern.hwmodels.detect import at_hand
from rekern.hwmodels.overlay import calibrated, overlay_path


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured.

    Args:
        machine: As its file says.
        tools: Compiler or library that the numbers depend on.
        when: In UTC.
    """

    machine: Machine
    processor: str
    measurements: tuple[Measurement, ...]
    rounds: int
    tools: str
    when: datetime

    @property
    def numbers(self) -> dict[str, float]:
        """Those that the overlay has, by key."""
        return {m.key: float(f"{m.median:.4g}") for m in self.measurements if m.stored}

    @property
    def path(self) -> Path:
        return overlay_path(self.machine.name, self.processor)

    def __str__(self) -> str:
        """The overlay."""
        how = {m.key: f"{m.how}; half of the rounds: {m.low:.4g} to {m.high:.4g}" for m in self.measurements}
        source = f"`rekern calibrate`, {self.when:%Y-%m-%d %H:%M} UTC, {self.rounds} rounds, {self.tools}"
        return "\n".join(
            (
                f"name = {_quoted(self.machine.name)}",
                f"processor = {_quoted(self.processor)}",
                "",
                f"[{self.machine.kind}.measured]    # {source}",
                *(f"{key} = {value:g}    # {how[key]}" for key, value in self.numbers.items()),
                "",
            )
        )


def calibrate(kind: Literal["cpu", "gpu"] = "cpu", seconds: float = 30.0) -> Calibration:
    """Measure the CPU, or the first GPU.

    Args:
        seconds: For the rounds; building the loops comes on top, once.

    Raises:
        BuildError: the C++ compiler is missing or fails.
        MachineError: no file fits the machine, or there is no GPU.
    """
    found = at_hand(kind)
    cpu, gpu = found.machine.cpu, found.machine.gpu
    if cpu is not None:
        samples = take_turns(on_cpu.jobs(cpu), host_timer, seconds)
        measured, tools = on_cpu.measurements(cpu, samples), str(toolchain())
    else:
        import torch

        from rekern.calibrate import gpu as on_gpu

        assert gpu is not None
        samples = take_turns(on_gpu.jobs(gpu), on_gpu.device_timer(), seconds)
        measured, tools = on_gpu.measurements(gpu, samples), f"torch {torch.__version__}"
    rounds = len(next(iter(samples.values())))
    return Calibration(found.machine, found.processor, measured, rounds, tools, datetime.now(UTC))


def save(calibration: Calibration) -> Path:
    """Write the overlay; `detect()` has its numbers from then on.

    Raises:
        MachineError: the numbers make no machine; nothing is written.
        RekernError: the folder cannot be written.
    """
    calibrated(calibration.machine, dict(calibration.numbers))
    path = calibration.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(str(calibration))
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RekernError(
            f"cannot keep the calibration in {path.parent}: {error.strerror}\n"
            "set REKERN_CACHE_DIR to a folder that can be written"
        ) from error
    detect.cache_clear()
    return path


def _quoted(text: str) -> str:
    """As a TOML string.

    >>> print(_quoted('a "b"'))
    "a \\"b\\""
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
