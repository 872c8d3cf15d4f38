"""Best time against one size: areas of the launches, one upon the other.

In: an `Explanation`. Out: SVG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rekern.explain import svg
from rekern.explain.bars import LETTER, SPARE
from rekern.explain.svg import Scale
from rekern.solver.text import number, seconds

if TYPE_CHECKING:
    from rekern.explain.values import Explanation, Point

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, BOTTOM = 74, 24, 52


def curve(e: Explanation) -> str:
    """The chart; '' where there are fewer than two points."""
    points = [p for p in e.sensitivity.points if p.seconds is not None]
    if len(points) < 2:
        return ""
    names = list(dict.fromkeys(name for p in points for name, value in p.parts.items() if value > 0))
    styles = {name: f"c{SPARE[n % len(SPARE)]}" for n, name in enumerate(names)}
    named, top = svg.legend(LEFT, 18, [(styles[name], name) for name in names], WIDTH - LEFT - RIGHT)
    values = [p.value for p in e.sensitivity.points]
    doubling = values[0] > 0 and all(value & (value - 1) == 0 for value in values)
    x = Scale(values[0], values[-1], LEFT + 10, WIDTH - RIGHT - 10, log=doubling)
    ticks = svg.time_ticks(max(p.seconds or 0.0 for p in points))
    y = Scale(0.0, ticks[-1][0], HEIGHT - BOTTOM, top + 26)
    shapes = [*named]
    for value, written in ticks:
        shapes.append(svg.line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"))
        shapes.append(svg.text(LEFT - 8, y(value) + 4, written, "tick", "end"))
    shapes += _areas(points, names, styles, x, y)
    shapes += _values(e, x, y)
    shapes.append(svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, e.sensitivity.variable, "axis", "middle"))
    return svg.chart(WIDTH, HEIGHT, f"best time of {e.subject.spec} by {e.sensitivity.variable}", shapes)


def _areas(points: list[Point], names: list[str], styles: dict[str, str], x: Scale, y: Scale) -> list[str]:
    """What fits, from the first launch up."""
    shapes = []
    below = [0.0] * len(points)
    for name in names:
        above = [low + p.parts.get(name, 0.0) for low, p in zip(below, points, strict=True)]
        upper = [(x(p.value), y(v)) for p, v in zip(points, above, strict=True)]
        lower = [(x(p.value), y(v)) for p, v in zip(points, below, strict=True)]
        shapes.append(svg.path([*upper, *reversed(lower)], f"{styles[name]} area", name, closed=True))
        below = above
    shapes.append(svg.path([(x(p.value), y(p.seconds or 0.0)) for p in points], "outline"))
    shapes += [
        svg.circle(x(p.value), y(p.seconds or 0.0), 3.5, "dot", f"{number(p.value)}: {seconds(p.seconds or 0.0)}")
        for p in points
    ]
    return shapes


def _values(e: Explanation, x: Scale, y: Scale) -> list[str]:
    """The axis of the size, what was chosen, and crosses where nothing fits."""
    shapes = [svg.line(LEFT, y.start, WIDTH - RIGHT, y.start, "base")]
    chosen = e.sensitivity.chosen
    here = x(chosen)
    anchor = "end" if here > WIDTH - 120 else "start" if here < LEFT + 70 else "middle"
    shapes.append(svg.line(here, y.start, here, y.end - 8, "chosen"))
    shapes.append(svg.text(here, y.end - 12, f"chosen: {seconds(e.seconds)}", "small strong", anchor))
    for point in e.sensitivity.points:
        if point.seconds is None:
            shapes.append(svg.text(x(point.value), y.start - 6, "×", "cross", "middle"))
    values = sorted((p.value for p in e.sensitivity.points), key=lambda value: value != chosen)
    for value in _with_room(values, x):
        style = "small strong" if value == chosen else "small"
        shapes.append(svg.text(x(value), y.start + 18, number(value), style, "middle"))
    return shapes


def _with_room(values: list[int], x: Scale) -> list[int]:
    """Values whose names do not cover those of the ones before them."""
    shown: list[int] = []
    for value in values:
        if all(abs(x(value) - x(v)) > LETTER / 2 * (len(number(value)) + len(number(v))) + 8 for v in shown):
            shown.append(value)
    return shown
