"""What is measured on a GPU, the most important first.

In: nothing. Out: `CASES`, and what a dry run makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Case:
    """One recurrence at one size. `passes`: "forward", "forward+backward" or "step"."""

    name: str
    spec: str
    batch: int
    time: int
    heads: int
    lengths: Mapping[str, int]
    dtype: torch.dtype
    passes: tuple[str, ...] = ("forward", "forward+backward")


BF16 = torch.bfloat16
CASES = (
    Case("dense LSTM, 12 heads of 64", "lstm", 16, 1024, 12, {"D": 64}, BF16),
    Case("dense LSTM, 12 heads of 32", "lstm", 16, 1024, 12, {"D": 32}, BF16),
    Case("elementwise", "hgrn", 8, 4096, 1, {"D": 2048}, BF16),
    Case("step, LSTM", "lstm", 64, 1, 12, {"D": 64}, BF16, ("step",)),
    Case("step, gated delta rule", "gated_delta_rule", 64, 1, 16, {"K": 128, "V": 128}, BF16, ("step",)),
    Case("step, gated delta rule, large batch", "gated_delta_rule", 256, 1, 16, {"K": 128, "V": 128}, BF16, ("step",)),
    Case("gated delta rule", "gated_delta_rule", 8, 2048, 16, {"K": 128, "V": 128}, BF16),
    Case("gated linear attention", "gla", 8, 2048, 16, {"K": 128, "V": 128}, BF16),
    Case("dense LSTM, one head", "lstm", 64, 1024, 1, {"D": 64}, torch.float32),
    Case("dense GRU, one head", "gru", 64, 1024, 1, {"D": 64}, torch.float32),
    Case("mLSTM", "mlstm", 8, 2048, 8, {"K": 64, "V": 128}, BF16),
    Case("odd sizes", "gated_delta_rule", 3, 1000, 5, {"K": 60, "V": 100}, BF16),
)


def tiny(case: Case) -> Case:
    """The same path through the code for Triton's interpreter, whose products of bfloat16 are wrong."""
    steps = 1 if case.time == 1 else 2
    lengths = dict.fromkeys(case.lengths, 5)
    return replace(case, batch=1, time=steps, heads=1, lengths=lengths, dtype=torch.float32)
