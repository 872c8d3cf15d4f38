"""Launches of a GPU in numbers, and the floor beneath them.

In: a `Call`. Out: its `Case`.
"""

from __future__ import annotations

from collections.abc import Mapping

import sympy

from rekern.explain.case import Case
from rekern.explain.values import Ceilings, Floor, Part, Subject
from rekern.schedules.gpu import chunkwise, step, work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.ranking import SCHEDULES, problems, rank
from rekern.schedules.gpu.rates import WARP_GROUP_ROWS, has_matrix, matrix_flops_per_s
from rekern.solver import Problem, Solution, evaluate

COUNTS = ("waves", "blocks on an SM", "registers", "shared bytes")  # figures of a launch that are no seconds


def case(call: Call) -> Case:
    """Every schedule with its best sizes.

    Raises:
        PlanError: nothing fits; the text says why for each schedule.
    """
    ranking = rank(call)
    best = ranking.best
    posed, _ = problems(call)
    quantities = _quantities(best.schedule, call, posed[best.schedule])

    def split(schedule: str, solution: Solution) -> tuple[Part, ...]:
        known = evaluate(quantities, solution.values).figures if schedule == best.schedule else {}
        return parts(solution, known)

    return Case(
        _subject(call),
        posed,
        tuple((choice.schedule, choice.solution) for choice in ranking.choices),
        ranking.refused,
        ranking.unfit,
        split,
        lambda found: floors(call, found),
        ceilings(call),
    )


def _subject(call: Call) -> Subject:
    return Subject(
        call.spec.name, dict(call.lengths), call.batch, call.heads, call.time, call.dtype, call.gradient,
        call.machine.name, "gpu", None,
        "forward, gradient and one step of decoding" if call.gradient else "forward and one step of decoding",
    )  # fmt: skip


def _quantities(schedule: str, call: Call, posed: Problem) -> Problem:
    """What launches of a schedule move and compute, as figures of a problem with the same variables."""
    launches = (SCHEDULES[schedule].design(call) + step.design(call)).launches
    figures = {
        f"{launch.name}: {name}": sympy.sympify(formula)
        for launch in launches
        for name, formula in (
            ("blocks", launch.blocks),
            ("flops", launch.times * (sympy.sympify(launch.matrix_flops) + launch.flops)),
            ("dram_bytes", launch.times * sympy.sympify(launch.dram_bytes)),
            ("l2_bytes", launch.times * sympy.sympify(launch.l2_bytes)),
        )
    }
    return Problem(posed.name, posed.variables, figures=figures)


def parts(solution: Solution, quantities: Mapping[str, float]) -> tuple[Part, ...]:
    """The launches of a choice that take any time; `quantities` may be empty."""
    return tuple(
        _part(name, seconds, solution, quantities) for name, seconds in solution.terms.items() if seconds > 0
    )


def _part(name: str, seconds: float, solution: Solution, quantities: Mapping[str, float]) -> Part:
    figures = _of(name, solution.figures)
    known = _of(name, quantities)
    terms = {term: value for term, value in figures.items() if term not in COUNTS}
    exposed = _exposed(terms, seconds)
    flops, dram, l2 = (known.get(quantity) for quantity in ("flops", "dram_bytes", "l2_bytes"))
    counts = {"blocks": known["blocks"]} if known else {}
    counts |= {count: figures[count] for count in COUNTS if count in figures}
    return Part(
        name=name,
        pass_name=name.partition(".")[0],
        seconds=seconds,
        share=seconds / solution.cost,
        bound_by=max(exposed, key=lambda term: exposed[term]),
        terms=terms,
        shares={term: value / seconds for term, value in terms.items()},
        exposed=exposed,
        counts={count: round(value) for count, value in counts.items()},
        flops=flops,
        flops_per_s=flops / seconds if flops else None,
        dram_bytes=dram,
        dram_intensity=flops / dram if flops and dram else None,
        l2_bytes=l2,
        l2_intensity=flops / l2 if flops and l2 else None,
    )


def _of(launch: str, named: Mapping[str, float]) -> dict[str, float]:
    prefix = f"{launch}: "
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def _exposed(terms: Mapping[str, float], seconds: float) -> dict[str, float]:
    """The longest term in full, of all others what the longest does not hide; together `seconds`.

    >>> _exposed({"memory": 6.0, "L2": 4.0, "latency": 2.0, "launches": 1.0}, 10.0)
    {'memory': 6.0, 'L2': 2.0, 'latency': 1.0, 'launches': 1.0}
    """
    units = {term: value for term, value in terms.items() if term != "launches"}
    longest = max(units, key=lambda term: units[term])
    rest = sum(units.values()) - units[longest]
    left = seconds - units[longest] - terms.get("launches", 0.0)
    visible = max(0.0, left / rest) if rest > 0 else 0.0
    return {t: value if t in (longest, "launches") else visible * value for t, value in terms.items()}


# -- the roofline ----------------------------------------------------------------------------------------------


def ceilings(call: Call) -> Ceilings:
    """What kernels reach on the machine of `call`, in its dtype."""
    gpu = call.gpu
    units = gpu.tfloat32_flops_per_s if call.dtype == "float32" else has_matrix(gpu, call.dtype)
    rate = matrix_flops_per_s(gpu, call.dtype, WARP_GROUP_ROWS) if units else None
    return Ceilings(
        gpu.dram_bytes_per_s * gpu.dram_share,
        gpu.l2_bytes_per_s,
        None if rate is None else evaluate(Problem("a rate", [], figures={"rate": rate}), {}).figures["rate"],
        gpu.float32_flops_per_s,
    )


def floors(call: Call, found: tuple[Part, ...]) -> tuple[Floor, ...]:
    """What no implementation of each pass can be faster than, beside what is predicted."""
    there, back = work.forward(call), work.backward(call)
    steps = call.rows * call.time
    params = call.heads * call.facts.counts.param_elements(**dict(call.lengths))
    states = 2 * call.rows * work.state(call).bytes
    size = call.element_bytes
    # The gradient of a weight is one more product for every product with it.
    needed = {
        "forward": (size * (steps * there.elements + params), steps * there.product_flops, steps * there.flops),
        "backward": (
            size * (steps * back.elements + 2 * params),
            steps * (back.product_flops + there.product_flops),
            steps * back.flops,
        ),
        "step": (
            size * (call.rows * there.elements + params) + states,
            call.rows * there.product_flops,
            call.rows * there.flops,
        ),
    }
    return tuple(
        _floor(call, name, sum(p.seconds for p in found if p.pass_name == name), *needed[name])
        for name in dict.fromkeys(part.pass_name for part in found)
    )


def _floor(call: Call, name: str, seconds: float, moved: int, product_flops: int, flops: int) -> Floor:
    """Products run on matrix units, other operations too where a chunk of steps becomes products."""
    rates = ceilings(call)
    memory = moved / rates.dram_bytes_per_s
    times = {"vector": (product_flops + flops) / rates.vector_flops_per_s}
    if rates.matrix_flops_per_s is not None:
        chunks = name != "step" and chunkwise.refusal(call) is None
        as_products = product_flops + (flops if chunks else 0)
        times = {
            "matrix": as_products / rates.matrix_flops_per_s,
            "vector": (product_flops + flops - as_products) / rates.vector_flops_per_s,
        }
    unit = max(times, key=lambda u: times[u])
    floor = max(memory, times[unit])
    return Floor(
        name, seconds, moved, memory, product_flops + flops, unit, times[unit], floor,
        "memory" if memory >= times[unit] else unit, floor / seconds,
    )  # fmt: skip
