"""Schedule `time_loop`: one task owns a sequence and head (or columns of it) and walks its steps in order.

In: `Programs` and `CpuSizes`. Out: the forward, recording and backward `Pass`es. Applies to every spec: the state
never leaves the task's working memory between two steps.
"""

from __future__ import annotations

from rekern.gradient import cotangent
from rekern.loops.program import Place, Program
from rekern.printers.cpp import identifier, literal
from rekern.schedules.builder import PassBuilder
from rekern.schedules.carry import Carried
from rekern.schedules.passes import CpuSizes, Factors, Pass, PassName, Slot, View, WeightProducts, WorkArray
from rekern.schedules.programs import SAVED, Programs, decode
from rekern.trace import cells_of, named


def forward_pass(programs: Programs, sizes: CpuSizes, name: PassName = "forward") -> Pass:
    """Outputs and final states.

    "recording" also leaves every step's states and kept values in the caller's memory; "step" is one step alone.
    """
    recording = name == "recording"
    slots = recording and not programs.streamed
    b = PassBuilder(programs, sizes)
    program = programs.recording if recording else programs.forward
    inputs = _input_views(b)
    results: dict[Place, View] = {}
    for output, dims in programs.spec.step.output_dims.items():
        for cell in cells_of(dims):
            results[(output, cell)] = b.view(
                Slot("output", output, cell), tuple(named(dims)), mine=True, written=True
            )
    if recording and programs.streamed:
        results |= _saved_views(b, mine=True)
    carried = programs.carried_forward if name == "forward" else None
    body = b.body(program, inputs, results, carried=carried, early=True)
    together = programs.forward_pair if name == "forward" else None
    second = b.second(together, inputs, results) if together is not None else None
    params = b.params(*_as_run(program, carried))
    load, store, reset = [], [], []
    states = b.state_arrays()
    for o, place, array in states:
        source = b.view(Slot("state_in", *place), o.axes, suffix="first")
        target = b.view(Slot("state_out", *place), o.axes, mine=True, suffix="last")
        load.append(f"{source.name}.read({b.at(array.name, array.size)}, sequence.state, 0);")
        store.append(f"{target.name}.write(sequence.state, 0, {b.at(array.name, array.size)});")
        reset.append(b.fill(array, o.axes, literal(o.init)))
        if not slots:
            turns = place in b.turning
            b.work[array.name] = WorkArray(array.name, f"dims.turns * {array.size}") if turns else array
    return b.finish(
        name,
        params=params,
        slot=_slot(b) if slots else (),
        states=tuple(array for _, _, array in states),
        turning=tuple(array for _, place, array in states if place in b.turning),
        load=b.each_row(load, now=False),
        reset=(
            *b.waits(program)("reset"),
            *_where_reset(b, [*reset, *(["begins = true;"] if body.first else [])]),
        ),
        body=body,
        second=second,
        again=None,
        restart=(),
        carried=(),
        store=tuple(store),
    )


