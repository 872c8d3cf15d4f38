"""README.md and docs/ tell the truth: every Python block runs and prints what it says, the kernel is the kernel.

`pytest --update-golden` writes what the blocks print, and the kernel, into the pages; then read the diff.
"""

import contextlib
import io
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import rekern as rk
from source_tree import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$(?:\n\n^```text\n(?P<below>.*?)^```$)?", re.MULTILINE | re.DOTALL)
KERNEL = re.compile(r"(?<=^```cpp\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language and text, the line before the text, and the `text` block below it."""

    language: str
    text: str
    line: int
    below: str | None
    span: tuple[int, int]  # of what is below


def blocks(text: str) -> list[Block]:
    return [
        Block(m[1], m[2], text.count("\n", 0, m.start(2)), m["below"], m.span("below"))
        for m in FENCED.finditer(text)
    ]


def run(page: Path, block: Block, names: dict[str, object]) -> str:
    """What the block prints; an error of ours ends it with its message. Line numbers are those of the page."""
    code = compile("\n" * block.line + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            exec(code, names)
        except rk.RekernError as error:
            print(f"{type(error).__name__}: {error}")
    return printed.getvalue().rstrip("\n") + "\n"


def without_numbers_of_lines(text: str) -> str:
    return re.sub(r"line \d+ of", "line N of", text)


def renewed(page: Path) -> str:
    """The page with what its Python blocks print now, run in order as one program."""
    text = page.read_text()
    names: dict[str, object] = {"__name__": "page"}
    changes: list[tuple[tuple[int, int], str]] = []
    for block in blocks(text):
        if block.language == "python":
            printed = run(page, block, names)
            assert block.below is not None or printed == "\n", f"{page.name}:{block.line} prints:\n{printed}"
            below = block.below or ""
            if block.below is not None and without_numbers_of_lines(printed) != without_numbers_of_lines(below):
                changes.append((block.span, printed))
    for (start, end), printed in reversed(changes):
        text = text[:start] + printed + text[end:]
    return text


def compare(page: Path, text: str, update: bool) -> None:
    if update:
        page.write_text(text)
    assert page.read_text() == text, f"{page.name} differs: pytest --update-golden, then read the diff"


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run_and_print_what_stands_below_them(page: Path, update: bool) -> None:
    compare(page, renewed(page), update)


def step_of(source: str) -> str:
    """The formulas of one step in the source of a forward pass: after the rows are brought in, before they leave."""
    inside = source[: source.index("_tensor.close(")]
    inside = inside[inside.rindex("\n\n") + 2 : inside.rindex("\n") + 1]
    return textwrap.dedent(inside)


def test_the_kernel_that_the_readme_shows_is_the_kernel_of_its_example(update: bool) -> None:
    page = README.read_text()
    names: dict[str, object] = {"__name__": "page"}
    run(README, next(b for b in blocks(page) if b.language == "python"), names)
    kernel = names["kernel"]
    assert isinstance(kernel, rk.Kernel)
    source = step_of(kernel.source)
    compare(README, KERNEL.sub(lambda _: source, page, count=1), update)


def test_links_between_pages_lead_somewhere() -> None:
    def anchors(page: Path) -> set[str]:
        headings = re.findall(r"^#+ (.*)$", re.sub(FENCED, "", page.read_text()), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}

    dead = []
    for page in PAGES:
        for target, anchor in LINK.findall(re.sub(FENCED, "", page.read_text())):
            there = page.parent / target if target else page
            if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
                dead.append(f"{page.name}: {target}#{anchor}")
    assert dead == []


def test_files_that_pages_name_exist() -> None:
    named = re.compile(r"`((?:\.ci|compiler|docs|examples|hwmodels|solver|templates|tests)/[\w./*]*)`")
    missing = [
        f"{page.name}: {path}"
        for page in PAGES
        for path in named.findall(page.read_text())
        if not any(ROOT.glob(path.rstrip("/")))
    ]
    assert missing == []


@pytest.mark.parametrize("name", ["quickstart", "tests"])
def test_the_commands_of_the_readme_are_where_ci_looks_for_them(name: str) -> None:
    lines = README.read_text().splitlines()
    after = [line for line in lines[lines.index(f"<!-- ci: {name} -->") + 1 :] if line]
    assert after[0] == "```bash" and after[1].startswith("pip install -e ")


def test_the_example_of_the_readme_is_short() -> None:
    example = next(b for b in blocks(README.read_text()) if b.language == "python")
    assert len([line for line in example.text.splitlines() if line]) <= 20
