"""The launches that chunkwise schedules are made of, with their tiles as variables.

In: a `Call`, the `Structure` of its chunk, the symbol of the chunk length. Out: `Design`s of one kernel each.
Inside a chunk the pairs of blocks are walked like causal attention, so its length is not bounded by what is on
chip.
"""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Integer

from rekern.schedules.gpu import time_loop, work
from rekern.schedules.gpu.call import Call
from rekern.schedules.gpu.chunk_structure import Structure
from rekern.schedules.gpu.design import Design, dense_tile, stages, tile, tiles, warps
from rekern.schedules.gpu.launches import Formula, Launch
from rekern.solver.formulas import Least, Most, RoundedUp

STATE_BYTES = 4  # states in memory are float32: the gradient of a decay needs them so
DIAGONAL = 16  # rows of a block whose decays are applied one by one: no exponent is ever positive
NEEDS = "smaller tiles, fewer stages, or the schedule time_loop"


@dataclass(frozen=True)
class Chunks:
    """A chunk length for a call: a formula, and what follows from it."""

    call: Call
    structure: Structure
    length: Expr

    @property
    def count(self) -> Expr:
        """Chunks of a sequence."""
        return tiles(self.call.time, self.length)

    @property
    def keys(self) -> Expr:
        """Rows of keys in a chunk: a step of several ticks has several."""
        return self.length * self.structure.ticks

    @property
    def state_bytes(self) -> Expr:
        """Of the states of all chunks."""
        s = self.structure
        return self.call.rows * self.count * s.rows * s.columns * STATE_BYTES

    @property
    def forward_bytes(self) -> int:
        """Of all inputs and outputs."""
        call = self.call
        return call.rows * call.time * work.forward(call).elements * call.element_bytes

    @property
    def backward_bytes(self) -> int:
        """Of all inputs, and of the gradients of inputs and outputs."""
        call = self.call
        return call.rows * call.time * work.backward(call).elements * call.element_bytes

    @property
    def query_bytes(self) -> int:
        """Of a query and an output for every token, which the states do not need."""
        call, s = self.call, self.structure
        return call.rows * call.time * (s.rows + s.columns) * call.element_bytes

    @property
    def written_bytes(self) -> int:
        """Of what a step that erases really writes to each of its keys."""
        call, s = self.call, self.structure
        return 0 if s.erase == "nothing" else call.rows * call.time * s.ticks * s.columns * call.element_bytes


def prepare(chunks: Chunks, name: str) -> Design:
    """Scores among the keys of a chunk and the inverse of their triangle, for all chunks at once."""
    call, s = chunks.call, chunks.structure
    warp, stage = warps(f"{name} warps", call.gpu, (2, 4, 8)), stages(f"{name} stages", call.gpu)
    depth = dense_tile(f"{name} depth", s.rows, call.element_bytes, most=128)
    keys, k = chunks.keys, depth.symbol
    inverse = keys * keys * call.element_bytes
    blocks = call.rows * chunks.count
    pairs = s.forward.over_rows - 1 if s.erase == "its key" else s.forward.over_rows // 2
    keys_bytes = call.rows * call.time * s.ticks * s.rows * (2 if s.erase == "another key" else 1)
    moved = keys_bytes * call.element_bytes + blocks * inverse
    launch = Launch(
        name, blocks, tiles(s.rows, k), warp.symbol, call.dtype,
        sum_elements=2 * keys * keys,
        shared_bytes=Most(2 * keys * k * call.element_bytes * stage.symbol, keys * keys * 4),
        dram_bytes=moved, l2_bytes=moved,
        matrix_flops=blocks * (2 * pairs * keys * keys * tiles(s.rows, k) * k + keys**3),
        matrix_rows=keys,
        special=blocks * keys * keys,
        # Substitution inside blocks of 16 rows is one row after another.
        latency=call.gpu.mma_latency_seconds + DIAGONAL * call.gpu.shared_latency_seconds,
        needs=NEEDS,
    )  # fmt: skip
    return Design((warp, stage, depth), (launch,))


