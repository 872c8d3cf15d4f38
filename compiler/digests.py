"""Short stable names for texts.

In: texts, or files. Out: a digest that is the same in every process and on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_of(*parts: str) -> str:
    """A short stable name for a sequence of texts."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=12).hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """A name for the contents of files, in this order."""
    return digest_of(*(path.read_text(encoding="utf-8") for path in paths))
