"""One door to the compilers of GPUs.

In: a source and an architecture. Out: a `Compiled`, or the name of the toolchain that would make it.
"""

from __future__ import annotations

from typing import assert_never

from rekern.backends import cuda, triton
from rekern.backends.offline import Compiled, CudaSource, Source, TritonSource


def compile_source(source: Source, architecture: str, disassemble: bool = True) -> Compiled:
    """Compile with the compiler of the source's language.

    Raises:
        BuildError: the compiler is missing or says no.
    """
    match source:
        case TritonSource():
            return triton.compile_triton(source, architecture, disassemble=disassemble)
        case CudaSource():
            return cuda.compile_cuda(source, architecture, disassemble=disassemble)
        case _:
            assert_never(source)


def toolchain_of(source: Source, architecture: str) -> str:
    """The programs that `compile_source` would use, with their versions.

    Raises:
        BuildError: one is missing.
    """
    match source:
        case TritonSource():
            return triton.toolchain(architecture)
        case CudaSource():
            return cuda.toolchain()
        case _:
            assert_never(source)
