"""The gates that are not about behaviour: lint, types, examples in docstrings, sizes, stray paths."""

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import PACKAGES, ROOT, modules, project_files

LONGEST_FILE_LINES = 400
CODE = {".py", ".j2", ".toml", ".sh", ""}
# Spelt in halves, so that this file does not hold them.
STRAY = (
    "/wo" + "rk/", "/.lib" + "rary", ".lib" + "rary/", "/op" + "t/", "/ro" + "ot/",
    "py" + "pi.org", "python" + "hosted.org",
)


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None     # a picture


def test_ruff_has_nothing_to_say() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


def test_types_are_strict(tmp_path: Path) -> None:
    """mypy sees a tree of links that spells the folders as the package they are."""
    package = tmp_path / "rekern"
    package.mkdir()
    for entry in PACKAGES["rekern"].iterdir():
        (package / entry.name).symlink_to(entry)
    for name, folder in PACKAGES.items():
        if name != "rekern":
            (package / name.removeprefix("rekern.")).symlink_to(folder)
    places = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *places, "-p", "rekern"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_in_docstrings_hold(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None and Path(module.__file__).samefile(modules()[name])
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_files_are_short() -> None:
    sizes = {
        str(path.relative_to(ROOT)): len(text.splitlines())
        for path in project_files()
        if path.suffix in CODE and path.name != "LICENSE" and (text := text_of(path)) is not None
    }
    assert {name: lines for name, lines in sizes.items() if lines > LONGEST_FILE_LINES} == {}


def test_no_file_names_a_place_on_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {stray}"
        for path in project_files()
        if (text := text_of(path)) is not None
        for stray in STRAY
        if stray in text
    ]
    assert found == []


def test_golden_files_belong_to_a_test_module() -> None:
    folders = [p for p in (ROOT / "tests" / "golden").glob("*") if p.is_dir()]
    assert [p.name for p in folders if not list((ROOT / "tests").rglob(f"{p.name}.py"))] == []
