"""Triton kernels that can be launched, on the GPU at hand or in Triton's interpreter.

In: a `TritonSource`. Out: a function of a grid and arguments. Compiled kernels are launched past Triton's own dispatch,
which looks at the value of every argument at every call: what a kernel may assume of them is in its source.
"""

from __future__ import annotations

import importlib.util
import linecache
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

from rekern.backends.offline import TritonSource
from rekern.backends.triton import check_version, launchable
from rekern.digests import digest_of
from rekern.errors import BuildError

Launcher = Callable[[int, Sequence[Any]], None]
INTERPRETER = "TRITON_INTERPRET"  # Triton's own switch


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get(INTERPRETER, "0") == "1"


@lru_cache(maxsize=256)
def launcher(source: TritonSource, device: int) -> Launcher:
    """The kernel as a function of the number of programs and of its arguments.

    Raises:
        BuildError: Triton is missing, too old or too new, or the kernel does not compile.
    """
    if interpreted():
        return _in_interpreter(source)
    with torch.cuda.device(device):
        return launchable(source, device)


def _in_interpreter(source: TritonSource) -> Launcher:
    try:
        from triton.runtime.interpreter import InterpretedFunction
    except ImportError as error:
        raise BuildError(f"triton cannot be imported: {error}\ninstall it: pip install triton (Linux only)") from error
    check_version()
    function = module_of(source)[source.name]
    if not isinstance(function, InterpretedFunction):
        raise BuildError(f"{INTERPRETER}=1 has to be set before triton is imported")

    def launch(programs: int, arguments: Sequence[Any]) -> None:
        function[(programs,)](*arguments)

    return launch


def module_of(source: TritonSource) -> dict[str, Any]:
    """The names that the text of a kernel defines. Triton reads the text of functions, so it has to be found."""
    name = f"<rekern {source.name} {digest_of(source.text)}>"
    linecache.cache[name] = (len(source.text), None, source.text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": f"rekern_kernel_{digest_of(source.text)}", "__file__": name}
    exec(compile(source.text, name, "exec"), names)
    return names


def available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None
