"""Every exception that rekern raises on purpose, and how a message quotes the user's line.

In: a fault and, where there is one, the place in the user's source. Out: a message that quotes what was
written, says what was expected, and what to do next.
"""

from __future__ import annotations

import linecache
from types import FrameType, TracebackType


class RekernError(Exception):
    """Base of all errors of rekern."""


class SpecError(RekernError):
    """A recurrence cannot be read: its declaration or its body is wrong."""


class AnalysisError(RekernError):
    """A recurrence is well formed, but a question about it has no answer."""


class ArgumentError(RekernError, ValueError):
    """A kernel was called with an operand that does not fit its spec."""


class PlanError(RekernError):
    """No plan exists for what was asked (schedule, target or sizes)."""


class BuildError(RekernError):
    """The compiler of the target failed or is missing."""


class LaunchError(RekernError, RuntimeError):
    """A kernel was built, but the GPU did not take it."""


class DoubleBackwardError(RekernError, RuntimeError):
    """The gradient of a gradient was asked for; kernels are differentiable once."""


def quote_frame(frame: FrameType, lasti: int) -> str:
    """The source line of `frame` at instruction `lasti`, with carets under the failing expression."""
    code = frame.f_code
    positions = list(code.co_positions())
    line, end_line, start, end = positions[lasti // 2] if lasti // 2 < len(positions) else (None,) * 4
    number = line if line is not None else frame.f_lineno
    text = linecache.getline(code.co_filename, number).rstrip("\n")
    if not text.strip():
        return f"    line {number} of {code.co_filename}"
    quoted = text.strip()
    if start is None or end is None or end_line != line:
        return f"    {quoted}"
    indent = len(text) - len(text.lstrip())
    # positions are in bytes
    before, under = (len(text.encode()[a:b].decode()) for a, b in ((0, start), (start, end)))
    return f"    {quoted}\n    {' ' * (before - indent)}{'^' * max(1, under)}"


def quote_traceback(trace: TracebackType | None, filename: str, first_line: int, name: str) -> str:
    """The innermost line of the function `name` of `filename` in `trace`, quoted; '' if it is not there."""
    found = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == filename and code.co_name == name and code.co_firstlineno == first_line:
            found = quote_frame(trace.tb_frame, trace.tb_lasti)
        trace = trace.tb_next
    return found
