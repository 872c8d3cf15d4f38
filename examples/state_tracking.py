"""Is the number of ones in a string of bits odd? sLSTM learns it, linear attention does not.

    python examples/state_tracking.py --short

Parity needs one bit of memory, which every 1 flips. The state of an sLSTM comes back through a weight and a
nonlinearity, so it can be flipped. Linear attention adds to its state, and a decay between 0 and 1 fades it:
with such steps no network of finite precision follows the parity of ever longer strings (Grazzi et al. 2024,
arXiv:2411.12537). The three models here are the same but for the cell. After every bit of a string they are
told the parity so far; they train on strings of at most 40 bits and are then asked about longer ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich import print
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import rekern as rk
from rekern import zoo

LONGEST_TRAINED = 40
LENGTHS = (10, 20, 40, 80, 160, 320)


@dataclass(frozen=True)
class Settings:
    """Sizes of a run; the defaults are those of the long one."""

    steps: int = 2000
    batch: int = 64
    dim: int = 32
    heads: int = 1
    layers: int = 2
    learning_rate: float = 3e-3
    tested_strings: int = 1024


# -- the cells, with the projections around them -------------------------------------------------------------


class SLSTM(nn.Module):
    """[B, T, dim] to [B, T, dim] through zoo.slstm, which has a recurrent weight for each gate."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        size = dim // heads
        self.kernel = rk.compile(zoo.slstm)
        self.project = nn.Linear(dim, 4 * dim)
        self.gates = (heads, 4, size)
        self.R = nn.Parameter(torch.randn(heads, 4, size, size) / size**0.5)
        self.b = nn.Parameter(torch.zeros(heads, 4, size))

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.kernel(x=self.project(x).unflatten(-1, self.gates), R=self.R, b=self.b)
        return h.flatten(-2)


class LinearAttention(nn.Module):
    """zoo.linear_attention: the state is a sum of outer products of keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.kernel = rk.compile(zoo.linear_attention)
        self.project = nn.Linear(dim, 3 * dim)
        self.qkv = (3, heads, dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, self.qkv).unbind(2)
        out, _ = self.kernel(q=F.silu(q), k=F.silu(k), v=v)
        return out.flatten(-2)


class GatedLinearAttention(nn.Module):
    """zoo.simple_gla, the recurrence of Mamba-2: the same sum, faded by a learned decay at every token."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.kernel = rk.compile(zoo.simple_gla)
        self.project = nn.Linear(dim, 3 * dim)
        self.decay = nn.Linear(dim, heads)
        self.qkv = (3, heads, dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, self.qkv).unbind(2)
        out, _ = self.kernel(q=F.silu(q), k=F.silu(k), v=v, g=F.logsigmoid(self.decay(x)))
        return out.flatten(-2)


CELLS: dict[str, type[nn.Module]] = {
    "slstm": SLSTM,
    "linear_attention": LinearAttention,
    "simple_gla": GatedLinearAttention,
}


class Block(nn.Module):
    """The cell, then a small MLP, each behind a norm and added to what came in."""

    def __init__(self, cell: type[nn.Module], dim: int, heads: int) -> None:
        super().__init__()
        self.cell = nn.Sequential(nn.RMSNorm(dim), cell(dim, heads), nn.RMSNorm(dim), nn.Linear(dim, dim))
        self.mlp = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.cell(x)
        return x + self.mlp(x)


def parity_model(cell: type[nn.Module], s: Settings) -> nn.Module:
    """Bits [B, T] to logits [B, T, 2]."""
    blocks = [Block(cell, s.dim, s.heads) for _ in range(s.layers)]
    return nn.Sequential(nn.Embedding(2, s.dim), *blocks, nn.RMSNorm(s.dim), nn.Linear(s.dim, 2))


# -- task, training, test ------------------------------------------------------------------------------------


def strings(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random bits [count, length], and after every bit whether the number of ones so far is odd."""
    bits = torch.randint(0, 2, (count, length), generator=generator)
    return bits, bits.cumsum(1) % 2


def train(name: str, s: Settings, progress: Progress) -> nn.Module:
    """A model with the cell `name`, trained on strings of 2 to 40 bits."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)  # all models see the same strings
    model = parity_model(CELLS[name], s)
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, s.learning_rate, total_steps=s.steps)
    bar = progress.add_task(name, total=s.steps, loss=float("nan"))
    for _ in range(s.steps):
        length = int(torch.randint(2, LONGEST_TRAINED + 1, (), generator=generator))
        bits, parity = strings(s.batch, length, generator)
        loss = F.cross_entropy(model(bits).flatten(0, 1), parity.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.update(bar, advance=1, loss=loss.item())
    return model


@torch.no_grad()
def accuracy(model: nn.Module, length: int, s: Settings) -> float:
    """Share of strings of `length` bits whose parity the model gives correctly after the last bit."""
    bits, parity = strings(s.tested_strings, length, torch.Generator().manual_seed(length))
    return (model(bits)[:, -1].argmax(-1) == parity[:, -1]).float().mean().item()


def run(s: Settings) -> dict[str, list[float]]:
    """Train and test every cell; print the table; accuracies by cell, in the order of LENGTHS."""
    columns = (*Progress.get_default_columns(), "loss {task.fields[loss]:.4f}")
    with Progress(*columns) as progress:
        models = {name: train(name, s, progress) for name in CELLS}
    found = {name: [accuracy(model, n, s) for n in LENGTHS] for name, model in models.items()}
    table = Table(
        title=f"Parity, correct answers after {s.steps} training steps on 2 to {LONGEST_TRAINED} bits",
        caption="The strings right of 40 are longer than any in training. Guessing gives 50 %.",
    )
    table.add_column("bits")
    for n in LENGTHS:
        table.add_column(str(n), justify="right")
    for name, row in found.items():
        table.add_row(name, *(f"{100 * share:.1f} %" for share in row))
    print(table)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Parity: what sLSTM learns and linear attention does not.")
    parser.add_argument("--short", action="store_true", help="a minute or two on two cores")
    parser.add_argument("--steps", type=int, help="training steps of each model (default 2000, short 300)")
    parser.add_argument("--threads", type=int, default=1, help="the tensors are small: more rarely help")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    run(Settings(steps=given.steps or (300 if given.short else 2000)))


if __name__ == "__main__":
    main()
