"""The same numbers in torch without a step by step loop: chunkwise matrix states, blocked scans.

In: operands as a kernel takes them (first states 0). Out: the output [B, T, H, V]. These are what a user reaches for
who finds the loop too slow; each is the fastest form that was found in plain torch on a CPU.

Decays within a chunk are ratios of exponentials about its middle: fast, but inexact or infinite where the decay over
half a chunk is less than exp(-80). Kernels have no such limit.

Source: Yang et al. 2024, arXiv:2312.06635, section 4 (chunks), arXiv:2406.06484, section 3 (delta rules).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

CHUNK = 64
BLOCK = 32


def _chunked(x: Tensor, chunk: int) -> Tensor:
    """[B, T, H, K] as [B H, chunks, chunk, K]; the last chunk is filled with zeros."""
    x = pad(x.transpose(1, 2).flatten(0, 1), (0, 0, 0, -x.shape[1] % chunk))
    return x.reshape(x.shape[0], -1, chunk, x.shape[-1])


def _whole(x: Tensor, like: Tensor) -> Tensor:
    """[B H, chunks, chunk, V] as [B, T, H, V]."""
    batch, time, heads = like.shape[:3]
    return x.flatten(1, 2)[:, :time].reshape(batch, heads, time, -1).transpose(1, 2)


def _decays(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of log-decays [.., chunk, K or 1]: their sums, from the middle and from the start, and the sum of the chunk."""
    total = g.cumsum(-2)
    return total - total[..., CHUNK // 2 : CHUNK // 2 + 1, :], total, total[..., -1:, :]


def _before(decay: Tensor | None, added: Tensor) -> Tensor:
    """The state before each chunk, from what each adds and keeps."""
    S, states = torch.zeros_like(added[:, 0]), []
    for n in range(added.shape[1]):
        states.append(S)
        S = added[:, n] + (S if decay is None else decay[:, n] * S)
    return torch.stack(states, 1)


def linear(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, read_before: bool = False) -> Tensor:
    """`S = exp(g) S + k v`, read by q after the write (`read_before`: before the decay). g: [B, T, H, K or 1]."""
    like = q
    q, k, v = _chunked(q, CHUNK), _chunked(k, CHUNK), _chunked(v, CHUNK)
    if g is None:
        inside = (q @ k.mT).tril() @ v
        return _whole(inside + q @ _before(None, k.mT @ v), like)
    g = _chunked(g, CHUNK)
    middle, total, last = _decays(g)
    rows, start = (middle - g, total - g) if read_before else (middle, total)
    inside = ((q * rows.exp()) @ (k * (-middle).exp()).mT).tril(-1 if read_before else 0) @ v
    states = _before(last.mT.exp(), (k * (last - total).exp()).mT @ v)
    return _whole(inside + (q * start.exp()) @ states, like)


def delta(q: Tensor, reads: Tensor, writes: Tensor, v: Tensor, g: Tensor | None) -> Tensor:
    """`S = exp(g) S`, then `S = S + writes (v - reads S)`, read by q. The corrections of a chunk are one solve."""
    like = q
    q, r, w, v = (_chunked(x, CHUNK) for x in (q, reads, writes, v))
    middle, total, last = _decays(_chunked(q.new_zeros(*like.shape[:3], 1) if g is None else g, CHUNK))
    w_inside, r_inside, q_inside = w * (-middle).exp(), r * middle.exp(), q * middle.exp()
    mixing = (r_inside @ w_inside.mT).tril(-1)
    both = torch.cat([v, r * total.exp()], -1)
    solved = torch.linalg.solve_triangular(
        mixing + torch.eye(CHUNK, dtype=q.dtype), both, upper=False, unitriangular=True
    )
    values, corrections = solved.split([v.shape[-1], r.shape[-1]], -1)
    inside, from_start = (q_inside @ w_inside.mT).tril(), q * total.exp()
    kept, w_last = last.mT.exp(), (w * (last - total).exp()).mT
    S, outputs = q.new_zeros(q.shape[0], r.shape[-1], v.shape[-1]), []
    for n in range(q.shape[1]):
        new = torch.baddbmm(values[:, n], corrections[:, n], S, alpha=-1)
        outputs.append(torch.baddbmm(from_start[:, n] @ S, inside[:, n], new))
        S = torch.baddbmm(kept[:, n] * S, w_last[:, n], new)
    return _whole(torch.stack(outputs, 1), like)


def scan(keep: Tensor, write: Tensor) -> Tensor:
    """`h = keep * h + write` along axis 1 from 0: all blocks side by side, then from block to block."""
    time = write.shape[1]
    fill = [0, 0] * (write.ndim - 2) + [0, -time % BLOCK]
    keep, write = pad(keep, fill).unflatten(1, (-1, BLOCK)), pad(write, fill).unflatten(1, (-1, BLOCK))
    a, x = keep.unbind(2), write.unbind(2)
    decays, sums = [a[0]], [x[0]]
    for n in range(1, BLOCK):
        decays.append(a[n] * decays[-1])
        sums.append(torch.addcmul(x[n], a[n], sums[-1]))
    h, carried = torch.zeros_like(x[0][:, 0]), []
    for d, s in zip(decays[-1].unbind(1), sums[-1].unbind(1), strict=True):
        carried.append(h)
        h = torch.addcmul(s, d, h)
    blocks = torch.addcmul(torch.stack(sums, 2), torch.stack(decays, 2), torch.stack(carried, 1).unsqueeze(2))
    return blocks.flatten(1, 2)[:, :time]


def associative(keep: Tensor, write: Tensor) -> Tensor:
    """The same with torch's own scan, in eager mode."""
    from torch._higher_order_ops.associative_scan import associative_scan  # not in torch's documentation yet

    def join(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
        return [right[0] * left[0], right[0] * left[1] + right[1]]

    return associative_scan(join, [keep, write], dim=1, combine_mode="generic")[1]


# -- recurrences of the zoo in these forms -------------------------------------------------------------------


def _scaled(q: Tensor) -> Tensor:
    return q / math.sqrt(q.shape[-1])


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return linear(_scaled(q), k, v, None)


def retention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    return linear(_scaled(q), k, v, log_decay.expand(q.shape[:3])[..., None])


def simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    return linear(_scaled(q), k, v, g[..., None])


def mlstm_sigmoid(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    return linear(_scaled(q), i.sigmoid()[..., None] * k, v, logsigmoid(f)[..., None])


def gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    return linear(_scaled(q), k, v, g)


def rwkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    return linear(r, k, v, w, read_before=True) + (r * u * k).sum(-1, keepdim=True) * v


def mlstm(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, eps: float = 1e-6) -> Tensor:
    """The stabiliser is a running maximum; given it, values and normaliser are one linear recurrence."""
    log_f = logsigmoid(f)
    total = log_f.cumsum(1)
    m = total + torch.clamp((i - total).cummax(1).values, min=0)
    g = log_f + pad(m, (0, 0, 1, 0))[:, :-1] - m
    out = linear(_scaled(q), (i - m).exp()[..., None] * k, pad(v, (0, 1), value=1.0), g[..., None])
    return out[..., :-1] / (torch.maximum(out[..., -1:].abs(), (-m).exp()[..., None]) + eps)


def based(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-6) -> Tensor:
    """All pairs of steps: at these lengths faster than chunks."""
    q, k, v = (x.transpose(1, 2) for x in (_scaled(q), k, v))
    s = q @ k.mT
    weights = (1 + s + 0.5 * s * s).tril()
    return ((weights @ v) / (weights.sum(-1, keepdim=True) + eps)).transpose(1, 2)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    return delta(_scaled(q), k, beta[..., None] * k, v, None)


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    return delta(_scaled(q), k, beta[..., None] * k, v, g[..., None])


def kda(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    return delta(_scaled(q), k, beta[..., None] * k, v, g)


def gdn2(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, w: Tensor) -> Tensor:
    return delta(_scaled(q), b * k, k, w * v, g)


def comba(q: Tensor, k: Tensor, v: Tensor, p: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    return delta(_scaled(q), (-g).exp()[..., None] * p, beta[..., None] * k, v, g[..., None])


def _micro(*steps: Tensor) -> Tensor:
    """Tensors [B, T, H, K] of the micro-steps of a step as one [B, n T, H, K]."""
    return torch.stack(steps, 2).flatten(1, 2)


def gated_delta_product(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    n = k.shape[3]
    none, zero = torch.zeros_like(g)[..., None], torch.zeros_like(q)
    out = delta(
        _micro(*[zero] * (n - 1), _scaled(q)),
        _micro(*k.unbind(3)),
        _micro(*(beta[..., None] * k).unbind(3)),
        _micro(*v.unbind(3)),
        _micro(g[..., None], *[none] * (n - 1)),
    )
    return out[:, n - 1 :: n]


def _plus_low_rank(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor | None) -> Tensor:
    """`S = exp(g) S + b (a S) + k v`, as two micro-steps."""
    zero = torch.zeros_like(q)
    reads = a if g is None else (-g).exp() * a
    decay = None if g is None else _micro(g, zero)
    out = delta(_micro(zero, q), _micro(reads, zero), _micro(-b, k), _micro(torch.zeros_like(v), v), decay)
    return out[:, 1::2]


def iplr(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _plus_low_rank(_scaled(q), k, v, a, b, None)


def dplr(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    return _plus_low_rank(_scaled(q), k, v, a, b, g)


def rwkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _plus_low_rank(r, k, v, a, b, w)


def _min_lstm(x: Tensor, i: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    ratio = logsigmoid(f) - logsigmoid(i)
    return ratio.sigmoid(), (-ratio).sigmoid() * x


# What an elementwise recurrence keeps and writes.
AFFINE: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "hgrn": lambda x, g: (g.exp(), x),
    "min_gru": lambda x, z: ((-z).sigmoid(), z.sigmoid() * x),
    "min_lstm": _min_lstm,
}


def rwkv4(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    shift = torch.arange(1, k.shape[1] + 1, dtype=k.dtype)[None, :, None, None] * w
    m = (k - shift).cummax(1).values + shift
    before = pad(m, (0, 0, 0, 0, 1, 0), value=-torch.inf)[:, :-1]
    keep, write = (before + w - m).exp(), (k - m).exp()
    both = scan(torch.cat([keep, keep], -1), torch.cat([write * v, write], -1))
    a, b = pad(both, (0, 0, 0, 0, 1, 0))[:, :-1].chunk(2, -1)
    p = torch.maximum(before, u + k)
    old, new = (before - p).exp(), (u + k - p).exp()
    return (old * a + new * v) / (old * b + new)


def selective_scan(x: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor) -> Tensor:
    h = scan((delta[..., None] * A).exp(), (delta * x)[..., None] * B[..., None, :])
    return (h @ C[..., None]).squeeze(-1)
