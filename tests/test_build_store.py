"""The store of built kernels: what fails is kept and said, what succeeds is whole, many processes share it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

USE = """
import sys, torch, rekern as rk
x = torch.rand(1, 5, 1, 8, requires_grad=True)
out, _ = rk.compile(rk.zoo.hgrn)(x=x, g=-torch.rand(1, 5, 1, 8))
out.sum().backward()
assert x.grad is not None and bool((x.grad >= 1 - 1e-6).all())
"""


def use(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", USE], env=settings(cache, **environment), capture_output=True, text=True
    )


def settings(cache: Path, **environment: str) -> dict[str, str]:
    return {**os.environ, "REKERN_CACHE_DIR": str(cache), **environment}


def compiler(folder: Path, body: str) -> str:
    """A compiler that is a shell script."""
    path = folder / "cxx"
    path.write_text(f"#!/bin/sh\ncase \"$1\" in --version) echo 'cxx 1.0'; exit 0;; esac\n{body}\n")
    path.chmod(0o755)
    return str(path)


def libraries(cache: Path) -> list[Path]:
    return sorted((cache / "cpp").glob("*/kernel.so"))


def test_a_compiler_that_fails_is_quoted_and_its_source_kept(tmp_path: Path) -> None:
    broken = compiler(tmp_path, "echo 'note: hm' >&2; echo 'kernel.cpp:7:3: error: no such thing' >&2; exit 1")
    done = use(tmp_path / "cache", REKERN_CXX=broken)
    assert done.returncode != 0
    assert "BuildError" in done.stderr and "cannot compile hgrn" in done.stderr
    assert "kernel.cpp:7:3: error: no such thing" in done.stderr
    kept = [line.split("kept in ")[1] for line in done.stderr.splitlines() if "kept in " in line]
    assert kept and Path(kept[-1]).read_text().startswith("// hgrn")
    left = {p.name for p in (tmp_path / "cache" / "cpp").iterdir() if not p.name.endswith(".lock")}
    assert left == {"failed"}, "something half-written stayed in the store"


def test_without_a_compiler_the_reference_runs_and_says_so_once(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = use(tmp_path / "cache", PATH=str(empty), CXX="", REKERN_CXX="")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no C++ compiler found") == 1
    assert "runs as a torch loop" in done.stderr and "apt-get install g++" in done.stderr


def test_many_processes_build_one_library_each_pass(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USE]
    running = [subprocess.Popen(command, env=settings(tmp_path), stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        _, error = process.communicate()
        assert process.returncode == 0, error
    assert len(libraries(tmp_path)) == 2  # the recording pass and the gradient
    assert len(list((tmp_path / "cpp").glob("*/object.o"))) == 2  # rows.cpp and arrays.cpp, which both are linked with
    assert not list((tmp_path / "cpp").glob("building-*"))


def test_the_next_process_compiles_nothing_and_mends_what_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "log"
    counting = compiler(tmp_path, f'echo run >> {log}; exec g++ "$@"')
    made = 2 * 2 + 2  # two passes, each compiled and linked, and what they share: rows.cpp and arrays.cpp
    for _ in range(2):
        assert use(tmp_path / "cache", REKERN_CXX=counting).returncode == 0
        assert log.read_text().count("run") == made
    libraries(tmp_path / "cache")[0].unlink()
    assert use(tmp_path / "cache", REKERN_CXX=counting).returncode == 0
    assert log.read_text().count("run") == made + 2


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    done = use(file)
    assert done.returncode != 0
    assert (
        "cannot keep kernels in" in done.stderr
        and "set REKERN_CACHE_DIR to a folder that can be written" in done.stderr
    )


def test_a_damaged_plan_is_ignored_with_one_warning(tmp_path: Path) -> None:
    assert use(tmp_path).returncode == 0
    (plan,) = (tmp_path / "plans").glob("*.json")
    plan.write_text("{ half a plan")
    done = use(tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("is damaged; it is ignored and made again") == 1
    assert use(tmp_path).stderr == ""
