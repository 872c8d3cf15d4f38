"""From C++ source to a loaded library: compile once, keep by content, share between processes.

In: `Source` (text and headers). Out: a `ctypes.CDLL`. A library is stored under the hash of everything that
it depends on. It is built in a folder of its own, which gets its final name in one rename, so a reader sees
all of it or nothing; a lock file keeps other processes from building the same one at the same time.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE

import torch  # noqa: F401  # first, so that kernels bind to the OpenMP runtime that torch has loaded

from rekern.backends.turns import renew_in_child, turns
from rekern.errors import BuildError
from rekern.settings import Settings

FLAGS = (
    "-std=c++17",
    "-O3",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-fno-math-errno",  # lets sqrt be one instruction; nobody reads errno
    "-fno-trapping-math",  # floating point exceptions stay masked; NaN and infinity keep their meaning
    "-ffp-contract=fast",
    "-fvisibility=hidden",
)
UNROLLED = 1 << 20  # characters; more than any source has
LIBRARY = "kernel.so"
OBJECT = "object.o"
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A source file and, by name, what it may include: headers, and beside them the files that define their functions.

    Such files are compiled once for all sources, and linked with those that include their headers.
    """

    name: str
    text: str
    files: Mapping[str, str]

    def included(self) -> list[str]:
        """The names of all headers that are read."""
        found: list[str] = []
        texts = [self.text]
        while texts:
            new = [n for n in INCLUDE.findall(texts.pop()) if n in self.files and n not in found]
            found += new
            texts += [self.files[n] for n in new]
        return found

    def linked(self) -> list[Source]:
        """What defines the functions that the headers declare, what takes longest to compile first."""
        names = [n.removesuffix(".h") + ".cpp" for n in self.included()]
        found = [Source(n, self.files[n], self.files) for n in names if n in self.files]
        return sorted(found, key=lambda s: "contract" not in s.name)


@dataclass(frozen=True)
class Toolchain:
    """A C++ compiler and what it is asked to do."""

    command: str
    version: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} ({self.version})"


@cache
def toolchain() -> Toolchain:
    """The C++ compiler of this machine.

    Raises:
        BuildError: there is none.
    """
    wished = [Settings.read().compiler, os.environ.get("CXX"), "g++", "clang++", "c++"]
    for candidate in filter(None, wished):
        path = shutil.which(candidate)
        if path is not None:
            first = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
            return Toolchain(path, first.splitlines()[0] if first else "unknown version", (*FLAGS, native))
    raise BuildError(
        f"no C++ compiler found; looked for {', '.join(w for w in wished if w)}\n"
        "install one (Debian: apt-get install g++), or name it in REKERN_CXX"
    )


@cache
def processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = dict.fromkeys(
            line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))
        )
        return "\n".join(found)
    except OSError:
        return platform.processor()


def library_name(source: Source) -> str:
    """Under what a built library is kept: a hash of all that it depends on."""
    tools = toolchain()
    text = hashlib.blake2b(digest_size=16)
    for part in (source.text, *source.files.values(), tools.version, *tools.flags, processor()):
        text.update(part.encode())
        text.update(b"\0")
    return text.hexdigest()


def build(source: Source) -> Path:
    """Compile `source` unless it is there already; return the library.

    Raises:
        BuildError: the compiler is missing or fails. The source is kept, and the message says where.
    """
    return _made(source, LIBRARY)


def _made(source: Source, result: str) -> Path:
    tools = toolchain()
    name = library_name(source)
    store = _store()
    final = store / name
    if (final / result).exists():
        return final / result
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _locked(store / f"{name}.lock"):
            if not (final / result).exists():
                _make(source, result, tools, store, final)
    except OSError as error:
        raise BuildError(
            f"cannot keep kernels in {store}: {error}\nset REKERN_CACHE_DIR to a folder that can be written"
        ) from error
    return final / result


def _store() -> Path:
    return Settings.read().cache_dir / "cpp"


def _make(source: Source, result: str, tools: Toolchain, store: Path, final: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="building-", dir=store))
    try:
        for header in source.included():
            (folder / header).write_text(source.files[header])
        (folder / "kernel.cpp").write_text(source.text)
        error = _compile(source, result, tools, folder)
        if error is not None:
            raise BuildError(_failure(source, tools, error, _keep_failed(folder, store, final.name)))
        if final.exists():  # left by an interrupted clean-up: not a whole library
            shutil.rmtree(final)
        os.replace(folder, final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(source: Source, result: str, tools: Toolchain, folder: Path) -> str | None:
    """Compile the source in `folder`; link a library with what others have too. What the compiler says if it fails."""
    def told(command: Sequence[str]) -> str | None:
        done = subprocess.run(command, cwd=folder, stdout=DEVNULL, stderr=PIPE, text=True, check=False)
        return done.stderr if done.returncode != 0 else None

    if result == LIBRARY:
        start_objects(source)
    with turns().turn(_length(source)):  # what waits for others has no turn: those wait for one
        error = told([tools.command, *tools.flags, "-c", "kernel.cpp", "-o", OBJECT])
    if error is not None or result == OBJECT:
        return error
    shared = [str(_made(s, OBJECT)) for s in source.linked()]
    error = told([tools.command, *tools.flags, OBJECT, *shared, "-o", LIBRARY])
    (folder / OBJECT).unlink(missing_ok=True)
    return error


def start_objects(source: Source) -> None:
    """Have what `source` is linked with compiled in the background. Who needs it asks again, and hears of faults."""
    with suppress(RuntimeError):  # the interpreter is about to end and starts no more threads
        for s in source.linked():
            _object_builders().submit(_made, s, OBJECT)


def _length(source: Source) -> int:
    """How long a source takes to compile, roughly: the tiles of products are few lines and many instructions."""
    return len(source.text) + ("contract" in source.name) * UNROLLED


def _keep_failed(folder: Path, store: Path, name: str) -> Path:
    kept = store / "failed" / name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    return kept / "kernel.cpp"


def _failure(source: Source, tools: Toolchain, output: str, kept: Path) -> str:
    lines = output.splitlines()
    first = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
    return f"{tools.command} cannot compile {source.name}\n    {first.strip()}\nthe source is kept in {kept}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes respect; where there are none, two may build the same: harmless."""
    with path.open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


_loaded: dict[Path, ctypes.CDLL] = {}
_loading = threading.Lock()


def load(source: Source) -> ctypes.CDLL:
    """The library of `source`, built if need be, loaded once a process."""
    return _open(build(source))


def stored(name: str) -> ctypes.CDLL | None:
    """The library that is kept under `name`; None: it is not there."""
    path = _store() / name / LIBRARY
    return _open(path) if path in _loaded or path.exists() else None


def _open(path: Path) -> ctypes.CDLL:
    with _loading:
        if path not in _loaded:
            library = ctypes.CDLL(str(path))
            library.run.argtypes = [ctypes.c_void_p]
            library.run.restype = ctypes.c_int
            for size in (library.saved_size, library.panels_size):
                size.argtypes = [ctypes.c_void_p]
                size.restype = ctypes.c_int64
            _loaded[path] = library
        return _loaded[path]


@cache
def builders() -> ThreadPoolExecutor:
    """Threads that wait for compilers: as many as there are cores. A process that ends waits for them."""
    renew_in_child(builders)
    return _pool("rekern-build")


@cache
def _object_builders() -> ThreadPoolExecutor:
    """The same for what kernels are linked with: threads that build kernels wait for these."""
    renew_in_child(_object_builders)
    return _pool("rekern-object")


def _pool(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix=name)
