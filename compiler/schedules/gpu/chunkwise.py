"""Schedules `chunkwise`: products of tiles instead of one step after another, for affine matrix states.

In: a `Call`. Out: the `Design`s of three variants, or why there is none. One pass keeps the state on chip for the
whole sequence; `states` writes the state of every chunk and forms all outputs in parallel; `segments` runs one
pass over several pieces of a sequence at once. The gradient is the same for all: states of chunks forward (saved
or computed again), cotangents of states backward, everything else in parallel.
"""

from __future__ import annotations

from dataclasses import replace

from sympy import Expr, Integer

from rekern.analysis.logs import Reason
from rekern.schedules.gpu import work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.chunk_launches import (
    Chunks,
    gradient_pass,
    join,
    one_pass,
    output_pass,
    prepare,
    state_pass,
)
from rekern.schedules.gpu.chunk_structure import Structure, structure
from rekern.schedules.gpu.design import Design
from rekern.solver import Limit, Variable

LONGEST_IN_ONE_PASS = 128  # its scores are on chip as a whole
LONGEST = 1024


def refusal(call: Call) -> str | None:
    """Why `call` has no chunks; None: it has."""
    found = structure(call)
    return str(found) if isinstance(found, Reason) else None


def through_states(call: Call) -> Design:
    """Chunk states in memory, outputs of all chunks in parallel."""
    chunk = _chunk(call, "chunk", LONGEST)
    chunks = Chunks(call, _structure(call), chunk.symbol)
    erases = chunks.structure.erase != "nothing"
    states = state_pass(chunks, "forward.states", 1)
    found = prepare(chunks, "forward.prepare") if erases else Design((), ())
    found = found + states + output_pass(chunks, "forward.outputs")
    if not call.gradient:
        return Design((chunk, *found.variables), found.launches, found.limits)
    saved = Variable.one_of("states are saved", (0, 1))
    # The same kernel, so nothing is chosen for it.
    again = Design((), (replace(states.launches[0], name="backward.states", times=1 - saved.symbol),))
    found = found + again + _gradient(chunks)
    memory = _memory(chunks, saved.symbol)
    return Design((chunk, saved, *found.variables), found.launches, (*found.limits, memory))


def in_one_pass(call: Call) -> Design:
    """The state stays on chip for the whole sequence."""
    chunk = _chunk(call, "chunk", LONGEST_IN_ONE_PASS)
    found = one_pass(Chunks(call, _structure(call), chunk.symbol), "forward")
    return _with_gradient(call, Design((chunk, *found.variables), found.launches, found.limits))


def in_segments(call: Call) -> Design:
    """Several pieces of each sequence at once, each in one pass, after their effects on the state are known."""
    chunk = _chunk(call, "chunk", LONGEST_IN_ONE_PASS)
    most = max(2, work.power_of_two(-(-call.time // LONGEST_IN_ONE_PASS)))
    segments = Variable("segments", 2, min(64, most), powers_of_two=True)
    chunks = Chunks(call, _structure(call), chunk.symbol)
    summaries = Chunks(call, _structure(call), Integer(call.time) / segments.symbol)
    found = (
        (prepare(chunks, "forward.prepare") if chunks.structure.erase != "nothing" else Design((), ()))
        + _summary_pass(summaries)
        + join(chunks, "forward.join", segments.symbol)
        + one_pass(chunks, "forward.pieces", segments.symbol)
    )
    return _with_gradient(call, Design((chunk, segments, *found.variables), found.launches, found.limits))


def _summary_pass(summaries: Chunks) -> Design:
    """What every segment adds to the state; segments run in parallel, which `state_pass` does not know."""
    found = state_pass(summaries, "forward.summaries", 1)
    launch = found.launches[0]
    parallel = replace(launch, blocks=launch.blocks * summaries.count, steps=launch.steps / summaries.count)
    return Design(found.variables, (parallel,), found.limits)


def _with_gradient(call: Call, found: Design) -> Design:
    if not call.gradient:
        return found
    chunk = _chunk(call, "backward chunk", LONGEST)
    chunks = Chunks(call, _structure(call), chunk.symbol)
    more = state_pass(chunks, "backward.states", 1) + _gradient(chunks)
    memory = _memory(chunks, Integer(0))
    return found + Design((chunk, *more.variables), more.launches, (*more.limits, memory))


def _gradient(chunks: Chunks) -> Design:
    found = state_pass(chunks, "backward.cotangents", 2) + gradient_pass(chunks, "backward.gradients")
    if chunks.structure.erase != "nothing":
        found = prepare(chunks, "backward.prepare") + found
    return found


def _memory(chunks: Chunks, saved: Expr) -> Limit:
    """Operands, their gradients and the states of chunks are in memory at once."""
    return Limit(
        "memory", chunks.backward_bytes + (2 + saved) * chunks.state_bytes,
        at_most=chunks.call.gpu.dram_bytes, unit="bytes",
        reason="operands, gradients and states of all chunks", advice="a smaller batch or longer chunks",
    )  # fmt: skip


def _chunk(call: Call, name: str, most: int) -> Variable:
    longest = max(16, min(most, work.power_of_two(call.time)))
    return Variable(name, 16, longest, powers_of_two=True)


def _structure(call: Call) -> Structure:
    found = structure(call)
    assert isinstance(found, Structure), "asked only where `refusal` is None"
    return found
