"""What a schedule offers to the solver.

In: variables, launches over their symbols, limits that are not those of a block. Out: a `Design`; designs of the
passes of one schedule are added up and become one `Problem`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import sympy
from sympy import Expr, Integer

from rekern.errors import PlanError
from rekern.hwmodels.gpu import Gpu
from rekern.resources.shared_memory import INSTRUCTIONS, dot_shared_bytes
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.launches import Launch, Priced, priced
from rekern.schedules.gpu.work import power_of_two
from rekern.solver import Limit, Problem, Variable
from rekern.solver.formulas import Most, RoundedUp

SMALLEST_TILE = 16  # rows, columns and depth of a matrix product in Triton
SUM_BYTES = 4
LINE_BYTES = 128  # shorter rows conflict in the banks of shared memory, and tile loads need whole lines
WARPS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Design:
    """Variables, and launches and limits that read them; `+` joins designs that may share variables."""

    variables: tuple[Variable, ...]
    launches: tuple[Launch, ...]
    limits: tuple[Limit, ...] = ()

    def __add__(self, other: Design) -> Design:
        joined = tuple(dict.fromkeys([*self.variables, *other.variables]))
        limits = tuple(dict.fromkeys([*self.limits, *other.limits]))
        return Design(joined, (*self.launches, *other.launches), limits)

    def alone(self, launch: str, values: Mapping[str, int], call: Call) -> Problem:
        """The problem of one launch: what other launches read too is fixed at `values`."""
        costs = {each.name: priced(each, call.gpu) for each in self.launches}
        if launch not in costs:
            raise PlanError(f"there is no launch {launch!r}; there are {', '.join(costs)}")
        own = _reads(costs[launch])
        shared = {name for other, cost in costs.items() if other != launch for name in _reads(cost)}
        variables = [
            Variable.one_of(v.name, (values[v.name],)) if v.name in shared else v
            for v in self.variables
            if v.name in own
        ]
        # A variable that can be 0 has another symbol than one that cannot.
        symbols = {v.symbol: w.symbol for v in self.variables for w in variables if w.name == v.name}
        found = costs[launch]
        return Problem(
            f"{launch} of {call}",
            variables,
            [replace(limit, expression=limit.expression.xreplace(symbols)) for limit in found.limits],
            {launch: found.seconds.xreplace(symbols)},
            {name: formula.xreplace(symbols) for name, formula in found.figures.items()},
        )

    def problem(self, schedule: str, call: Call) -> Problem:
        """Everything in one problem: the cost is the sum over launches."""
        costs = {launch.name: priced(launch, call.gpu) for launch in self.launches}
        return Problem(
            f"{schedule} for {call}",
            self.variables,
            [*self.limits, *(limit for p in costs.values() for limit in p.limits)],
            {name: p.seconds for name, p in costs.items()},
            {name: formula for p in costs.values() for name, formula in p.figures.items()},
        )


def _reads(cost: Priced) -> set[str]:
    """Names of the variables that a launch reads."""
    formulas = [cost.seconds, *(limit.expression for limit in cost.limits)]
    return {symbol.name for formula in formulas for symbol in formula.free_symbols}


def tile(name: str, length: int, least: int = SMALLEST_TILE, most: int = 256) -> Variable:
    """A side of a tile: a power of two that covers at most the whole of `length`, padded.

    >>> print(tile("columns", 100))
    columns in {16, 32, 64, 128}
    """
    least = max(1, min(least, max(SMALLEST_TILE, power_of_two(length))))
    return Variable(name, least, max(least, min(most, power_of_two(length))), powers_of_two=True)


def dense_tile(name: str, length: int, element_bytes: int, most: int = 256) -> Variable:
    """The side of a tile along which memory is dense: whole lines, as far as `length` has them.

    >>> print(dense_tile("depth", 128, 2), dense_tile("depth", 20, 2), sep="; ")
    depth in {64, 128}; depth in {32}
    """
    return tile(name, length, min(LINE_BYTES // element_bytes, power_of_two(length)), most)


def warps(name: str, gpu: Gpu, among: Iterable[int] = WARPS) -> Variable:
    """Warps of a block, as far as the machine allows."""
    return Variable.one_of(name, [w for w in among if w * gpu.warp_threads <= gpu.threads_per_block])


def stages(name: str, gpu: Gpu) -> Variable:
    """Loads in flight; on AMD more than two make the compiler very slow (vllm issue 45929)."""
    return Variable(name, 1, 2 if gpu.vendor == "amd" else 5)


def product_shared_bytes(
    gpu: Gpu, bm: Expr, bn: Expr, bk: Expr | int, element_bytes: int, stages: Expr, warps: Expr
) -> Expr:
    """Shared memory of a kernel with one product and float32 results: exact where the compiler's rule is known."""
    if gpu.architecture in INSTRUCTIONS:
        return dot_shared_bytes(bm, bn, bk, element_bytes, SUM_BYTES, stages, warps, gpu.architecture)
    return Most((bm + bn) * bk * element_bytes * stages, bm * bn * SUM_BYTES)


def tiles(length: Expr | int, side: Expr | int) -> Expr:
    """How many tiles cover `length`."""
    if isinstance(length, int) and isinstance(side, int):
        return Integer(-(-length // side))
    return RoundedUp(sympy.sympify(length) / side)
