"""Triton, asked to compile for a chip that need not be there. All that knows Triton's inside is in this file.

In: a `TritonSource` and an architecture. Out: a `Compiled`. Holds for Triton 3.6 to 3.9:

* `ASTSource` takes the signature by name, and alignment as attributes by position.
* Metadata has `shared`; `tmem_size` (columns of tensor memory) for NVIDIA only.
* 3.9 warns where contraction of a*b + c is not chosen, and 3.10 will leave it off: it is chosen here.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from rekern.backends.binaries import (
    bundled,
    matrix_instructions_of_amdgcn,
    matrix_instructions_of_cubin,
    usage_of_amdgcn,
    usage_of_cubin,
    version_of,
)
from rekern.backends.offline import Compiled, Resources, TritonSource
from rekern.digests import digest_of
from rekern.errors import BuildError, PlanError

SUPPORTED = (3, 6), (3, 9)
BLACKWELL = 100             # from here on Triton uses the second assembler that it brings along
ALIGNMENT = 16
PTX_VERSION = 88            # shared memory is laid out alike for all from 8.0 on
WAVE64 = "gfx9"             # these chips have wavefronts of 64 threads, later ones 32


def toolchain(architecture: str) -> str:
    """All programs that a compiled kernel depends on, with their versions. Triton itself is not imported.

    Raises:
        BuildError: Triton is not installed.
        PlanError: `architecture` is none that Triton compiles for.
    """
    backend, arch, _ = target(architecture)
    try:
        found = f"triton {version('triton')}"
    except PackageNotFoundError:
        raise BuildError("triton is not installed\ninstall it: pip install triton (Linux only)") from None
    if backend == "cuda":
        found += f", ptxas {version_of(bundled('ptxas-blackwell' if int(arch) >= BLACKWELL else 'ptxas'))}"
    return found


def target(architecture: str) -> tuple[str, int | str, int]:
    """What Triton calls an architecture: back end, its number or name, threads of a warp.

    Raises:
        PlanError: it is none.

    >>> target("sm_90"), target("gfx942")
    (('cuda', 90, 32), ('hip', 'gfx942', 64))
    """
    if number := re.fullmatch(r"sm_(\d+)", architecture):
        return "cuda", int(number[1]), 32
    if re.fullmatch(r"gfx[0-9a-f]+", architecture):
        return "hip", architecture, 64 if re.fullmatch(WAVE64 + "..", architecture) else 32
    raise PlanError(f"no architecture {architecture!r}; expected a name like sm_90 or gfx942")


def compile_triton(source: TritonSource, architecture: str, *, disassemble: bool = True) -> Compiled:
    """Compile a kernel and read what it takes.

    Args:
        disassemble: Whether to count matrix instructions, which takes about as long as compiling.

    Raises:
        BuildError: Triton is missing or too old, or the kernel is wrong; the message has the compiler's.
    """
    backend, arch, lanes = target(architecture)
    triton, ast_source, gpu_target = _internals()
    with tempfile.TemporaryDirectory(prefix="rekern-kernel-") as folder:
        program = _program(source, Path(folder), ast_source)
        start = time.perf_counter()
        with _quoting(source):
            done = triton.compile(program, target=gpu_target(backend, arch, lanes), options=_options(source))
        seconds = time.perf_counter() - start
    threads = done.metadata.num_warps * lanes
    read = _of_nvidia if backend == "cuda" else _of_amd
    return Compiled(architecture, *read(done, threads, disassemble), seconds)


# Triton 3.9 unloads a kernel when nobody holds it any more, but graphs hold functions of it that nobody sees.
_LOADED: list[object] = []


def launchable(source: TritonSource, device: int) -> Callable[[int, Sequence[Any]], None]:
    """The kernel, compiled for the GPU `device`, as a function of the number of programs and of its arguments.

    It is launched on torch's current stream of that GPU.

    Raises:
        BuildError: as for `compile_triton`; or there is no GPU.
    """
    triton, ast_source, _ = _internals()
    from triton.runtime import driver

    with tempfile.TemporaryDirectory(prefix="rekern-kernel-") as folder, _quoting(source):
        active = driver.active
        program = _program(source, Path(folder), ast_source)
        done = triton.compile(program, target=active.get_current_target(), options=_options(source))
        run = done.run  # loads the binary
        _LOADED.append(done)
    function, metadata, stream_of = done.function, done.packed_metadata, active.get_current_stream
    current, use = active.get_current_device, active.set_current_device

    def launch(programs: int, arguments: Sequence[Any]) -> None:
        # The driver launches on the current GPU only, which need not be that of the tensors.
        before = current()
        if before != device:
            use(device)
        try:
            # No hooks and no metadata for profilers: they cost more than the launch.
            run(programs, 1, 1, stream_of(device), function, metadata, None, None, None, *arguments)
        finally:
            if before != device:
                use(before)

    return launch


@contextmanager
def _quoting(source: TritonSource) -> Iterator[None]:
    """Any fault of Triton's as a `BuildError` with its first line."""
    try:
        yield
    except (MemoryError, BuildError):
        raise
    except Exception as error:  # Triton raises its own, of MLIR, of Python's parser and of ptxas
        raise BuildError(f"Triton cannot compile {source}\n    {_first_line(error)}") from error


