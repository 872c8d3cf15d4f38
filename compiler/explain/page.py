"""An explanation as one page of HTML that needs nothing else.

In: an `Explanation`. Out: the page as text. The template lays out; what it says and all shapes are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from rekern.explain import words
from rekern.explain.bars import bars, colour
from rekern.explain.curve import curve
from rekern.explain.roofline import roofline
from rekern.solver.text import number, seconds

if TYPE_CHECKING:
    import jinja2

    from rekern.explain.values import Explanation, LimitUse


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it says, how it looks, and how far a bar behind it reaches (of 1)."""

    text: str
    style: str = ""
    bar: float | None = None

    @property
    def lines(self) -> list[str]:
        """What it says, a line at a time."""
        return self.text.split("\n")

    @property
    def width(self) -> str:
        """Of the bar, as CSS has it."""
        return f"{100 * min(1.0, max(0.0, self.bar or 0.0)):.1f}%"


@dataclass(frozen=True)
class Table:
    """Rows below a head; the first cell of a row names it."""

    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]


@cache
def environment() -> jinja2.Environment:
    """The templates of pages: what they insert is escaped; charts are escaped when they are made."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("rekern.templates", "html"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def page(e: Explanation) -> str:
    """The page."""
    return environment().get_template("explain.html.j2").render(
        e=e,
        words=words,
        seconds=seconds,
        charts={"bars": bars(e), "roofline": roofline(e), "curve": curve(e)},
        tables={
            "parts": _parts(e),
            "terms": _terms(e),
            "floors": _floors(e),
            "binding": _limits([use for use in e.limits if use.holds]),
            "limits": _limits([use for use in e.limits if not use.holds]),
            "sensitivity": _sensitivity(e),
        },
    )  # fmt: skip


def _number(text: str, bar: float | None = None) -> Cell:
    return Cell(text, "n", bar)


def _parts(e: Explanation) -> Table:
    counts = list(dict.fromkeys(count for part in e.parts for count in part.counts))
    head = (Cell(""), _number("time"), _number("share"), Cell("bound by"), *map(_number, counts))
    rows = tuple(
        (
            Cell(f"{n}  {part.name}"),
            _number(seconds(part.seconds)),
            _number(words.percent(part.share), part.share),
            Cell(part.bound_by),
            *(_number(number(part.counts[c]) if c in part.counts else "") for c in counts),
        )
        for n, part in enumerate(e.parts, 1)
    )
    return Table(head, rows)


def _terms(e: Explanation) -> Table:
    terms = list(dict.fromkeys(term for part in e.parts for term in part.terms))
    head = (Cell(""), *(Cell(term, f"n key {colour(term, n)}") for n, term in enumerate(terms)))
    rows = tuple(
        (
            Cell(part.name),
            *(
                _number(f"{seconds(part.terms[t])}  {words.percent(part.shares[t])}", part.shares[t])
                if t in part.terms else Cell("")
                for t in terms
            ),
        )
        for part in e.parts
    )  # fmt: skip
    return Table(head, rows)


def _floors(e: Explanation) -> Table:
    head = (Cell(""), _number("predicted"), _number("floor"), Cell("set by"), _number("of the roofline"))
    rows = tuple(
        (
            Cell(f.pass_name),
            _number(seconds(f.seconds)),
            _number(seconds(f.floor_seconds)),
            Cell(words.least(f)),
            _number(words.percent(f.share), f.share),
        )
        for f in e.floors
    )
    return Table(head, rows)


def _limits(uses: Sequence[LimitUse]) -> Table:
    next_value = Cell("next value, if it were not there")
    head = (Cell("limit"), _number("used"), _number("left"), next_value, _number("rules out"))
    rows = tuple(
        (
            Cell(use.name),
            _number(f"{number(use.used)} of {words.used(use.bound, use.unit)}", 1 - use.slack),
            _number(words.percent(use.slack)),
            Cell("\n".join(words.held(h, use.name) for h in use.holds)),
            _number(words.ruled_out(use)),
        )
        for use in uses
    )
    return Table(head, rows)


def _sensitivity(e: Explanation) -> Table:
    head = (_number(e.sensitivity.variable), _number("best time"), _number("more"), Cell(""))
    rows = []
    for point in e.sensitivity.points:
        chosen = point.value == e.sensitivity.chosen
        name = _number(number(point.value))
        if point.seconds is None or point.behind is None:
            rows.append((name, Cell(""), Cell(""), Cell(f"does not fit: {point.reason}", "quiet")))
            continue
        more = "" if chosen else words.difference(point.behind)
        rows.append((name, _number(seconds(point.seconds)), _number(more), Cell("chosen" if chosen else "", "strong")))
    return Table(head, tuple(rows))
