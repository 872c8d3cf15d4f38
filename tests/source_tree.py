"""Where the sources are: folders as people see them, and modules as Python imports them."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "rekern": ROOT / "compiler",
    "rekern.hwmodels": ROOT / "hwmodels",
    "rekern.solver": ROOT / "solver",
    "rekern.templates": ROOT / "templates",
}
FOLDERS = ("compiler", "hwmodels", "solver", "templates", "tests", "examples", "benchmarks", "docs")


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def files(folder: Path) -> list[Path]:
    """Every source file under `folder`; what Python and tools leave behind is not one."""
    made = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    return sorted(p for p in folder.rglob("*") if p.is_file() and not made & set(p.relative_to(folder).parts))


def project_files() -> list[Path]:
    """Every file a person wrote: the named folders, and what lies directly in the root and in `.ci`."""
    beside = [p for place in (ROOT, ROOT / ".ci") for p in sorted(place.iterdir()) if p.is_file()]
    return beside + [p for name in FOLDERS for p in files(ROOT / name)]


@cache
def modules() -> dict[str, Path]:
    """Import name -> file, of every module of the package."""
    found: dict[str, Path] = {}
    for package, folder in PACKAGES.items():
        for path in files(folder):
            if path.suffix == ".py":
                inner = path.relative_to(folder).with_suffix("").parts
                found[".".join((package, *(p for p in inner if p != "__init__")))] = path
    return found
