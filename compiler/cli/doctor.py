"""`rekern doctor`: whether this installation works, and what to do where it does not.

In: the process and its environment. Out: a list of checks; exit code 1 if one of them failed.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
import typer

from rekern.backends.cpp import toolchain
from rekern.cli.console import seconds, size, table, write, write_json
from rekern.cli.machine import cpu_model, loaded_openmp
from rekern.cli.options import JsonOption
from rekern.errors import BuildError
from rekern.hwmodels import MachineError, detect
from rekern.reference import reference
from rekern.runtime.kernel import Kernel
from rekern.settings import VARIABLES, Settings
from rekern.zoo import load

Verdict = Literal["ok", "note", "broken"]
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Check:
    """One line of the report; `advice` says what to do, and is empty where nothing is."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def doctor(as_json: JsonOption = False) -> None:
    """Check the installation: versions, compiler, cache, and a tiny kernel that is compiled and run."""
    checks = [check() for check in CHECKS]
    variables = {name: os.environ.get(name) for name in VARIABLES}
    broken = any(c.verdict == "broken" for c in checks)
    if as_json:
        write_json({"ok": not broken, "checks": [vars(c) for c in checks], "variables": variables})
    else:
        table(("", "", ""), [(c.name, c.verdict, c.found) for c in checks], keep=("", "", ""))
        write("\nenvironment variables", style="bold")
        table(("", "", ""), [(n, variables[n] or "(not set)", VARIABLES[n]) for n in VARIABLES], keep=("", "", ""))
        for c in checks:
            if c.advice:
                write(f"\n{c.verdict}: {c.name}: {c.advice}", style="red" if c.verdict == "broken" else "yellow")
        write("\nsomething is broken" if broken else "\nall is well", style="bold")
    if broken:
        raise typer.Exit(1)


def _versions() -> Check:
    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    python = f"Python {platform.python_version()}"
    return Check("versions", "ok", ", ".join([f"rekern {of('rekern')}", python, f"torch {torch.__version__}"]))


def _compiler() -> Check:
    try:
        return Check("compiler", "ok", str(toolchain()))
    except BuildError as error:
        first, _, advice = str(error).partition("\n")
        return Check("compiler", "broken", first, advice)


def _machine() -> Check:
    try:
        machine = detect()
    except MachineError as error:
        return Check("machine", "broken", str(error), "report the processor; kernels need a file of hwmodels for it")
    cores = machine.cpu.cores if machine.cpu else 0
    return Check("machine", "ok", f"{machine.name}: {cpu_model()}, {cores} core{'s' * (cores != 1)} to run on")


def _cache() -> Check:
    folder = Settings.read().cache_dir
    advice = "set REKERN_CACHE_DIR to a folder that can be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        files = [p for p in folder.rglob("*") if p.is_file()]
        kernels = sum(p.suffix == ".so" for p in files)
        used = size(sum(p.stat().st_size for p in files))
    except OSError as error:
        return Check("cache", "broken", f"{folder}: {error.strerror or error}", advice)
    home = Path.home()
    place = Path("~", folder.relative_to(home)) if folder.is_relative_to(home) else folder
    return Check("cache", "ok", f"{place}: {kernels} kernels, {used}")


def _self_test() -> Check:
    """A tiny kernel, forward and backward, built in a folder of its own and held to the reference."""
    spec = replace(load("hgrn"), name="doctor")  # a kernel of its own, whatever this process has compiled
    operands = {n: -torch.rand(2, 5, 1, 3) for n in ("x", "g")}
    start = time.perf_counter()
    try:
        toolchain()
        with tempfile.TemporaryDirectory(prefix="rekern-doctor-") as folder, _cache_in(folder):
            error = max(_differences(Kernel(spec), operands))
    except BuildError as problem:
        return Check("self test", "broken", str(problem).splitlines()[0], "\n".join(str(problem).splitlines()[1:]))
    except OSError as problem:
        return Check("self test", "broken", str(problem), "the compiled library cannot be loaded; is /tmp noexec?")
    taken = seconds(time.perf_counter() - start)
    if not error < TOLERANCE:
        advice = "try another compiler: set REKERN_CXX; and report it"
        return Check("self test", "broken", f"a kernel is off by {error:.1e}", advice)
    return Check("self test", "ok", f"a kernel was built and run in {taken}, error {error:.0e}")


def _differences(kernel: Kernel, operands: dict[str, torch.Tensor]) -> Iterator[float]:
    mine = [t.clone().requires_grad_() for t in operands.values()]
    true = [t.double().requires_grad_() for t in operands.values()]
    given: dict[str, Any] = dict(zip(operands, mine, strict=True))
    out, _ = kernel(**given)
    want, _ = reference(kernel.spec, dict(zip(operands, true, strict=True)))
    assert isinstance(out, torch.Tensor) and isinstance(want, torch.Tensor)
    pairs = [
        (out, want),
        *zip(torch.autograd.grad(out.sum(), mine), torch.autograd.grad(want.sum(), true), strict=True),
    ]
    for a, b in pairs:
        yield float((a.detach().double() - b.detach()).abs().max())


@contextmanager
def _cache_in(folder: str) -> Iterator[None]:
    before = os.environ.get("REKERN_CACHE_DIR")
    os.environ["REKERN_CACHE_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["REKERN_CACHE_DIR"]
        else:
            os.environ["REKERN_CACHE_DIR"] = before


def _openmp() -> Check:
    """After the self test, when a kernel has been loaded."""
    found = loaded_openmp()
    if found is None:
        return Check("OpenMP", "note", "the libraries of this process cannot be listed here")
    names = ", ".join(Path(p).name for p in found) or "none"
    if len(found) > 1:
        advice = "two OpenMP runtimes compete for the cores; use the compiler whose runtime torch has (REKERN_CXX)"
        return Check("OpenMP", "note", f"torch and the kernels do not share one: {names}", advice)
    return Check("OpenMP", "ok", f"{names}, shared by torch and the kernels, {torch.get_num_threads()} threads")


CHECKS: tuple[Callable[[], Check], ...] = (_versions, _machine, _compiler, _cache, _self_test, _openmp)
