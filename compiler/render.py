"""Plans as source: a typed view goes into a template, text that reads as if typed by a person comes out.

In: a `Pass`. Out: the text of its source file, and of the headers beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from rekern.schedules.passes import CpuSizes, Pass
from rekern.schedules.triton.passes import PassName, TritonPass

if TYPE_CHECKING:
    import jinja2

HEADERS = (
    *("vector.h", "vector_math.h", "rows.h", "pairs.h", "contract.h", "contract_tiles.h", "contract_pairs.h"),
    *("arrays.h", "fingerprint.h", "panels.h", "outer.h", "team.h"),
)
# Beside the headers, what defines their longer functions: compiled once for all kernels.
SHARED = (
    *("rows.cpp", "pairs.cpp", "contract.cpp", "contract_pairs.cpp"),
    *("arrays.cpp", "fingerprint.cpp", "panels.cpp", "outer.cpp"),
)


# The template of each pass.
TRITON: Mapping[PassName, str] = {
    "forward": "time_loop", "recording": "time_loop", "backward": "time_loop_backward",
    "summary": "scan_summary", "join": "scan_join",
    "backward_summary": "scan_backward_summary", "backward_join": "scan_join",
}  # fmt: skip


@cache
def environment() -> jinja2.Environment:
    """The templates. Jinja is only needed to make a new kernel, so it is imported here."""
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.PackageLoader("rekern.templates", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters["lines"] = lambda items, by: indented(items, by)
    return env


def indented(items: Iterable[str], by: int) -> str:
    """Lines as one text, each moved right by `by` columns."""
    return "\n".join(" " * by + item for item in items)


def tidy(text: str) -> str:
    """No trailing blanks, no blank line next to a brace, no two blank lines together."""
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    text = re.sub(r"\{\n\n+", "{\n", text)
    return re.sub(r"\n\n+( *\})(?! *//)", r"\n\1", text)


def render(view: Pass) -> str:
    """The C++ source of one pass."""
    template = "cpp/backward.cpp.j2" if view.name == "backward" else "cpp/forward.cpp.j2"

    def row(dim: str) -> str:
        return f"{dim}_TILE" if dim == view.lane and view.sizes.tile else f"dims.{dim}_row"

    return tidy(environment().get_template(template).render(p=view, row=row))


def render_triton(view: TritonPass) -> str:
    """The Python module of one Triton kernel."""
    template = "pointwise" if view.part != "whole" else TRITON[view.name]
    return tidy_python(environment().get_template(f"triton/{template}.py.j2").render(k=view))


def tidy_python(text: str) -> str:
    """No trailing blanks, at most two blank lines together, no blank line at the beginning."""
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{4,}", "\n\n\n", text).strip() + "\n"


@cache
def headers(real: str, vector_bytes: int, pairs: bool = False) -> dict[str, str]:
    """The headers that sources include, and the files beside them that define their functions."""
    return {
        name: environment().get_template(f"cpp/{name}.j2").render(real=real, vector_bytes=vector_bytes, pairs=pairs)
        for name in (*HEADERS, *SHARED)
    }


def headers_for(sizes: CpuSizes) -> dict[str, str]:
    return headers(sizes.real, sizes.vector_bytes, sizes.pairs)
