"""What an explanation says, as plain values.

In: numbers and names. Out: frozen values that JSON can hold. Times are in seconds, shares are fractions of 1; all
times are predictions of the model, none is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rekern.explain.text import text

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


@dataclass(frozen=True)
class Subject:
    """The call that is explained.

    Args:
        kind: "gpu" or "cpu".
        time: Steps; None where no size depends on it.
        threads: Of a CPU; None on a GPU.
        times_are: What the time of a choice is the time of.
    """

    spec: str
    lengths: Mapping[str, int]
    batch: int
    heads: int
    time: int | None
    dtype: str
    gradient: bool
    target: str
    kind: str
    threads: int | None
    times_are: str


@dataclass(frozen=True)
class Part:
    """A launch of a kernel; on a CPU: what a step consists of.

    Args:
        seconds: Of the part; `share` of the whole choice.
        bound_by: The longest of `terms`.
        terms: What each unit needs by itself; most of it overlaps.
        shares: The same as shares of `seconds`.
        exposed: What of `terms` is not hidden behind others: it adds up to `seconds`.
        counts: Blocks, waves, blocks on an SM, registers of a thread, shared bytes of a block.
        flops: Padding included; None where the model does not say. `dram_bytes` and `l2_bytes` too.
    """

    name: str
    pass_name: str
    seconds: float
    share: float
    bound_by: str
    terms: Mapping[str, float]
    shares: Mapping[str, float]
    exposed: Mapping[str, float]
    counts: Mapping[str, int]
    flops: float | None = None
    flops_per_s: float | None = None
    dram_bytes: float | None = None
    dram_intensity: float | None = None
    l2_bytes: float | None = None
    l2_intensity: float | None = None


@dataclass(frozen=True)
class Floor:
    """What no implementation of a pass can be faster than.

    Args:
        seconds: Predicted for the pass.
        bytes: Operands, results and gradients, each moved once.
        flops: Of the equations, without padding and without what is computed twice.
        unit: "matrix" or "vector": the fastest unit that these operations can run on.
        bound_by: "memory", or `unit`.
        share: `floor_seconds` of `seconds`: 1 is at the roofline.
    """

    pass_name: str
    seconds: float
    bytes: int
    memory_seconds: float
    flops: int
    unit: str
    arithmetic_seconds: float
    floor_seconds: float
    bound_by: str
    share: float


@dataclass(frozen=True)
class Held:
    """A size that a limit keeps from its next value.

    Args:
        value: Chosen; `next` is its neighbour, of which the limit would use `used`.
        seconds: By how much the choice would be slower with `next` if the limit were not there; below 0: faster.
    """

    variable: str
    value: int
    next: int
    used: float
    seconds: float


@dataclass(frozen=True)
class LimitUse:
    """What the choice uses of a limit.

    Args:
        slack: What is left, as a share of the bound.
        holds: Sizes that this limit keeps from their next value; the limit is binding if there are any.
        choices: Of the variables that the limit reads; `rejected` of them, a share `rejected_share`, break it.
            None: too many to count.
    """

    name: str
    used: float
    bound: float
    unit: str
    reason: str
    slack: float
    holds: tuple[Held, ...]
    choices: int
    rejected: int | None
    rejected_share: float | None


@dataclass(frozen=True)
class Change:
    """Where a choice is slower or faster than the best.

    Args:
        place: A launch; a pass, where schedules are compared, because they share no launches.
        seconds: More than the best in this place.
        term: What changes most there: it needs `term_seconds`, `best_seconds` in the best choice.
    """

    place: str
    seconds: float
    term: str
    term_seconds: float
    best_seconds: float


@dataclass(frozen=True)
class Other:
    """A choice that lost.

    Args:
        behind: Seconds more than the best, `behind_share` of its seconds; `times`: as a multiple of them.
        sizes: All of its values.
        differs: Sizes that are not those of the best, as (its value, value of the best); empty for another schedule.
        changes: Places that are different, the largest first; together they are `behind`.
    """

    schedule: str
    seconds: float
    behind: float
    behind_share: float
    times: float
    sizes: Mapping[str, int]
    differs: Mapping[str, tuple[int, int]]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Unfit:
    """A schedule of which no sizes fit; `conflicts` are limits that exclude each other."""

    schedule: str
    conflicts: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Point:
    """The best choice with one size held at `value`, `behind` the best of all; None and a reason where nothing fits."""

    value: int
    seconds: float | None
    behind: float | None
    parts: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Sensitivity:
    """How the best time depends on one size, all others chosen anew."""

    variable: str
    chosen: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Ceilings:
    """Rates that kernels reach on the machine, for a roofline. None: the chip has no such unit."""

    dram_bytes_per_s: float
    l2_bytes_per_s: float
    matrix_flops_per_s: float | None
    vector_flops_per_s: float


@dataclass(frozen=True)
class Explanation:
    """Why a call gets its schedule and sizes.

    Args:
        proven: No other choice is cheaper under this model.
        near: Choices that cost so little more that the model cannot tell them apart are not among `others`: this
            share of the best time.
        others: Schedules, and changes of the sizes of one part, that lost; the nearest first.
        refused: Schedules that do not apply, with the reason.
        choices: Of all sizes of the chosen schedule, before any limit.
    """

    subject: Subject
    schedule: str
    seconds: float
    proven: bool
    sizes: Mapping[str, int]
    parts: tuple[Part, ...]
    floors: tuple[Floor, ...]
    ceilings: Ceilings | None
    limits: tuple[LimitUse, ...]
    near: float
    others: tuple[Other, ...]
    refused: Mapping[str, str]
    unfit: tuple[Unfit, ...]
    choices: int
    sensitivity: Sensitivity

    def to_json(self) -> dict[str, Json]:
        """The same as dicts and lists; `json.loads(json.dumps(...))` gives an equal value."""
        found = plain(self)
        assert isinstance(found, dict)
        return {"schema": 1, "figures_are": "predicted", **found}

    def __str__(self) -> str:
        return text(self)

    def to_html(self) -> str:
        """One page that needs nothing else: no script, no network."""
        from rekern.explain.page import page  # jinja is needed for this alone

        return page(self)


def plain(value: object) -> Json:
    """A value as JSON has it: frozen values and mappings are dicts, tuples are lists.

    >>> plain(Held("warps", 4, 8, 512.0, -3e-05))
    {'variable': 'warps', 'value': 4, 'next': 8, 'used': 512.0, 'seconds': -3e-05}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    assert value is None or isinstance(value, str | int | float | bool), f"JSON has no {type(value).__name__}"
    return value
