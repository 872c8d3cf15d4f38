"""Is the number of ones in a string of bits odd? sLSTM learns it, linear attention does not.

    python examples/state_tracking.py --short

Parity needs one bit of memory that every 1 flips. A cell whose state goes through its own nonlinearity
(`R @ h` and a tanh) can flip a bit. Linear attention only ever adds to its state, and a decay between 0 and 1
only fades it: neither can flip, at any width (Grazzi et al. 2024, arXiv:2411.12537; Merrill et al. 2024,
arXiv:2404.08819). All three models below are the same but for the cell, and all of them see, at every position
of every string, the parity so far. They train on strings of at most 40 bits and are asked about longer ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import rekern as rk
from rekern import zoo


class SLSTM(nn.Module):
    """zoo.slstm with its projections: [B, T, dim] to [B, T, dim]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        size = dim // heads
        self.kernel = rk.compile(zoo.slstm)
        self.project = nn.Linear(dim, 4 * dim)
        self.shape = (heads, 4, size)
        self.R = nn.Parameter(torch.randn(heads, 4, size, size) / size**0.5)
        self.b = nn.Parameter(torch.zeros(heads, 4, size))

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.kernel(x=self.project(x).unflatten(-1, self.shape), R=self.R, b=self.b)
        return h.flatten(-2)


class LinearAttention(nn.Module):
    """zoo.linear_attention with its projections."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.kernel = rk.compile(zoo.linear_attention)
        self.project = nn.Linear(dim, 3 * dim)
        self.shape = (3, heads, dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, self.shape).unbind(2)
        out, _ = self.kernel(q=F.silu(q), k=F.silu(k), v=v)
        return out.flatten(-2)


class GatedLinearAttention(nn.Module):
    """zoo.simple_gla, which is Mamba-2's recurrence: one learned decay a head and token."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.kernel = rk.compile(zoo.simple_gla)
        self.project = nn.Linear(dim, 3 * dim)
        self.decay = nn.Linear(dim, heads)
        self.shape = (3, heads, dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, self.shape).unbind(2)
        out, _ = self.kernel(q=F.silu(q), k=F.silu(k), v=v, g=F.logsigmoid(self.decay(x)))
        return out.flatten(-2)


class Block(nn.Module):
    """Norm, cell, output projection and a small MLP, each added to the stream."""

    def __init__(self, cell: type[nn.Module], dim: int, heads: int) -> None:
        super().__init__()
        self.cell = nn.Sequential(nn.RMSNorm(dim), cell(dim, heads), nn.RMSNorm(dim), nn.Linear(dim, dim))
        self.mlp = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.cell(x)
        return x + self.mlp(x)
