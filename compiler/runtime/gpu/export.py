"""One file with the kernels of a recurrence that needs only torch and triton.

In: `Views`, a path. Out: the file, written in one rename. A file that was not written here is left as it is.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rekern.errors import ArgumentError
from rekern.runtime.gpu.export_view import MARK, exported
from rekern.runtime.gpu.views import Views

FIRST_LINE_BYTES = 400


def write_export(views: Views, path: Path) -> None:
    """Write the file.

    Raises:
        ArgumentError: there is something at `path` that was not exported by rekern, or its folder is missing.
    """
    name = views.spec.name
    if not path.parent.is_dir():
        raise ArgumentError(f"{name}: cannot export to {path}: there is no folder {path.parent}\ncreate it first")
    if path.is_dir() or (path.exists() and not _is_ours(path)):
        raise ArgumentError(
            f"{name}: {path} exists and was not {MARK}; it is left as it is\nexport to another file, or remove this one"
        )
    text = exported(views)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # as any new file; those of mkstemp are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.read(FIRST_LINE_BYTES).split(b"\n")[0]
    return first.startswith(b'"""') and MARK.encode() in first


def _umask() -> int:
    """Can only be read by setting it."""
    found = os.umask(0o022)
    os.umask(found)
    return found
