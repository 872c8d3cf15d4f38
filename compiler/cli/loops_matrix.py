"""Python loops over recurrences with a matrix state, as someone who knows torch writes them today.

In: operands as a kernel takes them (first states 0). Out: the output [B, T, H, V]. Batch and heads are one axis n;
`exp` of a decay and the scale of the query are taken for all steps before the loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class _Time:
    """The layout of a call: operands [B, T, H, ...] as steps of [n, ...], and back."""

    def __init__(self, like: Tensor) -> None:
        self.batch, self.time, self.heads = like.shape[:3]

    def rows(self, x: Tensor) -> Tensor:
        """As [T, n, 1, K]: rows."""
        return x.transpose(0, 1).flatten(1, 2).unsqueeze(-2)

    def columns(self, x: Tensor) -> Tensor:
        """As [T, n, K, 1]: columns."""
        return x.transpose(0, 1).flatten(1, 2).unsqueeze(-1)

    def numbers(self, x: Tensor) -> Tensor:
        """[B, T, H] as [T, n, 1, 1]."""
        return x.transpose(0, 1).flatten(1, 2)[..., None, None]

    def zeros(self, k: Tensor, v: Tensor) -> Tensor:
        """A state [n, K, V]."""
        return v.new_zeros(self.batch * self.heads, k.shape[-1], v.shape[-1])

    def stacked(self, outputs: Sequence[Tensor]) -> Tensor:
        """Steps of [n, 1, V] as [B, T, H, V]."""
        return torch.stack(list(outputs)).view(self.time, self.batch, self.heads, -1).transpose(0, 1)


def _zip(*steps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(s.unbind(0) for s in steps), strict=True)


def _scaled(q: Tensor) -> Tensor:
    return q / math.sqrt(q.shape[-1])


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    time, outputs = _Time(q), []
    S = time.zeros(k, v)
    for q_t, k_t, v_t in _zip(time.rows(_scaled(q)), time.columns(k), time.rows(v)):
        S = torch.addcmul(S, k_t, v_t)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def _decayed(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, time: _Time) -> Tensor:
    S, outputs = time.zeros(k, v), []
    for q_t, k_t, v_t, a in _zip(time.rows(q), time.columns(k), time.rows(v), keep):
        S = torch.addcmul(a * S, k_t, v_t)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def retention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    time = _Time(q)
    keep = log_decay.exp().expand(q.shape[:3])
    return _decayed(_scaled(q), k, v, time.numbers(keep), time)


def simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    time = _Time(q)
    return _decayed(_scaled(q), k, v, time.numbers(g.exp()), time)


def mlstm_sigmoid(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    time = _Time(q)
    return _decayed(_scaled(q), i.sigmoid()[..., None] * k, v, time.numbers(f.sigmoid()), time)


def gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    time = _Time(q)
    return _decayed(_scaled(q), k, v, time.columns(g.exp()), time)


def rwkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    time, outputs = _Time(r), []
    S = time.zeros(k, v)
    bonus = (r * u * k).sum(-1, keepdim=True) * v
    for r_t, k_t, v_t, a, now in _zip(
        time.rows(r), time.columns(k), time.rows(v), time.columns(w.exp()), time.rows(bonus)
    ):
        outputs.append(torch.baddbmm(now, r_t, S))
        S = torch.addcmul(a * S, k_t, v_t)
    return time.stacked(outputs)


def mlstm(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, eps: float = 1e-6) -> Tensor:
    time, outputs = _Time(q), []
    C, n = time.zeros(k, v), time.zeros(k, v[..., :1])
    m = C.new_zeros(C.shape[0], 1, 1)
    for q_t, k_t, v_t, i_t, f_t in _zip(
        time.rows(_scaled(q)), time.columns(k), time.rows(v), time.numbers(i), time.numbers(logsigmoid(f))
    ):
        kept = f_t + m
        m = torch.maximum(kept, i_t)
        keep, written = (kept - m).exp(), (i_t - m).exp() * k_t
        C = torch.addcmul(keep * C, written, v_t)
        n = torch.addcmul(written, keep, n)
        outputs.append((q_t @ C) / (torch.maximum((q_t @ n).abs(), (-m).exp()) + eps))
    return time.stacked(outputs)


def based(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-6) -> Tensor:
    """With the feature map [1, s, s s / 2 in all pairs] laid out: a matrix state, and a vector for the normaliser."""

    def features(x: Tensor) -> Tensor:
        pairs = (x[..., None] * x[..., None, :]).flatten(-2) * 0.5**0.5
        return torch.cat([torch.ones_like(x[..., :1]), x, pairs], -1)

    time, outputs = _Time(q), []
    q, k = features(_scaled(q)), features(k)
    S, z = time.zeros(k, v), time.zeros(k, v[..., :1])
    for q_t, k_t, v_t in _zip(time.rows(q), time.columns(k), time.rows(v)):
        S, z = torch.addcmul(S, k_t, v_t), z + k_t
        outputs.append((q_t @ S) / (q_t @ z + eps))
    return time.stacked(outputs)


# -- delta rules ---------------------------------------------------------------------------------------------


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    time, outputs = _Time(q), []
    S = time.zeros(k, v)
    for q_t, k_t, w_t, v_t in _zip(
        time.rows(_scaled(q)), time.rows(k), time.columns(beta[..., None] * k), time.rows(v)
    ):
        S = torch.addcmul(S, w_t, v_t - k_t @ S)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def _gated(q: Tensor, reads: Tensor, writes: Tensor, v: Tensor, keep: Tensor, time: _Time) -> Tensor:
    """Decay, then read with `reads`, then write with `writes`."""
    S, outputs = time.zeros(reads, v), []
    for q_t, r_t, w_t, v_t, a in _zip(
        time.rows(_scaled(q)), time.rows(reads), time.columns(writes), time.rows(v), keep
    ):
        S = a * S
        S = torch.addcmul(S, w_t, v_t - r_t @ S)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    time = _Time(q)
    return _gated(q, k, beta[..., None] * k, v, time.numbers(g.exp()), time)


def kda(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    time = _Time(q)
    return _gated(q, k, beta[..., None] * k, v, time.columns(g.exp()), time)


def gdn2(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, w: Tensor) -> Tensor:
    time = _Time(q)
    return _gated(q, b * k, k, w * v, time.columns(g.exp()), time)


def gated_delta_product(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    time, outputs = _Time(q), []
    S = time.zeros(k, v)
    micro = range(k.shape[3])
    reads, writes, values = time.rows(k), time.columns(beta[..., None] * k), time.rows(v)
    for q_t, r_t, w_t, v_t, a in _zip(time.rows(_scaled(q)), reads, writes, values, time.numbers(g.exp())):
        S = a * S
        for j in micro:
            S = torch.addcmul(S, w_t[:, j], v_t[:, j] - r_t[:, j] @ S)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def comba(q: Tensor, k: Tensor, v: Tensor, p: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    time, outputs = _Time(q), []
    S = time.zeros(k, v)
    for q_t, w_t, v_t, p_t, a in _zip(
        time.rows(_scaled(q)), time.columns(beta[..., None] * k), time.rows(v), time.rows(p), time.numbers(g.exp())
    ):
        S = torch.addcmul(a * S, w_t, v_t - p_t @ S)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def oja(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    time, outputs = _Time(q), []
    S = time.zeros(k, v)
    for q_t, k_t, v_t, w_t, a in _zip(
        time.rows(_scaled(q)), time.columns(k), time.columns(v), time.rows(beta[..., None] * v), time.rows(g.exp())
    ):
        S = S * a
        S = torch.addcmul(S, k_t - S @ v_t, w_t)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def _plus_low_rank(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor | None, time: _Time
) -> Tensor:
    """`S = exp(g) S + b (a S) + k v`, with the two writes as one product."""
    S, outputs = time.zeros(k, v), []
    writes = torch.cat([time.columns(b), time.columns(k)], -1)
    keep = time.columns(g.exp()) if g is not None else None
    each = _zip(time.rows(q), time.rows(a), writes, time.rows(v))
    for t, (q_t, a_t, w_t, v_t) in enumerate(each):
        written = torch.cat([a_t @ S, v_t], -2)
        S = torch.baddbmm(S if keep is None else keep[t] * S, w_t, written)
        outputs.append(q_t @ S)
    return time.stacked(outputs)


def iplr(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _plus_low_rank(_scaled(q), k, v, a, b, None, _Time(q))


def dplr(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    return _plus_low_rank(_scaled(q), k, v, a, b, g, _Time(q))


def rwkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _plus_low_rank(r, k, v, a, b, w, _Time(r))


def selective_scan(x: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor) -> Tensor:
    """The decays of a step are made within it: for all steps at once they are D * N numbers a token."""
    h, outputs = x.new_zeros(*x[:, 0].shape, B.shape[-1]), []
    each = (t.unbind(1) for t in (delta.unsqueeze(-1), (delta * x).unsqueeze(-1), B.unsqueeze(-2), C.unsqueeze(-1)))
    for d_t, x_t, b_t, c_t in zip(*each, strict=True):
        h = torch.addcmul((d_t * A).exp() * h, x_t, b_t)
        outputs.append((h @ c_t).squeeze(-1))
    return torch.stack(outputs, 1)
