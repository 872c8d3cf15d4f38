"""A character language model with a cell of its own, trained on the text of Python's standard library.

    python examples/char_lm.py --short

The cell is in no library: a memory that writes as much as it is surprised. It is nonlinear in its state, so
the parallel forms of linear attention do not apply, and without a kernel it would be a Python loop over time.
The example compiles it, trains two layers of it, compares the model with the same one on a Python loop
(outputs, gradients, speed), and writes some text one character at a time with `kernel.step`.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads sleep: spinning ones slow a busy machine

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

import rekern as rk
from rekern import Input, Param, State
from rekern.math import abs, outer, sigmoid

Tensors = dict[str, Tensor]  # operands or states by name, as kernels take and return them
Cell = Callable[..., tuple[Tensor, Tensors]]  # a kernel, its step, or the Python loop


@dataclass(frozen=True)
class Settings:
    """Sizes of a run; the defaults are those of the long one."""

    steps: int = 3000
    batch: int = 16
    length: int = 128
    dim: int = 128
    heads: int = 4
    layers: int = 2
    learning_rate: float = 5e-3


# -- the cell ------------------------------------------------------------------------------------------------


@rk.recurrence
def surprise_memory(
    S=State("K", "V"), q=Input("K"), k=Input("K", unit_norm=True), v=Input("V"), forget=Input(),
    gain=Param("V"), bias=Param("V"),
):
    """A delta rule whose write strength depends on how wrong the memory was about the value."""
    error = v - k @ S
    surprise = sigmoid(gain * abs(error) + bias)
    S = sigmoid(forget) * S + outer(k, surprise * error)
    return S, q @ S


def python_loop(
    *, q: Tensor, k: Tensor, v: Tensor, forget: Tensor, gain: Tensor, bias: Tensor, state: None = None
) -> tuple[Tensor, Tensors]:
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


# -- the model -----------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """Norm, projections, the cell, output gate and projection; added to what came in.

    Works on [B, T, dim] with a kernel and on [B, dim] with its step: the cell is handed in.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        size = dim // heads
        self.norm = nn.RMSNorm(dim)
        self.project = nn.Linear(dim, 3 * dim)
        self.forget = nn.Linear(dim, heads)
        self.gain = nn.Parameter(torch.ones(heads, size))
        self.bias = nn.Parameter(torch.zeros(heads, size))
        self.gate = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.qkv = (3, heads, size)
        nn.init.constant_(self.forget.bias, 4.0)  # at first, remember for some 50 characters

    def operands(self, y: Tensor) -> Tensors:
        """What the cell reads, by the names that its spec gives them."""
        q, k, v = self.project(y).unflatten(-1, self.qkv).unbind(-3)
        k = F.normalize(F.silu(k), dim=-1)
        return {"q": q, "k": k, "v": v, "forget": self.forget(y), "gain": self.gain, "bias": self.bias}

    def forward(self, x: Tensor, cell: Cell, state: Tensors | None) -> tuple[Tensor, Tensors]:
        y = self.norm(x)
        read, state = cell(**self.operands(y), state=state)
        return x + self.out(read.flatten(-2) * F.silu(self.gate(y))), state


class CharLM(nn.Module):
    """Characters [B, T] (or [B], one step) to logits over the next one, and the states of the layers."""

    def __init__(self, characters: int, dim: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, dim)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.head = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, characters))

    def forward(
        self, text: Tensor, cell: Cell, states: list[Tensors] | None = None
    ) -> tuple[Tensor, list[Tensors]]:
        x = self.embedding(text)
        new = []
        for n, layer in enumerate(self.layers):
            x, state = layer(x, cell, states[n] if states else None)
            new.append(state)
        return self.head(x), new


# -- text ----------------------------------------------------------------------------------------------------


def standard_library() -> tuple[Tensor, str]:
    """Python's own modules as one long row of character numbers, and the characters by number."""
    modules = sorted(Path(os.__file__).parent.glob("*.py"))
    text = "".join(path.read_text(encoding="utf-8", errors="ignore") for path in modules)
    codes = torch.frombuffer(bytearray(text.encode("ascii", errors="ignore")), dtype=torch.uint8)
    characters, numbers = codes.unique(return_inverse=True)
    return numbers, bytes(characters.tolist()).decode()


def windows(text: Tensor, s: Settings, generator: torch.Generator) -> Tensor:
    """Pieces [batch, length + 1] from random places."""
    starts = torch.randint(len(text) - s.length, (s.batch, 1), generator=generator)
    return text[starts + torch.arange(s.length + 1)]


def loss_of(model: CharLM, pieces: Tensor, cell: Cell) -> tuple[Tensor, Tensor]:
    """Mean loss in nats a character, and the logits."""
    logits, _ = model(pieces[:, :-1], cell)
    return F.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten()), logits


# -- training, comparison, sampling --------------------------------------------------------------------------


