r"""A recurrence as LaTeX, for notebooks: the same lines as the plain text.

In: a `Recurrence`. Out: a display equation, `$$\begin{aligned} ... \end{aligned}$$`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rekern.errors import SpecError
from rekern.functions import FUNCTIONS
from rekern.ir import Index
from rekern.printers.layout import Label, Layout
from rekern.printers.writer import Writer

if TYPE_CHECKING:
    from rekern.spec import Recurrence

GREEK = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega
Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
""".split()  # noqa: SIM905


def equations(spec: Recurrence) -> str:
    """One equation for each new state, output and named value; `S^{(t-1)}` is the state before the step.

    A recurrence that unrolls over an axis without a size has no equations yet, and says what to bind.
    """
    try:
        layout = Layout(spec)
    except SpecError as error:
        lines = [rf"\texttt{{{_escaped(line)}}}" for line in str(error).splitlines()[:2]]
        return "$$" + r" \\ ".join(lines) + "$$"

    def draw(line: Label, letter: str) -> str:
        return " &= ".join(_Latex(spec.operands, layout, line, letter).sides())

    rows = []
    for row in layout.rows(draw):
        cells = rf", \quad {row.letter} = {row.first}, \ldots, {row.last}" if row.letter else ""
        rows.append(row.text + cells)
    return "$$\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}$$"


class _Latex(Writer):
    signs = {name: f.latex.replace("{}", "") for name, f in FUNCTIONS.items() if f.infix and f.arity == 2}  # noqa: RUF012

    def symbol(self, name: str, previous: bool, where: list[str]) -> str:
        above = "^{(t-1)}" if previous else ""
        below = f"_{{{','.join(where)}}}" if where else ""
        return _word(name) + above + below

    def number(self, value: float) -> str:
        if value in (float("inf"), float("-inf")):
            return r"-\infty" if value < 0 else r"\infty"
        mantissa, _, exponent = (str(int(value)) if value == int(value) else repr(value)).partition("e")
        if not exponent:
            return mantissa
        power = f"10^{{{int(exponent)}}}"
        return power if mantissa == "1" else rf"{mantissa} \cdot {power}"

    def reduction(self, operation: str, index: Index) -> str:
        return rf"\{operation}_{{{index}}}"

    def call(self, function: str, arguments: list[str]) -> str:
        return FUNCTIONS[function].latex.format(*arguments)

    def enclosed(self, text: str) -> str:
        return rf"\left({text}\right)"

    def squared(self, base: str) -> str:
        return f"{{{base}}}^2"


def _word(name: str) -> str:
    """A letter as it is, a Greek letter by its name, anything longer upright."""
    if len(name) == 1:
        return name
    return f"\\{name}" if name in GREEK else rf"\mathrm{{{_escaped(name)}}}"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_")
