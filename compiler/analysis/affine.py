"""Finds the transition of an affine state.

In: a spec and one of its states. Out: a `Transition`, or the reason why the update is none.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rekern import ir
from rekern.analysis.bounds import Ranges
from rekern.analysis.linear import (
    BOUND_FROM,
    MOST_TERMS,
    ZERO,
    Linear,
    NotLinear,
    Term,
    TooLong,
    expand,
    factors_of,
    reads_any,
    replace_everywhere,
    sum_of_products,
    summed,
)
from rekern.analysis.logs import Reason, log_decay
from rekern.analysis.stages import stage_of
from rekern.analysis.transition import Decay, LowRank, Tick, Transition, Write
from rekern.analysis.wording import listing, short
from rekern.ir import Apply, Index, Node, Number, Read
from rekern.rules import rewrite
from rekern.spec import Recurrence
from rekern.trace import Cell

BETWEEN = "between"  # stands for the state between two micro-steps; no operand has this cell
NOWHERE: Cell = (-1,)
FEW_TERMS = 16  # a chain of micro-steps doubles its terms at each; beyond this, look for the chain first
Factors = tuple[Node, ...]


class Unstructured(Exception):
    """The update is linear, but its transition is a full matrix; the message says why."""


def transition(spec: Recurrence, state: str, cell: Cell = ()) -> Transition | Reason:
    """How `state` moves on, if it is affine given earlier stages: what it keeps, mixes and writes.

    Its formulas are those of the step as `rules.rewrite` leaves them; new values of earlier stages stand in
    them whole, as `rewrite` of their formulas.

    >>> from rekern.zoo import gated_delta_product, kda
    >>> print(transition(kda, "S"))
    K decay, rank 1 on K (after the decay)
    >>> print(transition(gated_delta_product.bind(n=2), "S"))
    2 micro-steps: scalar decay, rank 1 on K (after the decay); no decay, rank 1 on K
    """
    together = stage_of(spec, state).states
    if len(together) > 1:
        return Reason(f"{listing(together)} need each other")
    try:
        return Finder(spec, state, cell, Ranges(spec)).find()
    except (NotLinear, Unstructured) as error:
        return Reason(str(error))


@dataclass(frozen=True)
class Finder:
    """One question: which state, and the ranges that were found on the way."""

    spec: Recurrence
    state: str
    cell: Cell
    ranges: Ranges

    @property
    def axes(self) -> tuple[Index, ...]:
        return ir.canonical_axes(self.spec.operand(self.state).axes)

    def find(self) -> Transition:
        """The transition.

        Raises:
            NotLinear: the update is not affine.
            Unstructured: it is, but not of the form that schedules know.
        """
        old = ir.read(self.state, self.cell, self.axes)
        new = rewrite([self.spec.step.states[self.state][self.cell]])[0]
        with contextlib.suppress(TooLong, Unstructured):
            whole = self._tick(new, old, FEW_TERMS)
            if len(whole.low_rank) < 2:
                return Transition(self.state, self.cell, self.axes, (whole,))
        return Transition(self.state, self.cell, self.axes, tuple(self._micro_steps(old, new)))

    # -- micro-steps: one low-rank term at a time, through the values of the state in between

    def _micro_steps(self, old: Read, new: Node) -> Iterator[Tick]:
        points: list[Node] = [old, *self._points_between(new), new]
        pairs = [self._from_to(a, b) for a, b in itertools.pairwise(points)]
        start = 0
        while start < len(pairs):
            tick, mixes, end = pairs[start], bool(pairs[start].low_rank), start + 1
            with contextlib.suppress(Unstructured):
                while end < len(pairs) and not (mixes and pairs[end].low_rank):
                    tick = self._from_to(points[start], points[end + 1])
                    mixes = mixes or bool(pairs[end].low_rank)
                    end += 1
            yield tick
            start = end

    def _from_to(self, first: Node, last: Node) -> Tick:
        if isinstance(first, Read):
            return self._tick(last, first)
        marker = ir.read(BETWEEN, NOWHERE, self.axes)
        return self._tick(replace_everywhere(last, first, marker), marker)

    def _points_between(self, new: Node) -> list[Node]:
        """Every value through which all of the old state passes, first to last."""
        marker = ir.read(BETWEEN, NOWHERE, self.axes)

        def is_between(node: Node) -> bool:
            if node is new or not isinstance(node, Apply) or node.free != frozenset(self.axes):
                return False
            return not reads_any(replace_everywhere(new, node, marker), {self.state})

        found = [node for node in ir.walk([new]) if reads_any(node, {self.state}) and is_between(node)]
        return sorted(found, key=lambda node: sum(1 for _ in ir.walk([node])))

    # -- one tick

    def _tick(self, new: Node, old: Read, most_terms: int = MOST_TERMS) -> Tick:
        linear = expand(new, {old.operand}, most_terms)
        kept: list[Factors] = []
        mixed: list[_Mixed] = []
        for term in linear.terms:
            found = self._classify(term, old)
            if isinstance(found, _Mixed):
                mixed.append(found)
            else:
                kept.append(found)
        own = rewrite([sum_of_products(kept)])[0]
        keeps = not ir.is_number(own, 0)
        decays = list(factors_of(own)) if keeps else []
        low_rank = tuple(self._low_rank(m, decays) for m in _merged(mixed))
        return Tick(keeps, self._decay(decays), low_rank, self._writes(linear))

    def _classify(self, term: Term, old: Read) -> _Mixed | Factors:
        """The term as a multiple of the state in its place, or as a mixture along one axis."""
        if term.read.component != old.component:
            raise Unstructured(f"the cells of {self.state} need each other")
        term = _inner_sums(term)
        across = [n for n, (here, own) in enumerate(zip(term.read.indices, self.axes)) if here != own]
        if any(term.read.indices[n] not in term.bound for n in across):
            raise Unstructured(f"{self.state} is read transposed, {_plain(term.read)}")
        if not across:
            return term.factors
        if len(across) > 1:
            raise Unstructured(f"{self.state} is summed over {len(across)} axes at once")
        axis = across[0]
        own, bound = self.axes[axis], term.read.indices[axis]
        for factor in term.factors:
            if own in factor.free and bound in factor.free:
                raise Unstructured(f"a full matrix, {_plain(factor)}, mixes {self.state} along {own.dim}")
        reads = tuple(ir.rename(f, {bound: own}) for f in term.factors if bound in f.free)
        return _Mixed(axis, tuple(f for f in term.factors if bound not in f.free), reads)

    def _low_rank(self, mixed: _Mixed, decays: list[Node]) -> LowRank:
        after = _without(mixed, decays, self.axes[mixed.axis]) if decays else None
        found = after if after is not None else mixed
        for factor in (*found.writes, *found.reads):
            along = [i.dim for i in self.axes if i in factor.free and i != self.axes[mixed.axis]]
            if along:
                raise Unstructured(f"the low-rank term differs along {listing(along)}: {short(factor)}")
        weight = ir.product(f for f in found.writes if not self._positions(f))
        write = ir.product(f for f in found.writes if self._positions(f))
        over, reads = self.axes[found.axis].dim, ir.product(found.reads)
        return LowRank(found.axis, over, weight, write, reads, "after" if after else "before")

    def _decay(self, factors: Iterable[Node]) -> tuple[Decay, ...]:
        """Factors that run over the same axes, as one."""
        groups: dict[tuple[int, ...], list[tuple[Node, Node | Reason]]] = {}
        for factor in factors:
            log = log_decay(factor, ranges=self.ranges)
            for part in self._split(factor, log):
                groups.setdefault(self._positions(part[0]), []).append(part)
        return tuple(self._group(axes, groups[axes]) for axes in sorted(groups, key=lambda a: (len(a), a)))

    def _split(self, factor: Node, log: Node | Reason) -> list[tuple[Node, Node | Reason]]:
        """exp(g[k] + h[v]) as exp(g[k]) and exp(h[v]), where neither can grow."""
        if isinstance(log, Reason) or len(self._positions(factor)) < 2:
            return [(factor, log)]
        parts: dict[tuple[int, ...], Node] = {}
        for term in ir.terms(log):
            axes = self._positions(term)
            parts[axes] = ir.add(parts.get(axes, ZERO), term)
        if len(parts) == 1 or any(self.ranges(p).high > 0 for p in parts.values()):
            return [(factor, log)]
        return [(ir.apply("exp", p), p) for p in parts.values()]

    def _group(self, axes: tuple[int, ...], parts: list[tuple[Node, Node | Reason]]) -> Decay:
        factor = ir.product(f for f, _ in parts)
        reason = next((log for _, log in parts if isinstance(log, Reason)), None)
        log = reason or ir.total(log for _, log in parts if not isinstance(log, Reason))
        fixed = {o.name for o in self.spec.of_kind("param", "scalar")}
        return Decay(
            axes,
            self._over(axes),
            factor,
            log,
            shrinks=not isinstance(log, Reason) and self.ranges(log).high <= 0,
            constant=ir.operands_read([factor]) <= fixed,
        )

    def _positions(self, node: Node) -> tuple[int, ...]:
        return tuple(n for n, index in enumerate(self.axes) if index in node.free)

    def _over(self, axes: tuple[int, ...]) -> str:
        if not axes:
            return "scalar"
        return "elementwise" if len(axes) == len(self.axes) else listing(self.axes[n].dim for n in axes)

    def _writes(self, linear: Linear) -> tuple[Write, ...]:
        if ir.is_number(linear.rest, 0):
            return ()
        return tuple(w for term in ir.terms(linear.rest) for w in self._write(term))

    def _write(self, term: Node) -> list[Write]:
        """`term` as outer products, multiplied out where a factor is a sum of such."""
        factors = list(factors_of(term))
        for n, factor in enumerate(factors):
            if len(self._positions(factor)) > 1:
                parts = ir.terms(factor)
                if len(parts) == 1:
                    return [Write(term, None)]
                rest = ir.product(factors[:n] + factors[n + 1 :])
                return [w for part in parts for w in self._write(ir.mul(rest, part))]
        at: dict[tuple[int, ...], list[Node]] = {}
        for factor in factors:
            at.setdefault(self._positions(factor), []).append(factor)
        vectors = tuple(ir.product(at.get((n,), [])) for n in range(len(self.axes)))
        return [Write(ir.product(at.get((), [])), vectors)]


@dataclass(frozen=True)
class _Mixed:
    """`product(writes) * sum over the axis of product(reads) * state`, over the state's own index."""

    axis: int
    writes: Factors
    reads: Factors