def train(model: CharLM, text: Tensor, cell: Cell, s: Settings) -> list[float]:
    """The loss of every step, in nats a character."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, s.learning_rate, total_steps=s.steps)
    losses: list[float] = []
    started = time.perf_counter()
    with Progress(*Progress.get_default_columns(), "{task.fields[now]}") as progress:
        bar = progress.add_task("training", total=s.steps, now="")
        for step in range(1, s.steps + 1):
            loss, _ = loss_of(model, windows(text, s, generator), cell)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            speed = step * s.batch * s.length / (time.perf_counter() - started)
            now = f"loss {mean(losses[-20:]):.3f}  {speed:7,.0f} tokens/s"
            progress.update(bar, advance=1, now=now)
            if step % -(-s.steps // 10) == 0:
                print(f"step {step:4}  {now}")
    return losses


@torch.no_grad()
def loss_on(model: CharLM, text: Tensor, cell: Cell, s: Settings, batches: int = 20) -> float:
    """Mean loss on random pieces of `text`."""
    generator = torch.Generator().manual_seed(0)
    return mean(loss_of(model, windows(text, s, generator), cell)[0].item() for _ in range(batches))


def compare(model: CharLM, text: Tensor, kernel: rk.Kernel, s: Settings, rounds: int = 4) -> None:
    """Kernel against Python loop, forward and gradient: how far apart, and how fast (best of a few)."""
    pieces = windows(text, s, torch.Generator().manual_seed(1))
    layer = model.layers[0]
    operands = layer.operands(layer.norm(model.embedding(pieces[:, :-1])))
    operands = {name: value.detach().requires_grad_() for name, value in operands.items()}

    def whole_model(cell: Cell) -> list[Tensor]:
        model.zero_grad()
        loss, logits = loss_of(model, pieces, cell)
        loss.backward()
        return [logits.detach(), *(p.grad for p in model.parameters())]

    def cell_alone(cell: Cell) -> None:
        cell(**operands)[0].sum().backward()

    ours, theirs = whole_model(kernel), whole_model(python_loop)
    apart = [float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs)]
    assert max(apart) < 1e-3, f"the kernel and the Python loop disagree: {apart}"
    print(f"kernel and Python loop differ by {apart[0]:.0e} in logits, {max(apart[1:]):.0e} in gradients")
    for work in (whole_model, cell_alone):
        seconds = {kernel: math.inf, python_loop: math.inf}
        for cell in (kernel, python_loop) * rounds:  # in turn, so that a busy moment hits both
            started = time.perf_counter()
            work(cell)
            seconds[cell] = min(seconds[cell], time.perf_counter() - started)
        fast, slow = (s.batch * s.length / seconds[cell] for cell in (kernel, python_loop))
        name = work.__name__.replace("_", " ")
        print(f"{name}: {fast:,.0f} tokens/s, Python loop {slow:,.0f}: {fast / slow:.1f} times as fast")


@torch.no_grad()
def write(model: CharLM, characters: str, kernel: rk.Kernel, prompt: str, count: int = 300) -> str:
    """`prompt`, read in one call, and what the model goes on with, one step a character."""
    generator = torch.Generator().manual_seed(0)
    logits, states = model(torch.tensor([[characters.index(c) for c in prompt]]), kernel)
    logits = logits[:, -1]
    for _ in range(count):
        chosen = torch.multinomial(F.softmax(logits / 0.6, dim=-1), 1, generator=generator)[:, 0]
        prompt += characters[int(chosen)]
        logits, states = model(chosen, kernel.step, states)
    return prompt


def run(s: Settings) -> list[float]:
    """The whole example; returns the loss of every training step."""
    torch.manual_seed(0)
    numbers, characters = standard_library()
    split = len(numbers) * 19 // 20
    text, held_out = numbers[:split], numbers[split:]
    model = CharLM(len(characters), s.dim, s.heads, s.layers)
    print(surprise_memory)
    print(f"\n{sum(p.numel() for p in model.parameters()):,} parameters", end=", ")
    print(f"{len(text):,} characters of {len(characters)} kinds")

    kernel = rk.compile(surprise_memory)
    started = time.perf_counter()
    loss_of(model, windows(text, s, torch.Generator().manual_seed(1)), kernel)[0].backward()
    print(f"first call, compilation included: {time.perf_counter() - started:.1f} s (built kernels are kept)")

    losses = train(model, text, kernel, s)
    unseen = loss_on(model, held_out, kernel, s)
    print(f"loss {losses[0]:.3f} at first, {mean(losses[-20:]):.3f} at last, {unseen:.3f} on unseen modules")
    compare(model, text, kernel, s)
    print(f"\nA sample:\n{write(model, characters, kernel, 'def ')}")
    return losses


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Trains a character language model with a cell of its own.")
    parser.add_argument("--short", action="store_true", help="about a minute on two slow cores")
    parser.add_argument("--steps", type=int, help="training steps (default 3000, short 300)")
    parser.add_argument("--threads", type=int, help="of torch and of the kernels (default: torch's)")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    run(Settings(steps=given.steps or (300 if given.short else 3000)))


if __name__ == "__main__":
    main()
