"""A recurrence as plain text, as near to the paper as lines of characters allow.

In: a formula, or a `Recurrence`. Out: text for people; `print(spec)` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rekern.errors import SpecError
from rekern.ir import Index, Node
from rekern.printers.layout import Label, Layout
from rekern.printers.writer import Writer

if TYPE_CHECKING:
    from rekern.spec import Operand, Recurrence

WIDTH = 100


def formula(node: Node) -> str:
    """`node` as one line of text.

    >>> from rekern.ir import Index, mul, read, reduce
    >>> k, v = Index("K"), Index("V")
    >>> formula(reduce("sum", k, mul(read("q", (), (k,)), read("S", (), (k, v)))))
    'sum_k q[k] * S[k,v]'
    """
    return _Text().write(node, {i: i for i in node.free}).text


def equations(spec: Recurrence) -> str:
    """Name, source, operands with their facts, and one equation for each new state, output and named value.

    `S(t-1)` is the state before the step. A recurrence that unrolls over an axis without a size has no
    equations yet, and says what to bind.
    """
    bound = ", ".join(f"{name} = {size}" for name, size in spec.bindings)
    head = [f"{spec.name} with {bound}" if bound else spec.name]
    head += [f"  {line}" for line in spec.doc.splitlines()[:1]]
    width = max(len(str(o)) for o in spec.operands)
    operands = [f"  {o.kind:<6}  {o!s:<{width}}  {'; '.join(_facts(o))}".rstrip() for o in spec.operands]
    body = [f"  {line}" for line in _body(spec)]
    return "\n".join([*head, "", *operands, "", *body])


def _facts(o: Operand) -> Iterator[str]:
    if o.at_most is not None:
        yield f"{o.name} <= {_number(o.at_most)}"
    if o.at_least is not None:
        yield f"{o.name} >= {_number(o.at_least)}"
    if o.unit_norm:
        yield f"|{o.name}| = 1"
    if o.kind == "state":
        yield f"starts at {_number(o.init)}"
        if o.dtype != "float32":
            yield o.dtype
    if o.kind == "scalar":
        default = o.default if isinstance(o.default, str | None) else _number(o.default)
        yield "no default" if default is None else f"default {default}"


def _body(spec: Recurrence) -> Iterator[str]:
    try:
        layout = Layout(spec)
    except SpecError as error:
        yield from str(error).splitlines()
        return

    def draw(line: Label, letter: str) -> str:
        return " = ".join(_Text(spec.operands, layout, line, letter).sides())

    for row in layout.rows(draw):
        cells = f"    {row.letter} = {row.first}..{row.last}" if row.letter else ""
        yield from _wrapped(row.text + cells)


class _Text(Writer):
    signs = {  # noqa: RUF012
        "add": " + ", "sub": " - ", "mul": " * ", "div": " / ",
        "lt": " < ", "le": " <= ", "gt": " > ", "ge": " >= ", "eq": " == ", "ne": " != ",
    }

    def symbol(self, name: str, previous: bool, where: list[str]) -> str:
        return f"{name}{'(t-1)' * previous}{'[' + ','.join(where) + ']' if where else ''}"

    def number(self, value: float) -> str:
        return _number(value)

    def reduction(self, operation: str, index: Index) -> str:
        return f"{operation}_{index}"

    def call(self, function: str, arguments: list[str]) -> str:
        return f"{function}({', '.join(arguments)})"

    def enclosed(self, text: str) -> str:
        return f"({text})"

    def squared(self, base: str) -> str:
        return f"{base}^2"


def _number(value: float) -> str:
    return str(int(value)) if abs(value) < 1e6 and value == int(value) else repr(value)


def _wrapped(line: str) -> Iterator[str]:
    """`line` in pieces of at most WIDTH characters, broken before the outermost signs."""
    while len(line) > WIDTH:
        places: list[tuple[int, bool, int]] = []  # depth, whether inside a product, how far left
        depth = 0
        for at, char in enumerate(line[:WIDTH]):
            depth += (char in "([") - (char in ")]")
            if at > 12 and line[at : at + 3] in (" + ", " - ", " * ", " / "):
                places.append((depth, line[at + 1] in "*/", -at))
        if not places:
            break
        at = -min(places)[2]
        yield line[:at]
        line = "     " + line[at:]
    yield line
