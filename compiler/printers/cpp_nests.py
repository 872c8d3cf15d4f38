"""One loop nest as C++ text.

In: a `Nest`. Out: its lines: declarations before each loop, values at the loop where they are known, stores
last. A reduction is joined in the lanes of a vector, in registers, or in memory, whichever is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rekern import ir
from rekern.ir import Index, Node, Read
from rekern.loops.padding import Padding, padding
from rekern.loops.program import Nest, Place, Statement
from rekern.printers.cpp_memory import Memory
from rekern.printers.cpp_names import Names, identifier, indent, loop_variable, own_part
from rekern.printers.cpp_values import NestText, ValuePrinter

ADDITION_LATENCY, PER_CYCLE = 4, 2  # cycles until a sum can be added to, and multiply-adds begun in one
SPARE_REGISTERS = 6  # for broadcast numbers, loads in flight and the constants of a loop
START = {"sum": "0", "max": "-INFINITE"}


class NestPrinter:
    """Prints one nest; over its whole axis, or (where it is not `whole`) over the part of a member of a team.

    `masks` are then the axes along which it sums lanes and has to leave some out, `row_sums` the arrays of vectors
    that become sums of rows, with how many there are, `ahead` the rows that it prefetches, `walks` the axes of
    streamed rows.
    """

    def __init__(
        self, memory: Memory, names: Names, stored: Mapping[Node, str], nest: Nest, whole: bool = True
    ) -> None:
        self.memory = memory
        self.names = names
        self.nest = nest
        self.whole = whole
        self.mine: list[str] = []  # stores by one member of a team
        self.text = NestText(nest)
        self.values = ValuePrinter(memory, names, stored, nest, self.text)
        self.turns = 1
        self.masks: set[str] = set()
        self.ahead: list[Place] = []
        self.row_sums: dict[str, str] = {}
        self.walks: set[str] = set()
        self.joins_lanes = False

    def run(self) -> list[str]:
        self.turns = self._turns()
        self._hold_rows()
        values = [self.values.value(s.value) for s in self.nest.statements]
        for s, value in zip(self.nest.statements, values, strict=True):
            if s.reduce is None:
                self._store(s, value)
            else:
                self._join(s, *s.reduce, self.values.wide(s.value, value))
        text = self.text
        text.before[text.depth][:0] = self._prefetches()
        text.after[text.depth] += self._if_mine()
        lines = text.before[text.depth] + text.after[text.depth]
        for level in range(text.depth - 1, -1, -1):
            if self.turns > 1 and level == text.depth - 2:
                lines = self._in_turns(text.loops[level], lines)
            else:
                lines = [f"{self._loop(text.loops[level])} {{", *indent(lines), "}"]
            lines = [*text.before[level], *lines, *text.after[level]]
        return lines

    def _prefetches(self) -> list[str]:
        """Asks for what the next batch row is about to read and write of the caller's rows."""
        lane = self.nest.lane
        if lane is None or self.nest.outer or not self.memory.rows:
            return []
        read = [n for n in ir.walk(s.value for s in self.nest.statements) if isinstance(n, Read)]
        places = [(n.operand, n.component) for n in read if n.indices == (lane,)]
        places += [s.target for s in self.nest.statements if s.axes == (lane,)]
        self.ahead = [p for p in dict.fromkeys(places) if self.memory.role(p[0]) in ("row", "result")]
        return [f"prefetch({identifier(p)}[row + 1] + {loop_variable(lane)});" for p in self.ahead]

    def _in_turns(self, index: Index, lines: list[str]) -> list[str]:
        """A loop whose turns add to two sets of sums by turns."""
        at, name = loop_variable(index), self.names.fresh("take_row")
        return [
            f"const auto {name} = [&](int64_t {at}, int turn) {{",
            *indent(lines),
            "};",
            f"for (int64_t {at} = 0; {at} < dims.{index.dim}; {at} += 2) {{",
            f"    {name}({at}, 0);",
            f"    if ({at} + 1 < dims.{index.dim}) {name}({at} + 1, 1);",
            "}",
        ]

    def _turns(self) -> int:
        """How many sets of sums the rows of the nest add to.

        Each addition to a sum waits for the one before it. Where a row is short, the rows come faster than that.
        """
        nest, vectors = self.nest, self.memory.vectors
        joined = [s for s in nest.statements if s.reduce and self._in_registers(s, s.reduce[1])]
        space = {*nest.outer, nest.lane}
        values = ir.walk(s.value for s in nest.statements)
        work = sum(isinstance(n, ir.Apply) and n.free >= space for n in values) + len(joined)
        fits = 2 * len(joined) * vectors + SPARE_REGISTERS <= self.memory.registers
        return 2 if joined and fits and work * vectors < 2 * ADDITION_LATENCY * PER_CYCLE else 1

    def _in_registers(self, s: Statement, bound: Index) -> bool:
        """Whether a sum stays in registers while the loop just outside the vector loop runs."""
        lane = self.nest.lane
        return lane in s.axes and bound != lane and self._just_outside(bound) and lane.dim in self.memory.tile

    def _hold_rows(self) -> None:
        """Rows along the lane that every turn of the outer loops reads: in registers, as far as these go."""
        lane, vectors = self.nest.lane, self.memory.vectors
        if lane is None or not self.nest.outer or lane.dim not in self.memory.tile:
            return
        sums = [s.reduce[1] for s in self.nest.statements if s.reduce is not None]
        joined = sum(bound != lane for bound in sums)
        room = (self.memory.registers - SPARE_REGISTERS - (len(sums) - joined)) // vectors - joined * self.turns
        for node in self.values.rows_along(lane)[: max(0, room)]:
            place = (node.operand, node.component)
            held = self.names.fresh(f"{identifier(place)}_held")
            self.text.before[0] += [
                f"vec {held}[{self.memory.row(lane.dim)} / LANES];",
                f"{self._loop(lane)} {held}[{loop_variable(lane)} / LANES] = {self.values.read(node)};",
            ]
            self.values.held[node] = held

    def _loop(self, index: Index) -> str:
        at = loop_variable(index)
        if index == self.nest.lane and self.memory.streams is not None:
            self.walks.add(index.dim)
            return f"for (const int64_t {at} : walk_{index.dim})"
        if index == self.nest.lane and not self.whole:
            own = own_part(index.dim)
            return f"for (int64_t {at} = {own}.first; {at} < {own}.last; {at} += LANES)"
        if index == self.nest.lane:
            return f"for (int64_t {at} = 0; {at} < {self.memory.row(index.dim)}; {at} += LANES)"
        return f"for (int64_t {at} = 0; {at} < dims.{index.dim}; ++{at})"

    def _is_local(self, s: Statement) -> bool:
        """Whether the target is one number that no array has to hold."""
        return not s.axes and not self.memory.rows and s.target[0] in self.memory.loops.temporaries

    def _store(self, s: Statement, value: str) -> None:
        body = self.mine if self._is_stored_once(s) else self.text.after[self.text.depth]
        base, offset = self.memory.target(s.target), self.memory.offset(s.target, s.axes)
        place = f"{base} + {offset}"
        wide = self.values.wide(s.value, value)
        lane = self.nest.lane
        view = (self.memory.streams or {}).get(s.target)
        if self._is_local(s):
            body.append(f"const real {base} = {value};")
        elif lane is None:
            body.append(f"{base}[{offset or '0'}] {'+=' if s.add else '='} {value};")
        elif view is not None and s.axes == (lane,):
            body.append(f"{view}.store({base}, {offset}, {wide});")
        else:
            load, store = self._access(s, place, lane)
            body.append(f"{store}, {load} + {wide});" if s.add else f"{store}, {wide});")

    def _is_stored_once(self, s: Statement) -> bool:
        """Whether all members of a team find what one of them is to store."""
        sharing = self.memory.sharing
        return sharing is not None and self.whole and s.target[0] not in sharing.private

    def _if_mine(self) -> list[str]:
        """The stores of what all members of a team find: by the one in charge of it."""
        lane = self.nest.lane
        test = "team.leads()" if lane is None else f"{own_part(lane.dim)}.holds({loop_variable(lane)})"
        if len(self.mine) > 1:
            return [f"if ({test}) {{", *indent(self.mine), "}"]
        return [f"if ({test}) {line}" for line in self.mine]

    def _access(self, s: Statement, place: str, lane: Index) -> tuple[str, str]:
        """What loads a vector of the target, and the beginning of what stores one."""
        if self.memory.layout(s.axes)[-1] == lane:
            return f"load({place})", f"store({place}"
        far = self.memory.far(s.axes, lane)
        return f"gather_rows({place}, {far})", f"scatter_rows({place}, {far}"

    def _join(self, s: Statement, operation: str, bound: Index, value: str) -> None:
        """Join the vector `value` to the result of a reduction over `bound`."""
        lane = self.nest.lane
        assert lane is not None
        if bound == lane:
            self._join_lanes(s, operation, lane, value)
        elif self._in_registers(s, bound):
            self._join_in_registers(s, operation, lane, value)
        else:
            self._join_in_memory(s, operation, bound, value)

    def _just_outside(self, bound: Index) -> bool:
        return self.text.levels[bound] == self.text.depth - 1

    def _join_lanes(self, s: Statement, operation: str, lane: Index, value: str) -> None:
        """A sum along the vector. Those of many rows wait as vectors in an array, to be joined many at a time."""
        self.joins_lanes = True
        depth, start = self.text.depth, f"all({START[operation]})"
        base, offset = self.memory.base(s.target), self.memory.offset(s.target, s.axes)
        total = self.names.fresh(f"{identifier(s.target)}_lanes")
        if not self._empty_padding(s, operation, lane):
            self.masks.add(lane.dim)
            value = f"select(load_mask(mask_{lane.dim} + {loop_variable(lane)}), {value}, {start})"
        self.text.before[depth - 1].append(f"vec {total} = {start};")
        self.text.after[depth].append(update(operation, total, value))
        if s.axes and operation == "sum" and not self.memory.rows:
            size = self.memory.size(self.memory.layout(s.axes))
            rows = self.names.fresh(f"{identifier(s.target)}_rows")
            self.row_sums[rows] = size
            at = f"({offset})" if " + " in offset else offset
            self.text.after[depth - 1].append(f"store({rows} + {at} * LANES, {total});")
            self.text.after[0].append(f"sum_rows({base}, {rows}, {size});")
            return
        target = f"const real {base}" if self._is_local(s) else f"{base}[{offset or '0'}]"
        self.text.after[depth - 1].append(f"{target} = {operation}_lanes({total});")

    def _empty_padding(self, s: Statement, operation: str, lane: Index) -> bool:
        """Whether what the vector loop adds beyond the last number is 0."""
        loops = self.memory.loops
        own = operation == "sum" and lane.dim == loops.program.lane
        return own and padding(s.value, lane.dim, loops.padding) == Padding.ZERO

    def _join_in_registers(self, s: Statement, operation: str, lane: Index, value: str) -> None:
        depth, row, at = self.text.depth, self.memory.row(lane.dim), loop_variable(lane)
        base, offset = self.memory.base(s.target), self.memory.offset(s.target, s.axes)
        total = self.names.fresh(f"{identifier(s.target)}_{operation}")
        start, here, result = f"all({START[operation]})", f"{total}[{at} / LANES]", f"{total}[{at} / LANES]"
        if self.turns > 1:
            declare = [f"vec {total}[2][{row} / LANES];"]
            declare.append(f"for (vec& lane : {total}[0]) lane = {start};")
            declare.append(f"for (vec& lane : {total}[1]) lane = {start};")
            here, parts = f"{total}[turn][{at} / LANES]", [f"{total}[{n}][{at} / LANES]" for n in range(2)]
            result = " + ".join(parts) if operation == "sum" else f"rk_maximum({', '.join(parts)})"
        else:
            declare = [f"vec {total}[{row} / LANES];", f"for (vec& lane : {total}) lane = {start};"]
        self.text.before[depth - 2] += declare
        self.text.after[depth].append(update(operation, here, value))
        self.text.after[depth - 2].append(f"{self._loop(lane)} store({base} + {offset}, {result});")

    def _join_in_memory(self, s: Statement, operation: str, bound: Index, value: str) -> None:
        lane, depth, start = self.nest.lane, self.text.depth, START[operation]
        assert lane is not None
        base, offset = self.memory.base(s.target), self.memory.offset(s.target, s.axes)
        if self._just_outside(bound) and self.memory.layout(s.axes)[-1] == lane:
            first = re.sub(rf"\b{loop_variable(lane)}\b", "0", offset)
            row = self.memory.row(lane.dim)
            self.text.before[depth - 2].append(f"fill({base} + {first}, {row}, ({start}));")
        else:
            size = self.memory.size(self.memory.layout(s.axes))
            whole = f"{base} + row * {size}" if self.memory.rows else base
            self.text.before[0].append(f"fill({whole}, {size}, ({start}));")
        load, store = self._access(s, f"{base} + {offset}", lane)
        joined = f"{load} + {value}" if operation == "sum" else f"rk_maximum({load}, {value})"
        self.text.after[depth].append(f"{store}, {joined});")


def update(operation: str, total: str, value: str) -> str:
    """The statement that joins `value` to `total`."""
    return f"{total} += {value};" if operation == "sum" else f"{total} = rk_maximum({total}, {value});"