def state_pass(chunks: Chunks, name: str, vectors: int, times: Formula = 1, writes_states: bool = True) -> Design:
    """The states of all chunks, one after the other: rows and columns of the state are cut into tiles.

    A step that erases needs all rows of a column: then only columns are cut.

    Args:
        vectors: Read for every token, along rows and along columns each.
    """
    call, s, gpu = chunks.call, chunks.structure, chunks.call.gpu
    columns = dense_tile(f"{name} columns", s.columns, call.element_bytes)
    warp, stage = warps(f"{name} warps", gpu, (1, 2, 4, 8)), stages(f"{name} stages", gpu)
    sub = tile(f"{name} steps", call.time, most=64)
    c, part = columns.symbol, Least(sub.symbol, chunks.length)
    variables = [columns, warp, stage, sub]
    if s.erase == "nothing":
        rows = dense_tile(f"{name} rows", s.rows, call.element_bytes)
        r: Expr = rows.symbol
        variables.append(rows)
    else:
        r = Integer(max(16, work.power_of_two(s.rows)))
    row_tiles, column_tiles = tiles(s.rows, r), tiles(s.columns, c)
    blocks = call.rows * row_tiles * column_tiles
    steps = chunks.count * RoundedUp(chunks.length / part)
    keys = part * s.ticks
    size = call.element_bytes
    inverse = chunks.call.rows * chunks.count * chunks.keys**2 * size if s.erase != "nothing" else Integer(0)
    reads = chunks.forward_bytes - (chunks.query_bytes if vectors == 1 else 0)
    loads = blocks * steps * keys * vectors * (r + c) * float(size) + inverse * column_tiles
    written = chunks.state_bytes + chunks.written_bytes
    products = s.forward.with_state - 1
    triangle = 0 if s.erase == "nothing" else 2 * keys * chunks.keys * (c + r)
    launch = Launch(
        name, blocks, steps, warp.symbol, call.dtype,
        sum_elements=r * c + (0 if s.erase == "nothing" else keys * c),
        shared_bytes=keys * vectors * (r + c) * size * stage.symbol
        + (0 if s.erase == "nothing" else r * c * size + keys * chunks.keys * size),
        dram_bytes=reads + written + inverse,
        l2_bytes=Most(loads, reads + inverse) + written,
        matrix_flops=blocks * steps * (2 * products * keys * r * c + triangle),
        matrix_rows=r,
        flops=blocks * steps * (r * c + keys * (r + c)),
        special=blocks * steps * keys * (r if s.decay == "rows" else 1),
        latency=products * gpu.mma_latency_seconds + gpu.block_barrier_seconds,
        load_latency=gpu.dram_latency_seconds, stages=stage.symbol,
        needs=NEEDS,
    )  # fmt: skip
    return Design(tuple(variables), (launch,))


def output_pass(chunks: Chunks, name: str) -> Design:
    """Outputs of all chunks at once, from the state on entry and the pairs of blocks inside."""
    call, s, gpu = chunks.call, chunks.structure, chunks.call.gpu
    queries, keys = tile(f"{name} queries", call.time, most=128), tile(f"{name} keys", call.time, most=128)
    columns = dense_tile(f"{name} columns", s.columns, call.element_bytes)
    depth = dense_tile(f"{name} depth", s.rows, call.element_bytes, most=128)
    warp, stage = warps(f"{name} warps", gpu, (2, 4, 8)), stages(f"{name} stages", gpu)
    q, j = Least(queries.symbol, chunks.length), Least(keys.symbol, chunks.length)
    c, k, size = columns.symbol, depth.symbol, call.element_bytes
    column_tiles, depths = tiles(s.columns, c), tiles(s.rows, k)
    blocks = call.rows * chunks.count * RoundedUp(chunks.length / q) * column_tiles
    pairs = (RoundedUp(chunks.keys / j) + RoundedUp(q / j)) / 2  # of one row of queries, on average
    steps = (pairs + 1) * depths
    products = s.forward
    moved = chunks.forward_bytes + chunks.written_bytes + chunks.state_bytes
    loads = float(size) * blocks * (q * depths * k + pairs * j * (depths * k + c) + depths * k * c * STATE_BYTES / size)
    scores = pairs * 2 * q * j * (depths * k * _outputs(products.over_rows) + c * _outputs(products.over_columns))
    launch = Launch(
        name, blocks, steps, warp.symbol, call.dtype,
        sum_elements=q * c + q * j,
        tile_elements=q * j / 2,  # the scores again, in the dtype of the operands
        shared_bytes=((q + j) * k + j * c + k * c) * size * stage.symbol,
        dram_bytes=moved, l2_bytes=Most(loads, moved),
        matrix_flops=blocks * (scores + 2 * q * depths * k * c),
        matrix_rows=q,
        flops=blocks * pairs * q * j * 2 + _diagonal(chunks, q, j) * blocks * pairs,
        special=blocks * pairs * q * (j if s.decay == "scalar" else 1) + _diagonal(chunks, q, j) * blocks,
        latency=2 * gpu.mma_latency_seconds + gpu.block_barrier_seconds,
        load_latency=gpu.l2_latency_seconds, stages=stage.symbol,
        needs=NEEDS,
    )  # fmt: skip
    return Design((queries, keys, columns, depth, warp, stage), (launch,))


