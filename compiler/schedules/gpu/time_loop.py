"""Schedule `time_loop`: one launch, a block keeps a tile of columns of all states for the whole sequence.

In: a `Call`. Out: its `Design`, or why the schedule does not apply. Columns of the lane, heads and sequences run
in parallel; nothing is exchanged between blocks. The gradient starts from states that the forward pass leaves
every few steps, repeats the steps of one block of time into a scratch, and walks it back.
"""

from __future__ import annotations

import math
from dataclasses import replace

import sympy
from sympy import Expr

from rekern.hwmodels.gpu import Gpu
from rekern.printers.triton import ROWS
from rekern.schedules.gpu import work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.design import SMALLEST_TILE, Design, stages, tile, tiles, warps
from rekern.schedules.gpu.launches import Launch
from rekern.schedules.programs import programs
from rekern.schedules.triton.live import held
from rekern.solver import Variable
from rekern.solver.formulas import AtMost, Least, Most, When

# Dependent instructions of a step without a sum: decay, multiply-add, and their share of the loop, each some
# four cycles apart (FMA latency of Volta to Hopper: arXiv:1804.06826, arXiv:2402.13499).
CHAIN_CYCLES = 32
SECTOR_BYTES = 32  # of a cache line, moved as a whole (CUDA C++ Best Practices Guide, "Coalesced Access")
VECTOR = 4  # neighbouring columns of a thread: a tensor without the lane is held once for each so many
NEEDS = "a smaller K, or the schedule chunkwise, which tiles both axes of the state"


def refusal(call: Call) -> str | None:
    """Why `call` has no time loop over columns; None: it has."""
    if call.is_dense:
        return "a dense state needs all of itself at every step; see one_block and persistent"
    return None


def design(call: Call) -> Design:
    """The sizes of both passes."""
    found = forward(call)
    return found + backward(call) if call.gradient else found


def forward(call: Call) -> Design:
    """Every operand is read once; those without the lane once more for each tile, from L2."""
    columns, warp, stage = _variables(call, "forward")
    block = block_of_time(call)
    state, todo = kept(call), work.forward_along(call, lane(call))
    launch = _launch(call, "forward", todo, columns.symbol, warp.symbol, stage.symbol, call.time)
    if not call.gradient:
        return Design((columns, warp, stage), (launch,))
    left = call.rows * state.bytes * tiles(call.time, block.symbol)
    return Design((block, columns, warp, stage), (_moving(launch, left),))


def backward(call: Call) -> Design:
    """Each block of time forward again, into a scratch, and then back."""
    columns, warp, stage = _variables(call, "backward")
    block = block_of_time(call)
    state, gpu = kept(call), call.gpu
    there, back = work.forward_along(call, lane(call)), work.backward_along(call, lane(call))
    both = work.Work(
        there.flops + back.flops, 0, there.special + back.special,
        there.shared_elements + back.shared_elements, there.lane_elements + back.lane_elements,
    )  # fmt: skip
    launch = _launch(call, "backward", both, columns.symbol, warp.symbol, stage.symbol, 2 * call.time)
    left = call.rows * state.bytes * tiles(call.time, block.symbol)
    scratch = 2 * call.rows * state.bytes * call.time
    resident = AtMost(call.rows * state.bytes * block.symbol, gpu.l2_bytes)
    spilled = When(resident, 0, scratch)
    launch = _moving(launch, left + spilled, left + scratch)
    return Design((block, columns, warp, stage), (launch,))


def step(call: Call) -> Design:
    """One token: the state is read, updated and written."""
    columns, warp, _ = _variables(call, "step")
    todo = work.forward_along(call, lane(call))
    launch = _launch(call, "step", todo, columns.symbol, warp.symbol, sympy.Integer(1), 1)
    moved = 2 * call.rows * kept(call).bytes
    return Design((columns, warp), (_moving(launch, moved),))


