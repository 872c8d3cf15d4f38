"""What compilers have said before: the same question is not asked twice.

In: a source, an architecture, a toolchain. Out: what a kernel took, or why there was none. Limits are not part of
it: an answer holds for every machine of the architecture. Times and deaths are not kept: they tell of the machine
that compiled.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rekern.backends.offline import Resources, Source, identity
from rekern.entries import path_of, read_entry, warn_damaged, write_entry
from rekern.settings import Settings

SCHEMA = 1


class Question(NamedTuple):
    """All that the answer of a compiler depends on."""

    source: Source
    architecture: str
    toolchain: str
    disassemble: bool

    def key(self) -> dict[str, object]:
        """Readable fields; the source as a digest."""
        return {
            "schema": SCHEMA,
            "kernel": str(self.source),
            "source": identity(self.source),
            "architecture": self.architecture,
            "toolchain": self.toolchain,
            "disassembled": self.disassemble,
        }


def recall(question: Question) -> Resources | str | None:
    """What the kernel takes, or the compiler's message, or None: never asked."""
    values = read_entry(_folder(), question.key(), "answer of a compiler")
    if values is None:
        return None
    try:
        return str(values["failed"]) if "failed" in values else Resources.from_json(values["resources"])
    except (KeyError, TypeError, AttributeError):
        warn_damaged(path_of(_folder(), question.key()), "answer of a compiler")
        return None


def store(question: Question, found: Resources | str) -> None:
    """Keep an answer for every later process."""
    values: dict[str, object] = {"failed": found} if isinstance(found, str) else {"resources": found.as_json()}
    write_entry(_folder(), question.key(), values)


def _folder() -> Path:
    return Settings.read().cache_dir / "gate"
