"""rekern compiles a recurrence, written as in the paper, into fast kernels: forward, gradient, one step.

In: a function of one step, decorated with `recurrence`. Out: `compile(spec)`, a kernel on torch tensors.
"""

from importlib.metadata import PackageNotFoundError, version

from rekern import zoo
from rekern.api import compile
from rekern.errors import RekernError
from rekern.reference import reference
from rekern.runtime.kernel import Kernel
from rekern.spec import Input, Param, Recurrence, Scalar, State, recurrence

try:
    __version__ = version("rekern")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0.0.0"

__all__ = [
    "Input", "Kernel", "Param", "Recurrence", "RekernError", "Scalar", "State",
    "compile", "recurrence", "reference", "zoo",
]  # fmt: skip