def block_of_time(call: Call) -> Variable:
    """Steps between two states that are left for the gradient."""
    most = min(256, work.power_of_two(call.time))
    return Variable("block of time", 1, most, powers_of_two=True)


def lane(call: Call) -> str | None:
    """The axis that blocks share out: that of the kernels, along which outputs are independent too."""
    return programs(call.spec).lane


def kept(call: Call) -> work.State:
    """The states of one head, by columns of the lane."""
    return work.state_along(call, lane(call))


def tile_elements(call: Call, columns: Expr, backward: bool) -> Expr:
    """Numbers that a block holds at once where that is most: counted in the text of the kernel."""
    lengths, along = {**dict(call.lengths), ROWS: SMALLEST_TILE}, lane(call)
    copies = columns / Least(columns, VECTOR) if along else sympy.Integer(1)

    def size(shape: tuple[str, ...]) -> Expr:
        rest = math.prod(work.power_of_two(lengths[a]) for a in shape if a != along)
        # A vector of the lane beside tiles is a few numbers a thread, whatever its length.
        if along in shape:
            return sympy.Integer(rest) * columns
        return sympy.Integer(rest) * copies if shape else sympy.Integer(0)

    most = held(call.spec, call.lengths, backward).most
    return Most(*(sympy.Add(*(n * size(shape) for shape, n in count.items())) for count in most))


def exchange_seconds(gpu: Gpu, warp: Expr) -> Expr:
    """A sum across the threads of a block: through shuffles in a warp, through shared memory among warps."""
    shuffles = 5 * gpu.shared_latency_seconds
    among = 2 * gpu.shared_latency_seconds + gpu.block_barrier_seconds
    return shuffles + When(AtMost(warp, 1), 0, among)


def _variables(call: Call, name: str) -> tuple[Variable, Variable, Variable]:
    along = lane(call)
    # A state of columns alone has a number for each thread of a warp; narrower tiles would leave threads idle.
    elementwise = all(o.axes == (along,) for o in call.spec.states if along in o.axes)
    least = call.gpu.warp_threads if elementwise else 1
    columns = tile(f"{name} columns", kept(call).columns, least, most=1024)
    return columns, warps(f"{name} warps", call.gpu), stages(f"{name} stages", call.gpu)


def _launch(
    call: Call, name: str, todo: work.Work, columns: Expr, warp: Expr, stage: Expr, steps: int
) -> Launch:
    gpu, state = call.gpu, kept(call)
    blocks = call.rows * tiles(state.columns, columns)
    tokens = call.rows * call.time if steps > 1 else call.rows
    rows = state.padded_column_rows * columns + state.padded_whole_rows
    padded = sympy.Rational(1, max(1, state.elements)) * rows * tiles(state.columns, columns)
    # A tile that is narrower than a sector of the cache moves the whole sector.
    sectors = Most(1, SECTOR_BYTES / (columns * call.element_bytes))
    lane = tokens * todo.lane_elements * call.element_bytes
    shared = tokens * todo.shared_elements * call.element_bytes
    chain = CHAIN_CYCLES / gpu.clock_hz + state.exchanges * exchange_seconds(gpu, warp)
    return Launch(
        name,
        blocks,
        steps,
        warp,
        call.dtype,
        tile_elements=tile_elements(call, columns, name == "backward"),
        dram_bytes=sympy.Integer(lane + shared),
        l2_bytes=lane * sectors + shared * tiles(state.columns, columns),
        flops=tokens * todo.flops * padded,
        special=tokens * todo.special * padded,
        latency=chain,
        load_latency=gpu.dram_latency_seconds,
        stages=stage,
        needs=NEEDS,
    )


def _moving(launch: Launch, dram: Expr | int, l2: Expr | int | None = None) -> Launch:
    """The same launch with more traffic."""
    return replace(
        launch,
        dram_bytes=launch.dram_bytes + dram,
        l2_bytes=launch.l2_bytes + (dram if l2 is None else l2),
    )