def backward_pass(programs: Programs, sizes: CpuSizes) -> Pass:
    """Cotangents of inputs, parameters and first states, from those of outputs and last states."""
    b = PassBuilder(programs, sizes)
    spec, program = programs.spec, programs.backward
    inputs = _input_views(b)
    for name, dims in spec.step.output_dims.items():
        for cell in cells_of(dims):
            place = (cotangent(name), cell)
            inputs[place] = b.view(
                Slot("d_output", name, cell),
                tuple(named(dims)),
                mine=True,
                suffix=f"{identifier(place)}_tensor",
            )
    if programs.streamed:
        inputs |= {(n.removeprefix(SAVED), cell): view for (n, cell), view in _saved_views(b, mine=False).items()}
    results: dict[Place, View] = {}
    for o in spec.of_kind("input"):
        for place in b.cells(o):
            results[(cotangent(o.name), place[1])] = b.view(
                Slot("d_input", *place), o.axes, written=True, suffix="gradient"
            )
    for name, (index, _) in programs.weight_terms[1].items():
        results[(name, ())] = b.view(Slot("vector", name), (index.dim,))
    carried = programs.carried_backward
    body = b.body(program, inputs, results, carried=carried, adds=True, back=True)
    used = _as_run(program, carried)
    again = None
    if programs.keep == "blocks":
        carried = programs.carried_recording
        again = b.body(programs.silent_recording, inputs, results, carried=carried, adds=True)
        used += _as_run(programs.silent_recording, carried)
    params = b.params(*used)
    load, store, reset, kept = [], [], [], []
    restart = [b.fill(a, o.axes, literal(o.init)) for o, _, a in b.state_arrays()]
    if again is not None and again.first:
        restart.append("begins = true;")
    for o, place, array in b.state_arrays(cotangent("")):
        source = b.view(Slot("d_state_out", *place), o.axes, mine=True, suffix="d_last")
        target = b.view(Slot("d_state_in", *place), o.axes, suffix="d_first")
        load.append(f"{source.name}.read({b.at(array.name, array.size)}, sequence.state, 0);")
        add = b.lane is not None and b.lane not in o.axes
        store.append(
            f"{target.name}.{'add' if add else 'write'}(sequence.state, 0, {b.at(array.name, array.size)});"
        )
        reset.append(b.fill(array, o.axes, "real(0)"))
        b.work[array.name] = array
        kept.append(array.name)
    for assign in program.assigns:
        if assign.add:
            name = identifier(assign.target)
            axes = tuple(i.dim for i in assign.axes)
            weight = Slot("d_param", assign.target[0].removeprefix(cotangent("")), assign.target[1])
            target = b.view(weight, axes, suffix="gradient")
            b.work[name] = WorkArray(name, b.size(axes))
            kept.append(name)
            load.append(b.fill(b.work[name], axes, "real(0)"))
            store.append(f"{target.name}.add(unit, 0, {b.at(name, b.size(axes))});")
    return b.finish(
        "backward",
        weights=_weight_products(b),
        params=params,
        slots_read=programs.reads_slots,
        slot=() if programs.streamed else _slot(b),
        states=tuple(array for _, _, array in b.state_arrays()),
        load=b.each_row(load, now=False),
        reset=(
            *b.waits(program)("reset"),
            *_where_reset(b, [*reset, *(["ends = true;"] if body.first else [])]),
        ),
        body=body,
        second=None,
        again=again,
        restart=_where_reset(b, restart),
        carried=tuple(kept),
        store=tuple(store),
    )


def _as_run(program: Program, carried: Carried | None) -> tuple[Program, ...]:
    """What runs for a program."""
    return (carried.first, carried.step) if carried is not None else (program,)


def _weight_products(b: PassBuilder) -> tuple[WeightProducts, ...]:
    """The matrix products after the loop, those with one right side together.

    The first product of a weight fills its gradient; later ones, which have other right sides, add to it.
    """
    found: dict[tuple[str, str, int], list[tuple[int, Place]]] = {}
    numbers = {slot: n for n, slot in enumerate(b.slots)}
    for term in b.programs.weight_terms[0]:
        height, width = b.spec.operand(term.weight[0]).axes
        left, right = (numbers[_side(b, word)] for word in (term.left, term.right))
        found.setdefault((height, width, right), []).append((left, term.weight))
    filled: set[Place] = set()
    products = []
    for key, pairs in found.items():
        factors = []
        for left, weight in pairs:
            factors.append(Factors(left, len(b.slots), weight in filled))
            b.slots.append(Slot("d_weight", *weight))
        filled.update(weight for _, weight in pairs)
        products.append(WeightProducts(*key, tuple(factors)))
    return tuple(products)


def _side(b: PassBuilder, word: str) -> Slot:
    """Where one side of a product is written down: as the cotangent of an input, or by itself."""
    name, cell = decode(word)
    if name in b.programs.weight_terms[1]:
        return Slot("vector", name)
    return Slot("d_input", name.removeprefix(cotangent("")), cell)


def _input_views(b: PassBuilder) -> dict[Place, View]:
    return {
        place: b.view(Slot("input", *place), o.axes) for o in b.spec.of_kind("input") for place in b.cells(o)
    }


def _saved_views(b: PassBuilder, mine: bool) -> dict[Place, View]:
    """The rows that a streamed step keeps for its gradient. `mine`: one task is in charge of those without columns."""
    return {
        place: b.view(
            Slot("saved", *place), tuple(i.dim for i in axes), mine=mine, padded=True, written=True, suffix="rows"
        )
        for place, axes in b.programs.saved.items()
    }


def _slot(b: PassBuilder) -> tuple[WorkArray, ...]:
    """What one step hands to its gradient: the states before it and the kept values."""
    kept = [
        WorkArray(identifier((k.name, ())), b.size(i.dim for i in k.axes)) for k in b.programs.backstep.kept
    ]
    return (*(array for _, _, array in b.state_arrays()), *kept)


def _where_reset(b: PassBuilder, lines: list[str]) -> tuple[str, ...]:
    inside = ["if (call.resets(sequence, time)) {", *(f"    {line}" for line in lines), "}"]
    return b.each_row(inside) if b.rows else tuple(inside)
