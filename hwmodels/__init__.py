"""Machines: one TOML file each, the schema they are read by, and which of them this one is.

In: a name, a path or the host. Out: a `Machine`. Nothing here knows what a recurrence is.
"""

from rekern.hwmodels.cpu import Cpu, Level
from rekern.hwmodels.detect import detect, detect_gpus
from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.files import load, names
from rekern.hwmodels.gpu import Gpu
from rekern.hwmodels.schema import Machine

__all__ = ["Cpu", "Gpu", "Level", "Machine", "MachineError", "detect", "detect_gpus", "load", "names"]