def _inner_sums(term: Term) -> Term:
    """`term` with sums that do not reach the read done first: they are part of the coefficient."""
    factors, bound = term.factors, term.bound
    for index in term.bound:
        if index not in term.read.free:
            inside = [f for f in factors if index in f.free]
            outside = [f for f in factors if index not in f.free]
            factors = (*outside, *factors_of(summed((index,), ir.product(inside))))
            bound = tuple(b for b in bound if b != index)
    return Term(factors, bound, term.read)


def _merged(mixed: list[_Mixed]) -> list[_Mixed]:
    """Terms that read the same vector as one, then terms that write the same vector as one."""

    def letters(factors: Factors) -> tuple[int, ...]:
        return tuple(sorted(id(f) for f in factors if not isinstance(f, Number)))

    by_read: dict[tuple[int, tuple[int, ...]], list[_Mixed]] = {}
    for m in mixed:
        by_read.setdefault((m.axis, letters(m.reads)), []).append(m)
    by_write: dict[tuple[int, tuple[int, ...]], list[_Mixed]] = {}
    for (axis, _), group in by_read.items():
        write = rewrite([sum_of_products([m.writes for m in group])])[0]
        if not ir.is_number(write, 0):
            writes = tuple(factors_of(write))
            by_write.setdefault((axis, letters(writes)), []).append(_Mixed(axis, writes, group[0].reads))
    result = []
    for (axis, _), group in by_write.items():
        writes, reads = group[0].writes, group[0].reads
        if len(group) > 1:
            numbers = [ir.product(f for f in m.writes if isinstance(f, Number)) for m in group]
            writes = tuple(f for f in writes if not isinstance(f, Number))
            read = rewrite([sum_of_products([(n, *m.reads) for n, m in zip(numbers, group)])])[0]
            reads = tuple(factors_of(read))
        result.append(_Mixed(axis, writes, reads))
    return result


def _without(mixed: _Mixed, decays: Iterable[Node], own: Index) -> _Mixed | None:
    """`mixed` with all of `decays` taken out of its factors, None if one is not there."""
    writes, reads, divisor = list(mixed.writes), list(mixed.reads), 1.0
    for decay in decays:
        if isinstance(decay, Number):
            divisor *= decay.value
        elif own in decay.free and decay in reads:
            reads.remove(decay)
        elif own not in decay.free and decay in writes:
            writes.remove(decay)
        else:
            return None
    if divisor != 1.0:
        value = math.prod(f.value for f in writes if isinstance(f, Number))
        writes = [ir.number(value / divisor), *(f for f in writes if not isinstance(f, Number))]
    return _Mixed(mixed.axis, tuple(writes), tuple(reads))


def _plain(node: Node) -> str:
    """A coefficient as text, its bound indices with small numbers."""
    names = {i: i for i in node.free if i.number < BOUND_FROM}
    for index in sorted(node.free - set(names)):
        candidates = (Index(index.dim, n) for n in itertools.count())
        names[index] = next(i for i in candidates if i not in names.values())
    return short(ir.rename(node, names))
