"""A character language model with a cell of its own, trained on the text of Python's standard library.

    python examples/char_lm.py --short

The cell is in no library: a memory that writes as much as it is surprised. It is nonlinear in its state, so the
parallel forms of linear attention do not apply, and without a kernel it would be a Python loop over time. The
example compiles it, trains two layers of it, compares the model with the same one on a Python loop (outputs,
gradients, speed), and writes some text one character at a time with `kernel.step`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

import rekern as rk
from rekern import Input, Param, State
from rekern.math import abs, outer, sigmoid

# -- the cell --------------------------------------------------------------------------------------------------


@rk.recurrence
def surprise_memory(
    S=State("K", "V"), q=Input("K"), k=Input("K", unit_norm=True), v=Input("V"), forget=Input(),
    gain=Param("V"), bias=Param("V"),
):  # fmt: skip
    """A delta rule whose write strength depends on how wrong the memory was about the value."""
    error = v - k @ S
    surprise = sigmoid(gain * abs(error) + bias)
    S = sigmoid(forget) * S + outer(k, surprise * error)
    return S, q @ S


def python_loop(
    *, q: Tensor, k: Tensor, v: Tensor, forget: Tensor, gain: Tensor, bias: Tensor, state: object = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same cell as one would write it in torch, to compare with; it starts from an empty memory."""
    batch, steps, heads, size = v.shape
    S = q.new_zeros(batch, heads, k.shape[-1], size)
    outputs = []
    for t in range(steps):
        error = v[:, t] - (k[:, t, :, None] @ S).squeeze(2)
        surprise = torch.sigmoid(gain * error.abs() + bias)
        keep = torch.sigmoid(forget[:, t])[:, :, None, None]
        S = keep * S + k[:, t, :, :, None] * (surprise * error)[:, :, None, :]
        outputs.append((q[:, t, :, None] @ S).squeeze(2))
    return torch.stack(outputs, 1), {"S": S}


# -- the model -------------------------------------------------------------------------------------------------

States = list[dict[str, Tensor]]
Cell = Callable[..., tuple[Tensor, dict[str, Tensor]]]  # a kernel, its step, or the loop above


class Layer(nn.Module):
    """Norm, projections, the cell, output projection; added to what came in.

    Works on [B, T, dim] with a kernel and on [B, dim] with its step: the cell is handed in.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        size = dim // heads
        self.norm = nn.RMSNorm(dim)
        self.project = nn.Linear(dim, 4 * dim)
        self.forget = nn.Linear(dim, heads)
        self.gain = nn.Parameter(torch.ones(heads, size))
        self.bias = nn.Parameter(torch.zeros(heads, size))
        self.out = nn.Linear(dim, dim)
        self.heads = (4, heads, size)
        nn.init.constant_(self.forget.bias, 4.0)  # remember for some 50 characters to begin with

    def forward(self, x: Tensor, cell: Cell, state: dict[str, Tensor] | None) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.norm(x)
        q, k, v, gate = self.project(y).unflatten(-1, self.heads).unbind(-3)
        k = F.normalize(F.silu(k), dim=-1)
        read, state = cell(
            q=q, k=k, v=v, forget=self.forget(y), gain=self.gain, bias=self.bias, state=state
        )
        return x + self.out((read * F.silu(gate)).flatten(-2)), state


class CharLM(nn.Module):
    """Characters [B, T] (or [B], one step) to logits over the next one, and the states of the layers."""

    def __init__(self, characters: int, dim: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, dim)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.head = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, characters))

    def forward(self, text: Tensor, cell: Cell, states: States | None = None) -> tuple[Tensor, States]:
        x = self.embedding(text)
        new = []
        for n, layer in enumerate(self.layers):
            x, state = layer(x, cell, states[n] if states else None)
            new.append(state)
        return self.head(x), new
