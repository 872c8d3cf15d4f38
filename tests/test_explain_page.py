"""The page of an explanation: well-formed, self-contained, and every number on it is one of the JSON."""

import dataclasses
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from rekern.explain import words
from rekern.explain.curve import curve
from rekern.explain.explain import explain
from rekern.explain.roofline import roofline
from rekern.explain.svg import Scale
from rekern.explain.values import Explanation
from rekern.solver.text import number, seconds
from test_explain import CPU_CASES, GPU_CASES, cpu_call, gpu_call

VOID = {"meta", "link", "br", "hr", "img", "input"}
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?")
SILENT_CLASSES = {"tick"}  # round numbers along an axis; all other numbers are said of the call


class Page(HTMLParser):
    """Reads a page: its texts, its tags in order, what is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is left open" for tag, _ in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if len(given) != len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self.open.append((tag, given.get("class") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]} at {self.getpos()}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        silent = any(tag == "style" or SILENT_CLASSES & set(style.split()) for tag, style in self.open)
        if data.strip() and not silent:
            self.texts.append(data)


@pytest.fixture(scope="module", params=[*GPU_CASES, *CPU_CASES], ids="-".join)
def explained(request: pytest.FixtureRequest) -> Explanation:
    spec, target = request.param
    return explain(gpu_call(spec, target) if (spec, target) in GPU_CASES else cpu_call(spec, target))


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def written(value: Any) -> Iterator[str]:
    """All ways in which a page may write a value of the JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from (number(value), str(value), seconds(abs(value)), f"{value:.1f}", f"{value:.3g}")
        yield from (words.percent(value), words.scaled(value, "B"))


def test_the_page_is_well_formed(explained: Explanation) -> None:
    text = explained.to_html()
    assert text.startswith("<!DOCTYPE html>\n")
    assert Page(text).faults == []


def test_the_reader_of_pages_sees_what_is_not_well_formed() -> None:
    assert Page("<p><b>x</p></b>").faults and Page("<p>").faults and Page('<p a="1" a="2"></p>').faults


def test_the_page_needs_nothing_else(explained: Explanation) -> None:
    text = explained.to_html()
    tags = Page(text).tags
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    assert not [name for _, given in tags for name in given if name in ("src", "href", "srcset") or name[:2] == "on"]
    assert not re.search(r"@import|url\(", text)


def test_every_number_of_the_page_is_one_of_the_json(explained: Explanation) -> None:
    known = {n for leaf in leaves(explained.to_json()) for text in written(leaf) for n in NUMBER.findall(text)}
    known |= {str(n) for n in range(1, len(explained.parts) + 1)}  # the numbers of launches
    said = {n for text in Page(explained.to_html()).texts for n in NUMBER.findall(text)}
    assert said - known == set()
    assert len(said) > 20


def test_a_number_that_is_made_up_would_be_found(explained: Explanation) -> None:
    other = dataclasses.replace(explained, choices=987654321)
    known = {n for leaf in leaves(explained.to_json()) for text in written(leaf) for n in NUMBER.findall(text)}
    assert "987,654,321" in {n for text in Page(other.to_html()).texts for n in NUMBER.findall(text)} - known


def test_the_page_says_what_the_text_says(explained: Explanation) -> None:
    page = " ".join(" ".join(Page(explained.to_html()).texts).split())
    told = [words.call(explained.subject), words.PREDICTED, explained.schedule]
    told += [words.other(o, explained.schedule) for o in explained.others]
    told += [reason for o in explained.others for reason in words.why(o)]
    told += [*explained.refused.values(), *(c for u in explained.unfit for c in u.conflicts)]
    assert [t for t in told if " ".join(t.split()) not in page] == []


def test_what_a_user_wrote_is_escaped() -> None:
    e = explain(gpu_call("gla", "h100_sxm"))
    evil = '<script>alert("x")</script>&\''
    part = dataclasses.replace(e.parts[0], name=evil)
    subject = dataclasses.replace(e.subject, spec=evil, target=evil)
    point = dataclasses.replace(e.sensitivity.points[0], parts={evil: 1e-6})
    points = (point, *e.sensitivity.points[1:])
    text = dataclasses.replace(
        e,
        subject=subject,
        schedule=evil,
        parts=(part, *e.parts[1:]),
        refused={evil: evil},
        sensitivity=dataclasses.replace(e.sensitivity, variable=evil, points=points),
    ).to_html()
    assert "<script" not in text
    assert Page(text).faults == []


def test_a_roofline_has_a_dot_for_every_launch_and_no_two_on_each_other(explained: Explanation) -> None:
    drawn = Page(roofline(explained))
    dots = [given for tag, given in drawn.tags if tag == "circle" and given["class"] == "dot" and given["r"] == "9"]
    assert len(dots) == (len(explained.parts) if explained.subject.kind == "gpu" else 0)
    places = [(float(d["cx"] or 0), float(d["cy"] or 0)) for d in dots]
    apart = [((a - c) ** 2 + (b - d) ** 2) ** 0.5 for n, (a, b) in enumerate(places) for c, d in places[:n]]
    assert all(distance > 18 for distance in apart)


def test_no_launch_is_above_the_roofline_of_memory_or_units(explained: Explanation) -> None:
    for part in explained.parts:
        if explained.ceilings is not None and part.flops_per_s and part.dram_intensity:
            roof = explained.ceilings.matrix_flops_per_s or explained.ceilings.vector_flops_per_s
            memory = part.dram_intensity * explained.ceilings.dram_bytes_per_s
            assert part.flops_per_s <= min(roof, memory) * (1 + 1e-9)


def test_charts_stay_inside_their_frames(explained: Explanation) -> None:
    for drawn in (Page(roofline(explained)), Page(curve(explained))):
        frame = next((given["viewbox"] for tag, given in drawn.tags if tag == "svg"), None)
        if frame is None:
            continue
        _, _, width, height = map(float, str(frame).split())
        for _, given in drawn.tags:
            for names, most in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
                assert all(0 <= float(given[name] or 0) <= most for name in names if name in given)


def test_a_scale_of_one_value_is_in_the_middle() -> None:
    assert Scale(3.0, 3.0, 0.0, 100.0)(3.0) == 50.0
    assert Scale(1.0, 100.0, 0.0, 100.0, log=True)(10.0) == pytest.approx(50.0)
