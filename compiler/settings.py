"""The environment variables of rekern, read in one place.

In: the environment. Out: `Settings`. `rekern doctor` lists them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLES = {
    "REKERN_CACHE_DIR": "where built kernels are kept (default: the user's cache folder)",
    "REKERN_CXX": "the C++ compiler (default: the first of $CXX, g++, clang++, c++ that is there)",
}


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    cache_dir: Path
    compiler: str | None

    @staticmethod
    def read() -> Settings:
        folder = os.environ.get("REKERN_CACHE_DIR")
        return Settings(
            Path(folder).expanduser() if folder else _usual_cache_dir(),
            os.environ.get("REKERN_CXX") or None,
        )


def _usual_cache_dir() -> Path:
    from platformdirs import user_cache_path  # not at the top: importing rekern stays light

    return user_cache_path("rekern")
