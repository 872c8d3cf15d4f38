"""Short stable names for texts.

In: texts. Out: a digest that is the same in every process and on every machine.
"""

from __future__ import annotations

import hashlib


def digest_of(*parts: str) -> str:
    """A short stable name for a sequence of texts."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=12).hexdigest()
