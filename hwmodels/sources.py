"""Where the numbers of a machine file come from: its comments, which a TOML reader drops.

In: the text of a file that is valid TOML. Out: its keys with line and source, or a `MachineError` for a key that
has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rekern.hwmodels.errors import MachineError

KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w-]+)*)\s*=""")
HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#|$)")
STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'')
NEED_NONE = {"", "variant"}     # tables of names and matches, without numbers


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands in a file.

    Args:
        table: "gpu.measured"; "" before the first header.
        line: Counted from 1.
        text: The line without its comment.
        note: The comment on the line.
        above: The comment lines right above the paragraph that the line is in; if there are none, the comment on
            the header of the table, and above it.
    """

    table: str
    key: str
    line: int
    text: str
    note: str
    above: str

    @property
    def source(self) -> str:
        """All that the file says of where the value comes from."""
        return "; ".join(filter(None, (self.note, self.above)))


def entries(text: str) -> Iterator[Entry]:
    """The keys of a file, in its order. A paragraph ends at an empty line, a header or the next comment line.

    >>> [(e.key, e.source) for e in entries("[gpu]   # data sheet\\nsms = 132   # SXM\\nl2_bytes = 1")]
    [('sms', 'SXM; data sheet'), ('l2_bytes', 'data sheet')]
    """
    table = header = above = ""
    reading = False     # whether the line before was a comment line
    for number, line in enumerate(text.splitlines(), 1):
        code, note = _split(line)
        if not code:
            above = f"{above} {note}" if reading and note else note
            reading = bool(note)
            continue
        reading = False
        if found := HEADER.match(line):
            table = ".".join(part.strip(" \"'") for part in found[1].split("."))
            header = "; ".join(filter(None, (note, above)))
            above = ""
        elif found := KEY.match(line):
            *path, key = (part.strip(" \"'") for part in found[1].split("."))
            inner = ".".join(filter(None, (table, *path)))
            yield Entry(inner, key, number, code, note, above or header)


def check_sources(text: str) -> None:
    """Every key of a table of numbers has a source.

    Raises:
        MachineError: one has none.
    """
    for entry in entries(text):
        if entry.table not in NEED_NONE and not entry.source:
            raise MachineError(
                f"line {entry.line}: {entry.text!r} has no source: add a comment to the line or to its table"
            )


def _split(line: str) -> tuple[str, str]:
    """Code and comment of a line.

    >>> _split('name = "a#b"  # why')
    ('name = "a#b"', 'why')
    """
    blank = STRING.sub(lambda found: "_" * len(found[0]), line)
    at = blank.find("#")
    code, note = (line, "") if at < 0 else (line[:at], line[at:])
    return re.sub(r"\s*=\s*", " = ", code.strip(), count=1), note.strip("# \t")
