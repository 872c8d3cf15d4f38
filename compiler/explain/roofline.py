"""The roofline of a call: what each launch computes a second, against what memory and units allow.

In: an `Explanation`. Out: SVG. Both axes are logarithmic; see Williams, Waterman, Patterson 2009.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from rekern.explain import svg
from rekern.explain.svg import Scale
from rekern.explain.words import scaled
from rekern.solver.text import seconds

if TYPE_CHECKING:
    from rekern.explain.values import Ceilings, Explanation, Part

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 26, 52
DOT = 9.0
LETTER = 7.2  # pixels of a letter, on average and a little more
ROOM = 50.0  # between a label and a dot; more is no better

Spot: TypeAlias = tuple[float, float]


def roofline(e: Explanation) -> str:
    """The chart; '' where the machine has no ceilings or no launch computes anything."""
    parts = [(n, p) for n, p in enumerate(e.parts, 1) if p.flops_per_s and p.dram_intensity]
    if e.ceilings is None or not parts:
        return ""
    x, y = _scales(e.ceilings, [p for _, p in parts])
    shapes = [*_axes(x, y), *_ceilings(e.ceilings, [p for _, p in parts], x, y), *_dots(parts, x, y)]
    return svg.chart(WIDTH, HEIGHT, f"roofline of {e.subject.spec} on {e.subject.target}", shapes)


def _scales(rates: Ceilings, parts: list[Part]) -> tuple[Scale, Scale]:
    """Whole decades around all dots and the ridges; the sloped ceilings begin at the left edge."""
    roof = rates.matrix_flops_per_s or rates.vector_flops_per_s
    across = [i for p in parts for i in (p.dram_intensity, p.l2_intensity) if i] + [roof / rates.dram_bytes_per_s]
    up = [p.flops_per_s for p in parts if p.flops_per_s] + [roof, rates.vector_flops_per_s]

    def whole(values: list[float]) -> Spot:
        return 10.0 ** math.floor(math.log10(min(values) / 1.5)), 10.0 ** math.ceil(math.log10(max(values) * 1.5))

    return (
        Scale(*whole(across), LEFT, WIDTH - RIGHT, log=True),
        Scale(*whole(up), HEIGHT - BOTTOM, TOP, log=True),
    )


def _axes(x: Scale, y: Scale) -> list[str]:
    shapes = []
    for tick in svg.decades(x.low, x.high):
        shapes.append(svg.line(x(tick), y.start, x(tick), y.end, "grid"))
        shapes.append(svg.text(x(tick), y.start + 18, svg.power(tick), "tick", "middle"))
    for tick in svg.decades(y.low, y.high):
        shapes.append(svg.line(x.start, y(tick), x.end, y(tick), "grid"))
        shapes.append(svg.text(x.start - 8, y(tick) + 4, svg.power(tick), "tick", "end"))
    shapes.append(svg.text((x.start + x.end) / 2, HEIGHT - 8, "FLOP per byte", "axis", "middle"))
    shapes.append(svg.text(x.start - 52, TOP - 12, "FLOP/s", "axis"))
    return shapes


def _ceilings(rates: Ceilings, parts: list[Part], x: Scale, y: Scale) -> list[str]:
    roof = rates.matrix_flops_per_s or rates.vector_flops_per_s
    dots = [
        (x(i), y(p.flops_per_s)) for p in parts for i in (p.dram_intensity, p.l2_intensity) if i and p.flops_per_s
    ]
    shapes = []
    for name, rate, away in (("memory", rates.dram_bytes_per_s, 16.0), ("L2", rates.l2_bytes_per_s, -7.0)):
        first, ridge = max(x.low, y.low / rate), min(x.high, roof / rate)
        here, there = (x(first), y(first * rate)), (x(ridge), y(ridge * rate))
        shapes.append(svg.line(*here, *there, f"ceiling line-{name}"))
        shapes.append(_beside(here, there, away, f"{name} {scaled(rate, 'B/s')}", dots))
    for name, flat in (("matrix", rates.matrix_flops_per_s), ("vector", rates.vector_flops_per_s)):
        if flat is not None:
            start = max(x.low, flat / (rates.l2_bytes_per_s if flat == roof else rates.dram_bytes_per_s))
            shapes.append(svg.line(x(start), y(flat), x.end, y(flat), f"ceiling line-{name}"))
            said = f"{name} units {scaled(flat, 'FLOP/s')}"
            shapes.append(svg.text(x.end - 4, y(flat) - 6, said, "small", "end"))
    return shapes


def _beside(here: Spot, there: Spot, away: float, said: str, dots: list[Spot]) -> str:
    """A text along a line, so many pixels below it, where it is farthest from all dots."""
    lean = math.atan2(there[1] - here[1], there[0] - here[0])
    length, across = math.dist(here, there), LETTER * len(said)

    def along(distance: float) -> Spot:
        return here[0] + distance * math.cos(lean), here[1] + distance * math.sin(lean)

    def room(start: float) -> float:
        spots = [along(start + across * n / 4) for n in range(5)]
        return min((math.dist(s, dot) for s in spots for dot in dots), default=math.inf)

    starts = [12 + (length - across - 24) * n / 20 for n in range(21)]
    x, y = along(max(starts, key=lambda start: (min(room(start), ROOM), -start)))
    return svg.text(
        x - away * math.sin(lean), y + away * math.cos(lean), said, "small", turn=math.degrees(lean)
    )  # fmt: skip


def _dots(parts: list[tuple[int, Part]], x: Scale, y: Scale) -> list[str]:
    """A numbered dot at the bytes of memory, joined to a small one at the bytes of L2."""
    joins, dots = [], []
    taken: list[Spot] = []
    for number, part in parts:
        assert part.dram_intensity and part.flops_per_s
        here, up = x(part.dram_intensity), y(part.flops_per_s)
        if part.l2_intensity:
            there = x(part.l2_intensity)
            joins += [svg.line(there, up, here, up, "join"), svg.circle(there, up, 3, "dot-l2")]
        said = (
            f"{part.name}: {scaled(part.flops_per_s, 'FLOP/s')} at {part.dram_intensity:.3g} FLOP per byte, "
            f"{seconds(part.seconds)}"
        )
        label = _free(here, up, taken)
        if label != (here, up):
            joins += [svg.line(here, up, *label, "join"), svg.circle(here, up, 4, "dot", said)]
        dots.append(svg.circle(*label, DOT, "dot", said))
        dots.append(svg.text(label[0], label[1] + 4, str(number), "in-dot", "middle"))
    return [*joins, *dots]


def _free(x: float, y: float, taken: list[Spot]) -> Spot:
    """The place nearest to a point where a dot covers no other; it is taken from now on."""
    around = [(x, y)] + [
        (x + r * math.cos(a), y + r * math.sin(a))
        for r in (2.2 * DOT, 3.4 * DOT, 4.6 * DOT)
        for a in (math.pi / 4 * n for n in (7, 1, 6, 2, 5, 3, 0, 4))
    ]
    free = next((p for p in around if all(math.dist(p, t) > 2 * DOT + 1 for t in taken)), around[0])
    taken.append(free)
    return free
