"""Solved sizes, remembered between processes.

In: what a choice depends on, and a way to make it. Out: the choice. A plan is one small JSON file a key,
written whole or not at all; one that is damaged, foreign or of another version is ignored, and solved again.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rekern.digests import digest_of
from rekern.settings import Settings

SCHEMA = 1


@cache
def generator() -> str:
    """A digest of the code that makes choices: a plan of another version of it is another plan."""
    root = Path(__file__).parent
    # found, not imported: sympy is slow
    packages = (find_spec("rekern.solver"), find_spec("rekern.hwmodels"))
    places = (p for package in packages if package for p in package.submodule_search_locations or ())
    folders = [root / "schedules", *map(Path, places)]
    return digest_of(*(f.read_text() for folder in folders for f in sorted(folder.glob("*.py"))))


def remembered(key: Mapping[str, object], choose: Callable[[], Mapping[str, int]]) -> dict[str, int]:
    """The choice stored under `key`, or the one that `choose` makes, stored."""
    fields = {"schema": SCHEMA, "generator": generator(), **{k: str(v) for k, v in key.items()}}
    name = digest_of(json.dumps(fields, sort_keys=True))
    path = Settings.read().cache_dir / "plans" / f"{name}.json"
    found = _read(path, fields)
    if found is not None:
        return found
    values = dict(choose())
    _write(path, {"key": fields, "values": values, "checksum": _checksum(values)})
    return values


def _checksum(values: Mapping[str, int]) -> str:
    return digest_of(json.dumps(values, sort_keys=True))


def _read(path: Path, fields: Mapping[str, object]) -> dict[str, int] | None:
    try:
        text = path.read_text()
    except OSError:
        return None
    try:
        plan = json.loads(text)
        values = plan["values"]
        whole = plan["key"] == fields and plan["checksum"] == _checksum(values)
        if whole and all(isinstance(v, int) for v in values.values()):
            return dict(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    warnings.warn(f"the plan {path} is damaged; it is ignored and made again", stacklevel=2)
    return None


def _write(path: Path, plan: Mapping[str, object]) -> None:
    """Write a plan in one rename. A folder that cannot be written only costs the next process a solve."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix="writing-", dir=path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(plan, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        return
