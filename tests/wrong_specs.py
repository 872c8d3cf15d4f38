"""Specs that are wrong on purpose, and their messages as one text to read.

In: bodies under `@wrong`. Out: `catalogue(module)`, one message each, without line numbers.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from inspect import signature

import pytest

from rekern.errors import SpecError
from rekern.spec import recurrence

_WRONG: dict[str, list[tuple[str, Callable[[], object]]]] = defaultdict(list)


def wrong(function: Callable[..., object]) -> Callable[..., object]:
    """Register the body of a spec, or a function without parameters that does what must fail."""

    def fail() -> object:
        return recurrence(function).step if signature(function).parameters else function()

    _WRONG[function.__module__].append((function.__name__, fail))
    return function


def message(call: Callable[[], object]) -> str:
    with pytest.raises(SpecError) as caught:
        call()
    return re.sub(r"line \d+ of its file", "line N of its file", str(caught.value))


def catalogue(module: str) -> str:
    return "\n\n".join(f"# {name}\n{message(call)}" for name, call in _WRONG[module])
