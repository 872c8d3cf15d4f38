"""The environment variables of rekern, read in one place.

In: the environment. Out: `Settings`. `rekern doctor` lists them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rekern.hwmodels.home import cache_dir

VARIABLES = {
    "REKERN_CACHE_DIR": "where kernels, plans and calibrations are kept (default: the user's cache folder)",
    "REKERN_CXX": "the C++ compiler (default: the first of $CXX, g++, clang++, c++ that is there)",
}


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    cache_dir: Path
    compiler: str | None

    @staticmethod
    def read() -> Settings:
        return Settings(cache_dir(), os.environ.get("REKERN_CXX") or None)
