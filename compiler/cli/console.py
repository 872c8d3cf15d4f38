"""What is printed: tables and text for people, one JSON value for programs.

In: values. Out: text on stdout. Piped output is plain, and wide enough that no table is cut.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def console(stderr: bool = False) -> Console:
    """Made for each use, so that it writes to where stdout is now."""
    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(file=stream, width=wide, highlight=False, markup=False, soft_wrap=False)


def write(text: str, style: str = "") -> None:
    """A text as it stands, with its own line breaks."""
    console().print(Text(text, style=style), soft_wrap=True)


def write_json(value: object) -> None:
    """A value as JSON; numbers that JSON does not have become null."""
    sys.stdout.write(json.dumps(plain(value), indent=2) + "\n")


def plain(value: object) -> object:
    """`value` without what JSON lacks: tuples become lists, infinities and NaN become None."""
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case dict():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple():
            return [plain(v) for v in value]
        case _:
            return value


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> None:
    """Print a table. `right`: columns of numbers. `keep`: columns that are not broken into lines."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", no_wrap=column in right or column in keep
        )
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    out = console()
    if out.is_terminal:
        out.print(made)
        return
    with out.capture() as text:
        out.print(made)
    sys.stdout.write("\n".join(line.rstrip() for line in text.get().splitlines()) + "\n")


def seconds(value: float) -> str:
    """Three digits and a unit.

    >>> seconds(0.00123), seconds(12.3e-6), seconds(2.0)
    ('1.23 ms', '12.3 us', '2.00 s')
    """
    for unit, scale in UNITS.items():
        if value >= scale or unit == "us":
            return f"{digits(value / scale)} {unit}"
    raise AssertionError("every time has a unit")


def between(low: float, high: float) -> str:
    """A range of seconds, with one unit.

    >>> between(0.00119, 0.00128)
    '1.19-1.28 ms'
    """
    text, unit = seconds(high).split()
    return f"{digits(low / UNITS[unit])}-{text} {unit}"


def digits(value: float) -> str:
    """Three digits, without an exponent.

    >>> digits(1.234), digits(12.34), digits(1234.5)
    ('1.23', '12.3', '1234')
    """
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def size(count: int) -> str:
    """Bytes with a unit.

    >>> size(512), size(3_400_000)
    ('512 B', '3.40 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{digits(count / scale)} {unit}"
    return f"{count} B"
