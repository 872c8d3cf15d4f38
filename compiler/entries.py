"""Small JSON files, one a key, that processes share: what was found out once is read the next time.

In: a folder, a key with readable fields, values. Out: the values. A file is written whole or not at all, with a
checksum; one that is damaged, foreign or of another version is ignored with a warning.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rekern.digests import digest_of


def path_of(folder: Path, key: Mapping[str, object]) -> Path:
    """The file that belongs to `key`."""
    return folder / f"{digest_of(json.dumps(key, sort_keys=True))}.json"


def read_entry(folder: Path, key: Mapping[str, object], what: str) -> dict[str, Any] | None:
    """The values stored under `key`; None: there are none.

    Args:
        what: The thing that is stored, for the warning.
    """
    path = path_of(folder, key)
    try:
        text = path.read_text()
    except OSError:
        return None
    except UnicodeDecodeError:
        text = ""
    try:
        entry = json.loads(text)
        values = entry["values"]
        if entry["key"] == key and entry["checksum"] == _checksum(values):
            return dict(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    warn_damaged(path, what)
    return None


def warn_damaged(path: Path, what: str) -> None:
    """Say once that a file is not used."""
    warnings.warn(f"the {what} {path} is damaged; it is ignored and made again", stacklevel=3)


def write_entry(folder: Path, key: Mapping[str, object], values: Mapping[str, object]) -> None:
    """Store `values` in one rename. A folder that cannot be written only costs the next process the same work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix="writing-", dir=folder)
        with os.fdopen(handle, "w") as file:
            json.dump({"key": key, "values": values, "checksum": _checksum(values)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path_of(folder, key))
    except OSError:
        return


def _checksum(values: Mapping[str, object]) -> str:
    return digest_of(json.dumps(values, sort_keys=True))
