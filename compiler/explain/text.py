"""An explanation as text: aligned columns, no colour, the same on every machine.

In: an `Explanation`. Out: its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rekern.explain import words
from rekern.solver.text import number, seconds

if TYPE_CHECKING:
    from rekern.explain.values import Explanation, LimitUse, Part, Point

MOST_LIMITS = 5  # that hold nothing back
GAP = "  "


def text(e: Explanation) -> str:
    """All of it, a section at a time."""
    sections = (
        [words.call(e.subject), words.PREDICTED],
        [words.chosen(e), *_indented(table("ll", [(owner or "all", sizes) for owner, sizes in words.sizes(e)]))],
        _section("where the time goes", _parts(e)),
        _section(words.terms_title(e.subject), _terms(e)),
        _section("against the roofline", table("ll", [(f.pass_name, words.floor(f)) for f in e.floors])),
        _section("limits that hold a size back", _limits([u for u in e.limits if u.holds])),
        _section("other limits, the least slack first", _limits([u for u in e.limits if not u.holds][:MOST_LIMITS])),
        _section("the nearest choices that lost", _others(e)),
        _section("schedules that do not apply", table("ll", list(e.refused.items()))),
        _section("schedules that do not fit", [line for u in e.unfit for line in u.text.splitlines()]),
        _section("choices that a limit rules out, of those of the sizes that it reads", _rejected(e)),
        _section(f"best time by {e.sensitivity.variable}, all other sizes chosen anew", _sensitivity(e)),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def table(align: str, rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> list[str]:
    """Lines of aligned columns; `align`: "l" or "r" for each.

    >>> table("rl", [("16", "2 us"), ("128", "1.5 us")], ("size", "time"))
    ['size  time', '  16  2 us', ' 128  1.5 us']
    """
    found = list(rows)
    if not found:
        return []
    found = [tuple(head), *found] if head else found
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    place = {"l": str.ljust, "r": str.rjust}
    return [
        GAP.join(place[side](cell, width) for cell, width, side in zip(row, widths, align, strict=True)).rstrip()
        for row in found
    ]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *_indented(lines)] if lines else []


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _parts(e: Explanation) -> list[str]:
    counts = list(dict.fromkeys(count for part in e.parts for count in part.counts))
    names = [words.SHORT_NAMES.get(count, count) for count in counts]
    head = ("launch" if e.subject.kind == "gpu" else "", "time", "share", "bound by", *names)
    rows = [
        (
            part.name,
            seconds(part.seconds),
            words.percent(part.share),
            part.bound_by,
            *(number(part.counts[count]) if count in part.counts else "" for count in counts),
        )
        for part in e.parts
    ]
    return table("lrrl" + "r" * len(names), rows, head)


def _terms(e: Explanation) -> list[str]:
    terms = list(dict.fromkeys(term for part in e.parts for term in part.terms))

    def row(part: Part) -> list[str]:
        cells = [part.name]
        for term in terms:
            there = term in part.terms
            cells += [seconds(part.terms[term]), words.percent(part.shares[term])] if there else ["", ""]
        return cells

    return table("l" + "rr" * len(terms), map(row, e.parts), ["", *(cell for term in terms for cell in (term, ""))])


def _limits(uses: Sequence[LimitUse]) -> list[str]:
    rows = [
        (
            use.name,
            number(use.used),
            words.used(use.bound, use.unit),
            f"{words.percent(use.slack)} left",
            ", ".join(words.held(h, use.name) for h in use.holds),
        )
        for use in uses
    ]
    return table("lrrrl", rows, ("limit", "used", "bound", "slack", ""))


def _others(e: Explanation) -> list[str]:
    lines = []
    for n, found in enumerate(e.others, 1):
        lines.append(f"{n}. {words.behind(found)}: {words.other(found, e.schedule)}")
        lines += [f"   {reason}" for reason in words.why(found)]
    return lines


def _rejected(e: Explanation) -> list[str]:
    rows = [
        (use.name, number(use.rejected), number(use.choices), words.percent(use.rejected_share))
        for use in sorted(e.limits, key=lambda use: -(use.rejected_share or 0.0))
        if use.rejected and use.rejected_share is not None
    ]
    return table("lrrr", rows, ("limit", "ruled out", "of", ""))


def _sensitivity(e: Explanation) -> list[str]:
    def row(point: Point) -> tuple[str, str, str, str]:
        mark = "chosen" if point.value == e.sensitivity.chosen else ""
        if point.seconds is None or point.behind is None:
            return number(point.value), "", "", f"does not fit: {point.reason}"
        slower = "" if mark else words.difference(point.behind)
        return number(point.value), seconds(point.seconds), slower, mark

    name = e.sensitivity.variable
    return table("rrrl", map(row, e.sensitivity.points), (name, "time", "", ""))
