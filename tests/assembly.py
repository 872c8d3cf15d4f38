"""The inner loops of compiled C++: what each iteration does, read from the compiler's assembly.

In: a source and its headers, an instruction set. Out: `Loop`s, one for each innermost loop. x86, AT&T syntax.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rekern.backends.cpp import FLAGS, Source

LABEL = re.compile(r"^(\.L\d+):")
JUMP = re.compile(r"^\s+j\w+\s+(\.L\d+)")
VECTOR = re.compile(r"%[xyz]mm\d+")
MEMORY = re.compile(r"-?\w*\([^)]*\)")


@dataclass(frozen=True)
class Loop:
    """The instructions of one innermost loop."""

    lines: tuple[str, ...]

    def _count(self, pattern: str) -> int:
        return sum(re.match(pattern, line) is not None for line in self.lines)

    @property
    def multiply_adds(self) -> int:
        return self._count(r"vfn?m(add|sub)\w+p[sd]")

    @property
    def dots(self) -> int:
        """Products of pairs."""
        return self._count(r"vdpbf16ps")

    @property
    def vector_loads(self) -> int:
        """Instructions that read memory into a vector register."""
        vectors = [line for line in self.lines if VECTOR.search(line) and MEMORY.search(line)]
        return sum(not MEMORY.search(line.split(",")[-1]) for line in vectors)

    @property
    def stack_vectors(self) -> int:
        """Instructions that move a vector to or from the stack."""
        return sum(bool(VECTOR.search(line)) and ("%rsp" in line or "%rbp" in line) for line in self.lines)


def inner_loops(source: Source, folder: Path, architecture: str) -> list[Loop]:
    """Compile to assembly for `architecture` (as in -march), and find the innermost loops."""
    for name, text in source.files.items():
        (folder / name).write_text(text)
    (folder / "kernel.cpp").write_text(source.text)
    flags = [f for f in FLAGS if not f.startswith(("-shared", "-march"))]
    command = ["g++", *flags, f"-march={architecture}", "-S", "kernel.cpp", "-o", "kernel.s"]
    subprocess.run(command, cwd=folder, check=True)
    lines = (folder / "kernel.s").read_text().splitlines()
    places = {m[1]: n for n, line in enumerate(lines) if (m := LABEL.match(line))}
    spans = [
        (places[m[1]], n) for n, line in enumerate(lines) if (m := JUMP.match(line)) and places.get(m[1], n) < n
    ]
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [
        Loop(tuple(line.strip() for line in lines[a:b] if line.startswith("\t") and not line.startswith("\t.")))
        for a, b in inner
    ]