def _of_nvidia(done: Any, threads: int, disassemble: bool) -> tuple[Resources, bytes, str]:
    binary = done.asm["cubin"]
    registers, stack = usage_of_cubin(binary, done.metadata.name)
    resources = Resources(
        shared_bytes=done.metadata.shared,
        registers=registers,
        spill_bytes=stack,      # Triton has no arrays of its own in a thread's memory
        stack_bytes=stack,
        tensor_memory_columns=done.metadata.tmem_size or 0,
        threads=threads,
        matrix_instructions=matrix_instructions_of_cubin(binary) if disassemble else (),
    )
    return resources, binary, done.asm["ptx"]


def _of_amd(done: Any, threads: int, disassemble: bool) -> tuple[Resources, bytes, str]:
    text = done.asm["amdgcn"]
    usage = usage_of_amdgcn(text)
    resources = Resources(
        shared_bytes=done.metadata.shared,
        registers=usage["vgpr_count"],
        spill_bytes=4 * usage["vgpr_spill_count"],
        stack_bytes=usage["private_segment_fixed_size"],
        tensor_memory_columns=0,
        threads=threads,
        matrix_instructions=matrix_instructions_of_amdgcn(text) if disassemble else (),
    )
    return resources, done.asm["hsaco"], text


def _internals() -> tuple[Any, Any, Any]:
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ImportError as error:
        raise BuildError(f"triton cannot be imported: {error}\ninstall it: pip install triton (Linux only)") from error
    check_version()
    return triton, ASTSource, GPUTarget


def check_version() -> None:
    """Whether the installed Triton is one that is known.

    Raises:
        BuildError: it is too old or too new.
    """
    import triton

    found = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if not SUPPORTED[0] <= found <= SUPPORTED[1]:
        low, high = (".".join(map(str, end)) for end in SUPPORTED)
        raise BuildError(f"triton {triton.__version__} is installed; rekern knows {low} to {high}")


def _options(source: TritonSource) -> dict[str, object]:
    return {"num_warps": source.warps, "num_stages": source.stages, "enable_fp_fusion": True}


def _program(source: TritonSource, folder: Path, ast_source: Any) -> Any:
    kernel = _kernel(source, folder)
    signature = {**dict(source.arguments), **{name: "constexpr" for name, _ in source.constants}}
    names = list(kernel.arg_names)
    if set(names) != set(signature):
        raise BuildError(f"{source.name} has the arguments {names}, but {list(signature)} are described")
    aligned = {(names.index(name),): [["tt.divisibility", ALIGNMENT]] for name in source.aligned}
    return ast_source(kernel, {name: signature[name] for name in names}, dict(source.constants), aligned)


def _kernel(source: TritonSource, folder: Path) -> Any:
    """The kernel's function object. Triton reads the text of functions from files, so there has to be one."""
    name = f"rekern_kernel_{digest_of(source.text)}"
    path = folder / f"{name}.py"
    path.write_text(source.text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        return getattr(module, source.name)
    except MemoryError:
        raise
    except Exception as error:
        raise BuildError(f"the module of {source.name} cannot be run\n    {type(error).__name__}: {error}") from error
    finally:
        del sys.modules[name]


def _first_line(error: BaseException) -> str:
    """What is wrong, in one line: where Triton points to a place in the kernel, that and its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    told = (line for line in lines if re.search("error|fatal", line.lower()) and not line.startswith("`ptxas`"))
    marked = next(told, lines[0])
    if re.match(r"at \d+:\d+:", lines[0]):
        innermost = error
        while innermost.__cause__ is not None:
            innermost = innermost.__cause__
        last = str(innermost).strip().splitlines()[-1] if innermost is not error else lines[-1]
        return f"{lines[0]} {last.strip()}"
    return marked


def shared_bytes_of(source: TritonSource, architecture: str) -> int:
    """Shared memory of a block, in bytes, as `compile_triton` reports it, 20 times sooner.

    Only the passes up to the one that lays shared memory out are run: no LLVM, no ptxas. NVIDIA only.

    Raises:
        BuildError: Triton is missing or too old, or the kernel is wrong.
        PlanError: `architecture` is not NVIDIA's.
    """
    backend, arch, lanes = target(architecture)
    if backend != "cuda":
        raise PlanError(f"shared memory is laid out ahead for NVIDIA only, not for {architecture}")
    _, ast_source, gpu_target = _internals()
    from triton._C.libtriton import ir, nvidia, passes
    from triton.compiler.compiler import make_backend

    with tempfile.TemporaryDirectory(prefix="rekern-kernel-") as folder, _quoting(source):
        chip = gpu_target(backend, arch, lanes)
        program = _program(source, Path(folder), ast_source)
        compiler = make_backend(chip)
        options = compiler.parse_options(_options(source))
        context = ir.context()
        ir.load_dialects(context)
        compiler.load_dialects(context)
        helpers = compiler.get_codegen_implementation(options), compiler.get_module_map()
        module = program.make_ir(chip, options, *helpers, context)
        stages: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        compiler.add_stages(stages, options, program.language)
        for stage in ("ttir", "ttgir"):
            module = stages[stage](module, metadata)
        layout = ir.pass_manager(module.context)
        passes.ttgpuir.add_allocate_warp_groups(layout)
        passes.convert.add_scf_to_cf(layout)
        nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(layout, arch, PTX_VERSION)
        layout.run(module, "shared_bytes_of")
        return int(module.get_int_attr("ttg.shared"))
