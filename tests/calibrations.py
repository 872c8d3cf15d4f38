"""Calibrations that were never measured."""

from datetime import UTC, datetime

from rekern.calibrate.measurement import measurement
from rekern.calibrate.overlay import Calibration
from rekern.hwmodels import Machine

WHO = 'A "quoted" core, 2 cores'


def calibration(machine: Machine, **numbers: float) -> Calibration:
    made = tuple(measurement(key, "", [value] * 3, f"made up, {key}") for key, value in numbers.items())
    return Calibration(machine, WHO, made, 3, "g++ 99", datetime(2026, 11, 21, 9, 5, tzinfo=UTC))
