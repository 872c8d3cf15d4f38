"""One loop nest as C++ text.

In: a `Nest`. Out: its lines: declarations before each loop, values at the loop where they are known, stores
last. A reduction is joined in the lanes of a vector, in registers, or in memory, whichever is nearest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rekern import ir
from rekern.ir import Index, Node, Read
from rekern.loops.program import Nest, Place, Statement
from rekern.printers.cpp_memory import Memory
from rekern.printers.cpp_names import Names, identifier, indent, loop_variable
from rekern.printers.cpp_values import NestText, ValuePrinter

START = {"sum": "0", "max": "-INFINITE"}


class NestPrinter:
    """Prints one nest.

    `masks` are then the axes along which it sums lanes, `ahead` the rows that it prefetches, `walks` the axes of
    streamed rows.
    """

    def __init__(self, memory: Memory, names: Names, stored: Mapping[Node, str], nest: Nest) -> None:
        self.memory = memory
        self.names = names
        self.nest = nest
        self.text = NestText(nest)
        self.values = ValuePrinter(memory, names, stored, nest, self.text)
        self.masks: set[str] = set()
        self.ahead: list[Place] = []
        self.walks: set[str] = set()
        self.joins_lanes = False

    def run(self) -> list[str]:
        values = [self.values.value(s.value) for s in self.nest.statements]
        for s, value in zip(self.nest.statements, values, strict=True):
            if s.reduce is None:
                self._store(s, value)
            else:
                self._join(s, *s.reduce, self.values.wide(s.value, value))
        text = self.text
        text.before[text.depth][:0] = self._prefetches()
        lines = text.before[text.depth] + text.after[text.depth]
        for level in range(text.depth - 1, -1, -1):
            loop = self._loop(text.loops[level])
            lines = [*text.before[level], f"{loop} {{", *indent(lines), "}", *text.after[level]]
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

    def _loop(self, index: Index) -> str:
        at = loop_variable(index)
        if index == self.nest.lane and self.memory.streams is not None:
            self.walks.add(index.dim)
            return f"for (const int64_t {at} : walk_{index.dim})"
        if index == self.nest.lane:
            return f"for (int64_t {at} = 0; {at} < {self.memory.row(index.dim)}; {at} += LANES)"
        return f"for (int64_t {at} = 0; {at} < dims.{index.dim}; ++{at})"

    def _is_local(self, s: Statement) -> bool:
        """Whether the target is one number that no array has to hold."""
        return not s.axes and not self.memory.rows and s.target[0] in self.memory.loops.temporaries

    def _store(self, s: Statement, value: str) -> None:
        body = self.text.after[self.text.depth]
        base, offset = self.memory.base(s.target), self.memory.offset(s.target, s.axes)
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
        elif self._just_outside(bound) and lane.dim in self.memory.tile and lane in s.axes:
            self._join_in_registers(s, operation, lane, value)
        else:
            self._join_in_memory(s, operation, bound, value)

    def _just_outside(self, bound: Index) -> bool:
        return self.text.levels[bound] == self.text.depth - 1

    def _join_lanes(self, s: Statement, operation: str, lane: Index, value: str) -> None:
        self.joins_lanes = True
        depth, start = self.text.depth, f"all({START[operation]})"
        base, offset = self.memory.base(s.target), self.memory.offset(s.target, s.axes)
        total = self.names.fresh(f"{identifier(s.target)}_lanes")
        mask = f"load_mask(mask_{lane.dim} + {loop_variable(lane)})"
        self.masks.add(lane.dim)
        self.text.before[depth - 1].append(f"vec {total} = {start};")
        self.text.after[depth].append(update(operation, total, f"select({mask}, {value}, {start})"))
        target = f"const real {base}" if self._is_local(s) else f"{base}[{offset or '0'}]"
        self.text.after[depth - 1].append(f"{target} = {operation}_lanes({total});")

    def _join_in_registers(self, s: Statement, operation: str, lane: Index, value: str) -> None:
        depth, row, at = self.text.depth, self.memory.row(lane.dim), loop_variable(lane)
        base, offset = self.memory.base(s.target), self.memory.offset(s.target, s.axes)
        total = self.names.fresh(f"{identifier(s.target)}_{operation}")
        here = f"{total}[{at} / LANES]"
        self.text.before[depth - 2] += [
            f"vec {total}[{row} / LANES];",
            f"for (vec& lane : {total}) lane = all({START[operation]});",
        ]
        self.text.after[depth].append(update(operation, here, value))
        self.text.after[depth - 2].append(f"{self._loop(lane)} store({base} + {offset}, {here});")

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
