"""What every number of a machine must be: of its type, and plausible in the unit that its key names.

In: a frozen table (`Cpu`, `Gpu`, `Machine`). Out: nothing, or a `MachineError` that quotes key and value and says
what was expected; a number in another unit than the key says is recognised where that makes it plausible.
"""

from __future__ import annotations

import math
import re
import types
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rekern.hwmodels.errors import MachineError


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that make sense for some keys.

    Args:
        keys: A regular expression that matches all of the key.
        unit: In words; "" for counts.
        others: Units that people write by mistake, each with its size in `unit`.
    """

    keys: str
    low: float
    high: float
    unit: str = ""
    others: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return f"{_short(self.low)} to {_short(self.high)}{' ' * bool(self.unit)}{self.unit}"


# The first that matches a key holds. Bounds leave a factor of ten or so around every machine there is: they find
# wrong units, not wrong digits.
RANGES = (
    Range(r"\w*bytes_per_s", 1e9, 1e14, "bytes per second", (("GB/s", 1e9), ("TB/s", 1e12))),
    Range(r"\w*bytes_per_cycle", 1, 4096, "bytes per cycle"),
    Range(r"\w*flops_per_s", 1e11, 1e17, "operations per second", (("TFLOP/s", 1e12), ("PFLOP/s", 1e15))),
    Range(r"\w*_hz", 2e8, 1e10, "hertz", (("MHz", 1e6), ("GHz", 1e9))),
    Range(r"\w*_seconds", 1e-10, 1e-2, "seconds", (("us", 1e-6), ("ns", 1e-9))),
    Range(r"\w*_share", 0.01, 1, "of the peak", (("percent", 0.01),)),
    Range(r"(vector|line|mma_k)_bytes", 4, 1024, "bytes", (("bits", 1 / 8),)),
    Range(r"shared_bytes_reserved", 16, 65_536, "bytes", (("KiB", 1024),)),
    Range(r"shared_bytes\w*", 8192, 4e6, "bytes", (("KiB", 1024),)),
    Range(r"dram_bytes", 1e8, 1e13, "bytes", (("GiB", 2**30),)),
    Range(r"l\d_bytes\w*", 4096, 1e10, "bytes", (("MiB", 2**20), ("KiB", 1024))),
    Range(r"sms|cores", 1, 4096),
    Range(r"\w*threads\w*|registers_per_thread|\w*blocks\w*|mma_\w|register_granule", 1, 4096),
    Range(r"registers_per_sm", 1024, 1e6, "registers of 32 bits", (("Ki", 1024),)),
    Range(r"float32_lanes|special_per_cycle|fma_per_cycle|vector_registers|tensor_memory_columns", 0.25, 4096),
)


def check(table: Any, where: str) -> None:
    """Every field has the type that is declared for it (2 will do for 2.0) and is in the range of its unit.

    Args:
        table: An instance of a frozen dataclass.
        where: What an error calls it.

    Raises:
        MachineError: a field is not as it must be.
    """
    for key, hint in get_type_hints(type(table)).items():
        value = getattr(table, key)
        allowed = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not any(_fits(value, kind) for kind in allowed):
            expected = " or ".join(_in_words(kind) for kind in allowed if kind is not type(None))
            raise MachineError(f"{where}{key} = {value!r}, expected {expected}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            fault = implausible(key, value)
            if fault:
                raise MachineError(f"{where}{key} = {value!r}, {fault}")
            if float in allowed:
                object.__setattr__(table, key, float(value))


def implausible(key: str, value: float) -> str:
    """What is wrong with the number, in words; "" if nothing is.

    >>> implausible("dram_bytes_per_s", 3350)
    'expected 1e9 to 1e14 bytes per second; is it in GB/s?'
    """
    if not 0 < value < math.inf:
        return "expected more than 0; leave out what is unknown"
    for known in RANGES:
        if re.fullmatch(known.keys, key):
            if known.low <= value <= known.high:
                return ""
            likely = [name for name, scale in known.others if known.low <= value * scale <= known.high]
            return f"expected {known}" + (f"; is it in {' or '.join(likely)}?" if likely else "")
    return ""


def unit(key: str) -> str:
    """The unit of a key, in words; "" for counts, types and names.

    >>> unit("clock_hz"), unit("sms")
    ('hertz', '')
    """
    return next((known.unit for known in RANGES if re.fullmatch(known.keys, key)), "")


def _short(number: float) -> str:
    """As people write it.

    >>> _short(1e9), _short(4096), _short(0.01), _short(1e-10)
    ('1e9', '4096', '0.01', '1e-10')
    """
    text = re.sub(r"e\+?(-?)0*", r"e\1", f"{number:g}")
    return text if "e" in text or number < 1e5 else f"{number:.0e}"


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(kind, "a table")
