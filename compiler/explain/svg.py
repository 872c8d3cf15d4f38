"""Shapes, scales and axes of the charts on the page.

In: numbers in data units. Out: SVG as text, whatever it says escaped. Colours are classes that the page's style
gives a value, for light and for dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rekern.solver.text import seconds

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def escaped(text: str) -> str:
    """Text that is safe between tags and in quoted attributes.

    >>> escaped('a < "b"')
    'a &lt; &quot;b&quot;'
    """
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(raw, safe)
    return text


def at(value: float) -> str:
    """A coordinate: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, said: str, style: str = "", anchor: str = "start", turn: float = 0.0) -> str:
    """A text whose baseline begins (or ends, or has its middle) at a point; `turn` in degrees."""
    turned = f' transform="rotate({at(turn)} {at(x)} {at(y)})"' if turn else ""
    return f'<text x="{at(x)}" y="{at(y)}" class="{style}" text-anchor="{anchor}"{turned}>{escaped(said)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return f'<line x1="{at(x1)}" y1="{at(y1)}" x2="{at(x2)}" y2="{at(y2)}" class="{style}"/>'


def rect(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    """A rectangle, with what a mouse over it says."""
    inner = f"<title>{escaped(title)}</title>" if title else ""
    size = f'width="{at(width)}" height="{at(height)}"'
    return f'<rect x="{at(x)}" y="{at(y)}" {size} class="{style}">{inner}</rect>'


def circle(x: float, y: float, radius: float, style: str, title: str = "") -> str:
    """A circle, with what a mouse over it says."""
    inner = f"<title>{escaped(title)}</title>" if title else ""
    return f'<circle cx="{at(x)}" cy="{at(y)}" r="{at(radius)}" class="{style}">{inner}</circle>'


def path(points: Iterable[tuple[float, float]], style: str, title: str = "", closed: bool = False) -> str:
    """A line through points, or the area that it goes around."""
    joined = " L".join(f"{at(x)} {at(y)}" for x, y in points)
    inner = f"<title>{escaped(title)}</title>" if title else ""
    return f'<path d="M{joined}{" Z" if closed else ""}" class="{style}">{inner}</path>'


def chart(width: float, height: float, label: str, shapes: Iterable[str]) -> str:
    """A drawing that is as wide as the page; `label` says it to those who do not see it."""
    inner = "\n".join(shapes)
    box = f'viewBox="0 0 {at(width)} {at(height)}"'
    return f'<svg {box} role="img" aria-label="{escaped(label)}" xmlns="http://www.w3.org/2000/svg">\n{inner}\n</svg>'


@dataclass(frozen=True)
class Scale:
    """Data from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, here = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`.

    >>> decades(0.5, 200)
    [1.0, 10.0, 100.0]
    """
    return [10.0**n for n in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def power(value: float) -> str:
    """A power of ten.

    >>> power(1e12), power(1.0), power(0.01)
    ('10¹²', '1', '10⁻²')
    """
    exponent = round(math.log10(value))
    return {0: "1", 1: "10"}.get(exponent) or f"10{str(exponent).translate(SUPERSCRIPTS)}"


def steps(high: float, count: int = 5) -> list[float]:
    """Round numbers from 0 to at least `high`.

    >>> steps(7.3)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    raw = high / count
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * m for m in (1, 2, 2.5, 5, 10) if scale * m >= raw * (1 - 1e-9))
    return [n * step for n in range(math.ceil(high / step - 1e-9) + 1)]


def time_ticks(high: float) -> list[tuple[float, str]]:
    """Round times from 0 to at least `high`, each as it is written.

    >>> time_ticks(0.0009)
    [(0.0, '0'), (0.0002, '200 us'), (0.0004, '400 us'), (0.0006, '600 us'), (0.0008, '800 us'), (0.001, '1 ms')]
    """
    return [(t, seconds(t) if t else "0") for t in (float(f"{t:.6g}") for t in steps(high))]


def legend(x: float, y: float, names: Sequence[tuple[str, str]], width: float) -> tuple[list[str], float]:
    """Coloured squares with names, in lines of at most `width`; and how far down they reach."""
    shapes, here = [], x
    for style, name in names:
        needed = 34 + 7.2 * len(name)
        if here > x and here + needed > x + width:
            here, y = x, y + 20
        shapes += [rect(here, y - 10, 12, 12, style), text(here + 17, y, name, "small")]
        here += needed
    return shapes, y + 8
