"""How numbers and names of an explanation are written, in text and on the page alike.

In: plain values. Out: short text with units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rekern.solver.text import counted, number, seconds

if TYPE_CHECKING:
    from rekern.explain.values import Explanation, Floor, Held, LimitUse, Other, Subject

PREDICTED = "All figures are predicted by the model, none is measured."
SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
MOST_CHANGES = 2  # places where a choice loses that are told of
FLOOR_IS = (
    "The floor: operands, results and gradients moved once at the rate that memory reaches, or the operations of the "
    "equations on the fastest unit that can do them, whichever takes longer."
)
SHORT_NAMES = {"blocks on an SM": "blocks/SM", "shared bytes": "shared"}


def percent(share: float) -> str:
    """A share of 1.

    >>> percent(0.8091), percent(0.0031), percent(6e-5)
    ('81 %', '0.3 %', '< 0.1 %')
    """
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def scaled(value: float, unit: str) -> str:
    """Three digits, a prefix and a unit.

    >>> scaled(3.35e12, "B/s"), scaled(537919488, "B"), scaled(12, "B")
    ('3.35 TB/s', '538 MB', '12 B')
    """
    for scale, prefix in SCALES:
        if abs(value) >= scale:
            return f"{float(f'{value / scale:.3g}'):g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def difference(value: float) -> str:
    """Seconds more or less.

    >>> difference(3.1e-05), difference(-2e-06)
    ('+31 us', '-2 us')
    """
    return f"{'-' if value < 0 else '+'}{seconds(abs(value))}"


def call(subject: Subject) -> str:
    """The call in one line."""
    lengths = "".join(f" {axis}={length}" for axis, length in subject.lengths.items())
    time = [] if subject.time is None else [f"time {subject.time}"]
    threads = [] if subject.threads is None else [f"{subject.threads} thread{'s' * (subject.threads > 1)}"]
    passes = "forward and gradient" if subject.gradient else "forward"
    parts = [f"batch {subject.batch}", f"heads {subject.heads}", *time, subject.dtype, *threads, passes]
    return f"{subject.spec}{lengths}, {', '.join(parts)}, on {subject.target}"


def terms_title(subject: Subject) -> str:
    """What the terms of a part are."""
    if subject.kind == "cpu":
        return "what the time consists of"
    return "what each unit needs, beside its share of the launch (most of it overlaps)"


def chosen(e: Explanation) -> str:
    """The choice in one line."""
    return f"{e.schedule}: {seconds(e.seconds)} for {e.subject.times_are}; {proof(e)}"


def proof(e: Explanation) -> str:
    """Among how many it is the best."""
    return f"{'proven best' if e.proven else 'best found'} of {number(e.choices)} choices"


def bars_say(subject: Subject) -> str:
    """What the bars show."""
    if subject.kind == "cpu":
        return "The terms follow one another on a core, so they add up."
    return "A bar has the longest term of a launch in full, and of the others what it does not hide."


def others_are(e: Explanation) -> str:
    """Which choices are told of."""
    return (
        "One launch changed at a time, or one size that several launches read, or the schedule; each for the best that "
        f"costs at least {percent(e.near)} more, which is as fine as the model can tell."
    )


def some_do_not_fit(e: Explanation) -> bool:
    """Whether some values of the size that is varied have no choice."""
    return any(point.seconds is None for point in e.sensitivity.points)


def sizes(e: Explanation) -> list[tuple[str, str]]:
    """Sizes by the launch or pass whose name they begin with; all others first, under ''."""
    names = dict.fromkeys(name for part in e.parts for name in (part.name, part.pass_name))
    return grouped(e.sizes, list(names))


def grouped(values: Mapping[str, int], names: Sequence[str]) -> list[tuple[str, str]]:
    """Sizes by the name that they begin with.

    >>> grouped({"chunk": 16, "forward warps": 4, "forward stages": 5}, ["forward"])
    [('', 'chunk 16'), ('forward', 'warps 4, stages 5')]
    """
    found: dict[str, list[str]] = {"": []}
    for name, value in values.items():
        owner = next((n for n in names if name.startswith(f"{n} ")), "")
        found.setdefault(owner, []).append(f"{name.removeprefix(owner).strip()} {value}")
    return [(owner, ", ".join(texts)) for owner, texts in found.items() if texts]


def least(found: Floor) -> str:
    """What sets the floor of a pass."""
    if found.bound_by == "memory":
        return f"{scaled(found.bytes, 'B')} to move"
    return f"{scaled(found.flops, 'FLOP')} on {found.unit} units"


def floor(found: Floor) -> str:
    """A pass against what no implementation can be faster than."""
    return (
        f"{seconds(found.seconds)} predicted, floor {seconds(found.floor_seconds)} ({least(found)}): "
        f"{percent(found.share)} of the roofline"
    )


def held(found: Held, limit: str) -> str:
    """A size that cannot have its next value, and what that would bring."""
    owner = limit.partition(":")[0]
    name = found.variable.removeprefix(f"{owner} ")
    effect = difference(found.seconds) if found.seconds < 0 else "slower anyway"
    return f"{name} {found.value} -> {found.next} ({effect})"


def ruled_out(use: LimitUse) -> str:
    """How many choices a limit rules out, of those of the sizes that it reads."""
    if use.rejected is None or use.rejected_share is None:
        return f"not counted, of {number(use.choices)}"
    return f"{number(use.rejected)} of {number(use.choices)}, {percent(use.rejected_share)}"


def other(found: Other, best: str) -> str:
    """Which choice lost."""
    if found.schedule != best:
        return f"schedule {found.schedule}"
    return ", ".join(f"{name} {value} instead of {mine}" for name, (value, mine) in found.differs.items())


def behind(found: Other) -> str:
    """By how much it lost."""
    share = f"{found.times:.1f} times the best" if found.times >= 2 else percent(found.behind_share)
    return f"{difference(found.behind)} ({share})"


def why(found: Other) -> list[str]:
    """The places that cost most, and the one that gains most; each with the term that changes most there."""
    lost = [c for c in found.changes if c.seconds > 0][:MOST_CHANGES]
    gained = [c for c in found.changes if c.seconds < 0][:1]
    return [
        f"{difference(c.seconds)} in {c.place}: {c.term} {seconds(c.term_seconds)} instead of {seconds(c.best_seconds)}"
        for c in (*lost, *gained)
    ]


def used(value: float, unit: str) -> str:
    """What is used of a limit.

    >>> used(64, "registers")
    '64 registers'
    """
    return counted(value, unit)
