"""Calls that people make: the sizes at which a model is looked at, ranked in tests and measured in benchmarks.

In: a spec, a machine, a dtype. Out: a few `Call`s, one of them with sizes that are no powers of two.
"""

from __future__ import annotations

from collections.abc import Mapping

from rekern.analysis.facts import facts
from rekern.analysis.kinds import Dense
from rekern.hwmodels import Machine
from rekern.schedules.gpu.call import Call, Dtype
from rekern.spec import Recurrence

# batch, heads, time, and lengths of axes; an axis that is not named here has OTHER
Sizes = tuple[int, int, int, Mapping[str, int]]
OTHER = 64

# FlashRNN's figure (arXiv:2412.07752): 768 units in 12 heads or in one; and a small odd model.
DENSE: tuple[Sizes, ...] = ((16, 12, 1024, {"D": 64}), (16, 1, 1024, {"D": 768}), (5, 3, 100, {"D": 20}))
ELEMENTWISE: tuple[Sizes, ...] = ((8, 1, 4096, {"D": 2048}), (1, 1, 65536, {"D": 1024}), (3, 1, 1000, {"D": 100}))
# A layer of a 1.3 B model; a long sequence alone; and an odd one.
MATRIX: tuple[Sizes, ...] = (
    (8, 16, 4096, {"K": 128, "V": 128}),
    (1, 16, 65536, {"K": 128, "V": 256}),
    (3, 5, 1000, {"K": 60, "V": 100}),
)
# Mamba: channels with a few numbers each, no heads.
CHANNELS: tuple[Sizes, ...] = (
    (8, 1, 4096, {"D": 2048, "N": 16}),
    (1, 1, 65536, {"D": 2048, "N": 16}),
    (3, 1, 1000, {"D": 100, "N": 20}),
)
# A feature map of second order has K * K rows.
SQUARED: tuple[Sizes, ...] = ((8, 16, 4096, {"K": 16, "V": 64}), (3, 5, 1000, {"K": 12, "V": 20}))


def usual_sizes(spec: Recurrence) -> tuple[Sizes, ...]:
    """Batch, heads, time and lengths of axes, the most common first."""
    if any(isinstance(s.kind, Dense) for s in facts(spec).stages):
        return DENSE
    widest = max(len(o.axes) for o in spec.states)
    matrix = MATRIX if "K" in spec.axes else CHANNELS
    return (ELEMENTWISE, ELEMENTWISE, matrix, SQUARED)[min(widest, 3)]


def usual_calls(spec: Recurrence, machine: Machine, dtype: Dtype) -> tuple[Call, ...]:
    """The usual calls of `spec`, forward and gradient."""
    return tuple(
        Call.of(
            spec,
            {axis: lengths.get(axis, OTHER) for axis in spec.axes},
            machine,
            batch=batch,
            heads=heads,
            time=time,
            dtype=dtype,
        )
        for batch, heads, time, lengths in usual_sizes(spec)
    )