def one_pass(chunks: Chunks, name: str, segments: Formula = 1) -> Design:
    """State, scores and outputs in one kernel that walks over the chunks; only columns are cut."""
    call, s, gpu = chunks.call, chunks.structure, chunks.call.gpu
    columns = dense_tile(f"{name} columns", s.columns, call.element_bytes)
    warp, stage = warps(f"{name} warps", gpu, (2, 4, 8)), stages(f"{name} stages", gpu)
    c, q, keys, size = columns.symbol, chunks.length, chunks.keys, call.element_bytes
    r = max(16, work.power_of_two(s.rows))
    column_tiles = tiles(s.columns, c)
    blocks = call.rows * column_tiles * segments
    steps = RoundedUp(chunks.count / segments)
    moved = chunks.forward_bytes
    products = s.forward
    inverse = 0 if s.erase == "nothing" else keys**3
    launch = Launch(
        name, blocks, steps, warp.symbol, call.dtype,
        sum_elements=r * c + q * c + keys * q,
        shared_bytes=((q + keys) * r + keys * c) * size * stage.symbol + r * c * size,
        dram_bytes=Integer(moved), l2_bytes=Most(float(size) * blocks * steps * ((q + keys) * r + 2 * keys * c), moved),
        matrix_flops=blocks * steps * (
            2 * products.over_rows * q * keys * r + 2 * products.over_columns * q * keys * c
            + 2 * products.with_state * keys * r * c + inverse
        ),
        matrix_rows=q,
        flops=blocks * steps * (r * c + q * keys * 2 + _diagonal(chunks, q, keys)),
        special=blocks * steps * (q * keys if s.decay == "scalar" else keys * r),
        latency=(2 + products.with_state) * gpu.mma_latency_seconds + 2 * gpu.block_barrier_seconds
        + (DIAGONAL * gpu.shared_latency_seconds if s.erase != "nothing" else 0),
        load_latency=gpu.dram_latency_seconds, stages=stage.symbol,
        needs=NEEDS,
    )  # fmt: skip
    return Design((columns, warp, stage), (launch,))


def gradient_pass(chunks: Chunks, name: str) -> Design:
    """Gradients of all operands of all chunks at once, from states on entry and cotangents on exit."""
    call, s, gpu = chunks.call, chunks.structure, chunks.call.gpu
    block = tile(f"{name} block", call.time, most=128)
    rows = dense_tile(f"{name} rows", s.rows, call.element_bytes, most=128)
    columns = dense_tile(f"{name} columns", s.columns, call.element_bytes, most=128)
    warp, stage = warps(f"{name} warps", gpu, (4, 8)), stages(f"{name} stages", gpu)
    q, r, c, size = Least(block.symbol, chunks.length), rows.symbol, columns.symbol, call.element_bytes
    row_tiles, column_tiles = tiles(s.rows, r), tiles(s.columns, c)
    blocks = call.rows * chunks.count * RoundedUp(chunks.keys / q) * row_tiles
    pairs = (RoundedUp(chunks.keys / q) + 1) / 2
    steps = pairs * (column_tiles + 1)
    products = s.backward
    moved = chunks.backward_bytes + chunks.written_bytes + 2 * chunks.state_bytes
    pair = 2 * q * q * (products.over_rows * r + products.over_columns * column_tiles * c)
    with_state = 2 * products.with_state * q * r * column_tiles * c
    states = 2 * r * column_tiles * c * STATE_BYTES / size
    loads = float(size) * blocks * (pairs * q * 2 * (r + column_tiles * c) + states)
    launch = Launch(
        name, blocks, steps, warp.symbol, call.dtype,
        sum_elements=2 * q * r + q * c + q * q,
        tile_elements=q * q / 2,
        shared_bytes=(2 * q * (r + c) + r * c) * size * stage.symbol,
        dram_bytes=moved, l2_bytes=Most(loads, moved),
        matrix_flops=blocks * (pairs * pair + with_state),
        matrix_rows=q,
        flops=blocks * pairs * (q * q * 4 + 2 * _diagonal(chunks, q, q)),
        special=blocks * pairs * (q * q if s.decay == "scalar" else q * r),
        latency=3 * gpu.mma_latency_seconds + 2 * gpu.block_barrier_seconds,
        load_latency=gpu.l2_latency_seconds, stages=stage.symbol,
        needs=NEEDS,
    )  # fmt: skip
    return Design((block, rows, columns, warp, stage), (launch,))


def join(chunks: Chunks, name: str, segments: Expr) -> Design:
    """States on entry of every segment, one segment after the other."""
    call, s, gpu = chunks.call, chunks.structure, chunks.call.gpu
    numbers = call.rows * s.rows * s.columns
    # A step that erases hands on a matrix of rows times rows, and segments are joined by products.
    through = s.rows * s.rows * call.rows if s.erase != "nothing" else 0
    moved = segments * (2 * numbers + through) * STATE_BYTES
    launch = Launch(
        name, Integer(-(-numbers // (4 * gpu.warp_threads))), segments, Integer(4), call.dtype,
        dram_bytes=moved, l2_bytes=moved,
        flops=2 * segments * numbers * (s.rows if s.erase != "nothing" else 1),
        latency=time_loop.CHAIN_CYCLES / gpu.clock_hz + gpu.l2_latency_seconds,
    )  # fmt: skip
    return Design((), (launch,))


def _outputs(products: int) -> int:
    """Of the products of a pair of blocks, those that the outputs need; the others prepare the keys."""
    return max(1, products // 2)


def _diagonal(chunks: Chunks, queries: Expr, keys: Expr) -> Expr:
    """Operations on vector units where a decay does not factor out of the sum over rows."""
    if chunks.structure.decay != "rows":
        return Integer(0)
    return 3 * Least(queries, keys) * DIAGONAL * chunks.structure.rows / 2
