"""Kernels as text that compilers of other machines can be asked about, and what those compilers answer.

In: the text of a kernel and all that a compiler is told. Out: frozen values, of which those that cross a process
go as JSON. Compiling itself is in `backends.triton` and `backends.cuda`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rekern.digests import digest_of

Constant = int | float | bool | str


@dataclass(frozen=True)
class TritonSource:
    """A Triton kernel: a module's text, and what its arguments are.

    Args:
        text: Of a Python module that defines the kernel; what it imports is not part of its identity.
        name: Of the kernel in that module.
        arguments: Names and types as Triton spells them ("*bf16", "i32"), those of `constants` left out.
        constants: The kernel's `tl.constexpr` arguments.
        aligned: Arguments that are multiples of 16 (for pointers: in bytes).
        warps: Warps of a block.
        stages: Buffers of a pipelined loop, as `num_stages` counts them.
    """

    text: str
    name: str
    arguments: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Constant], ...] = ()
    aligned: tuple[str, ...] = ()
    warps: int = 4
    stages: int = 3

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.constants)
        return f"{self.name}({given}), {self.warps} warps, {self.stages} stages"


@dataclass(frozen=True)
class CudaSource:
    """A kernel in CUDA C++.

    Args:
        name: Of the kernel; `extern "C"`, so that it can be found.
        threads: Of a block.
        dynamic_shared_bytes: What a launch asks for beside the shared memory that the text declares.
        options: Further options of the compiler ("-DROWS=64").
    """

    text: str
    name: str
    threads: int
    dynamic_shared_bytes: int = 0
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}, {self.threads} threads {' '.join(self.options)}".rstrip()


Source = TritonSource | CudaSource


@dataclass(frozen=True)
class Resources:
    """What one block of a compiled kernel takes.

    Args:
        shared_bytes: Shared memory of a block, declared and asked for.
        registers: Of one thread.
        spill_bytes: Registers of one thread that the compiler keeps in memory.
        stack_bytes: Memory of one thread for spills and for arrays.
        tensor_memory_columns: Of a block.
        threads: Of a block.
        matrix_instructions: Kinds of instructions for matrix units and how often each stands in the code.
    """

    shared_bytes: int
    registers: int
    spill_bytes: int
    stack_bytes: int
    tensor_memory_columns: int
    threads: int
    matrix_instructions: tuple[tuple[str, int], ...]

    def as_json(self) -> dict[str, object]:
        """All fields, as JSON has them."""
        return {**dataclasses.asdict(self), "matrix_instructions": dict(self.matrix_instructions)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Resources:
        """The inverse of `as_json`.

        Raises:
            TypeError: a field is missing, unknown or of another type.
        """
        counts = data["matrix_instructions"]
        numbers = {key: value for key, value in data.items() if key != "matrix_instructions"}
        if not all(type(value) is int for value in (*numbers.values(), *counts.values())):
            raise TypeError(f"expected whole numbers, found {data!r}")
        return Resources(**numbers, matrix_instructions=tuple(sorted(counts.items())))


@dataclass(frozen=True)
class Compiled:
    """A kernel, compiled for a chip that need not be there.

    Args:
        binary: cubin or hsaco.
        assembly: PTX or amdgcn.
        seconds: That the compiler took.
    """

    architecture: str
    resources: Resources
    binary: bytes
    assembly: str
    seconds: float


def to_json(source: Source) -> dict[str, object]:
    """A source as JSON has it."""
    return {"kind": type(source).__name__, **dataclasses.asdict(source)}


def from_json(data: Mapping[str, Any]) -> Source:
    """The inverse of `to_json`: lists are tuples again."""
    fields = {key: _frozen(value) for key, value in data.items() if key != "kind"}
    kinds: dict[str, type[TritonSource] | type[CudaSource]] = {"TritonSource": TritonSource, "CudaSource": CudaSource}
    return kinds[data["kind"]](**fields)


def identity(source: Source) -> str:
    """A digest of all that `source` says.

    >>> identity(CudaSource("", "k", threads=32)) == identity(CudaSource("", "k", threads=64))
    False
    """
    return digest_of(json.dumps(to_json(source), sort_keys=True))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value
