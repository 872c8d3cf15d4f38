"""Bars of time: one for each launch, made of the terms that are not hidden.

In: an `Explanation`. Out: SVG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rekern.explain import svg
from rekern.explain.svg import Scale
from rekern.explain.words import percent
from rekern.solver.text import seconds

if TYPE_CHECKING:
    from rekern.explain.values import Explanation

WIDTH, ROW, BAR = 720, 34, 20
TOP, BOTTOM = 8, 34
LETTER = 7.2  # pixels of a letter, on average and a little more
# Colours are those of Okabe and Ito, which people with any colour vision tell apart.
COLOURS = {"memory": 1, "L2": 2, "matrix": 3, "shared": 4, "vector": 5, "latency": 6, "launches": 7}
SPARE = (1, 3, 5, 6, 2, 4, 7)


def colour(term: str, place: int) -> str:
    """The class of a term: its own, or one by its place where it is none of a GPU."""
    return f"c{COLOURS.get(term) or SPARE[place % len(SPARE)]}"


def bars(e: Explanation) -> str:
    """The chart."""
    terms = list(dict.fromkeys(term for part in e.parts for term in part.terms))
    styles = {term: colour(term, n) for n, term in enumerate(terms)}
    left = 24 + LETTER * max(len(f"{n} {part.name}") for n, part in enumerate(e.parts, 1))
    ticks = svg.time_ticks(max(part.seconds for part in e.parts))
    x = Scale(0.0, ticks[-1][0], left, WIDTH - 80)
    named, top = svg.legend(left, TOP + 10, [(styles[t], t) for t in terms], WIDTH - left)
    bottom = top + 8 + ROW * len(e.parts)
    shapes = list(named)
    for value, written in ticks:
        shapes.append(svg.line(x(value), top, x(value), bottom, "grid"))
        shapes.append(svg.text(x(value), bottom + 18, written, "tick", "middle"))
    for n, part in enumerate(e.parts):
        y = top + 8 + ROW * n + (ROW - BAR) / 2
        shapes.append(svg.text(left - 10, y + 15, f"{n + 1}  {part.name}", "small", "end"))
        here = x.start
        for term, value in part.exposed.items():
            width = x(value) - x.start
            said = f"{part.name}: {term} {seconds(value)} not hidden, {seconds(part.terms[term])} in all"
            shapes.append(svg.rect(here, y, width, BAR, styles[term], said))
            here += width
        shapes.append(svg.text(here + 6, y + 15, f"{seconds(part.seconds)}, {percent(part.share)}", "small"))
    return svg.chart(WIDTH, bottom + BOTTOM, f"time of each part of {e.subject.spec}", shapes)
