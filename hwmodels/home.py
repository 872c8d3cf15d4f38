"""Where rekern keeps what it made on this machine.

In: REKERN_CACHE_DIR, or the habits of the system. Out: a folder, which need not exist.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """$REKERN_CACHE_DIR, or the user's cache folder."""
    folder = os.environ.get("REKERN_CACHE_DIR")
    if folder:
        return Path(folder).expanduser()
    from platformdirs import user_cache_path  # not at the top: importing rekern stays light

    return user_cache_path("rekern")
