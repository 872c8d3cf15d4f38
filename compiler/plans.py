"""Solved sizes, remembered between processes.

In: what a choice depends on, and a way to make it. Out: the choice. A plan is one small JSON file a key,
written whole or not at all; one that is damaged, foreign or of another version is ignored, and solved again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rekern.digests import digest_of_files
from rekern.entries import path_of, read_entry, warn_damaged, write_entry
from rekern.settings import Settings

SCHEMA = 1


@cache
def generator() -> str:
    """A digest of the code that makes choices: a plan of another version of it is another plan."""
    return digest_of_files(generator_files())


def generator_files() -> list[Path]:
    """Every file that a choice may depend on, beside the machine files, which are in the key."""
    # found, not imported: sympy is slow
    packages = (find_spec("rekern.solver"), find_spec("rekern.hwmodels"))
    places = (p for package in packages if package for p in package.submodule_search_locations or ())
    root = Path(__file__).parent
    folders = [root / "loops", root / "schedules", *map(Path, places)]
    return [file for folder in folders for file in sorted(folder.rglob("*.py"))]


def remembered(key: Mapping[str, object], choose: Callable[[], Mapping[str, int]]) -> dict[str, int]:
    """The choice stored under `key`, or the one that `choose` makes, stored."""
    fields = {"schema": SCHEMA, "generator": generator(), **{k: str(v) for k, v in key.items()}}
    folder = Settings.read().cache_dir / "plans"
    found = read_entry(folder, fields, "plan")
    if found is not None:
        if all(isinstance(v, int) for v in found.values()):
            return found
        warn_damaged(path_of(folder, fields), "plan")
    values = dict(choose())
    write_entry(folder, fields, values)
    return values
