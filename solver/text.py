"""How numbers, durations and points are written for a reader.

In: plain values. Out: short text, the same on every machine.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping


def number(value: float) -> str:
    """A number as a reader wants it: whole numbers in full, others to four digits.

    >>> number(262144), number(0.123456), number(2.0)
    ('262,144', '0.1235', '2')
    """
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def counted(value: float, unit: str) -> str:
    """A number with its unit; a unit may be empty.

    >>> counted(4096, "bytes"), counted(0.5, "")
    ('4,096 bytes', '0.5')
    """
    return f"{number(value)} {unit}".rstrip()


def seconds(value: float) -> str:
    """A duration in the largest unit that leaves at least 1 before the point.

    >>> seconds(0.00125), seconds(3.2e-9), seconds(0.0)
    ('1.25 ms', '3.2 ns', '0 s')
    """
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns" if value else "0 s"


def point(values: Mapping[str, int]) -> str:
    """One choice of values.

    >>> point({"rows": 4, "columns": 64})
    'rows=4, columns=64'
    """
    return ", ".join(f"{name}={value}" for name, value in values.items())


def nearest(name: str, known: Iterable[str]) -> str:
    """A question that names the closest known name, or ''.

    >>> nearest("row", ["rows", "columns"])
    "Did you mean 'rows'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean '{close[0]}'?" if close else ""
