"""Python loops over dense and elementwise cells, as someone who knows torch writes them today.

In: operands as a kernel takes them (first states as declared). Out: the output [B, T, H, D]. What does not need the
state is computed for all steps before the loop, gates are one matrix product, results are collected and stacked.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def _steps(x: Tensor) -> tuple[Tensor, ...]:
    """[B, T, H, ..., D] as T tensors [H, B, all gates]: the layout of a product for each head."""
    return x.flatten(3).permute(1, 2, 0, 3).contiguous().unbind(0)


def _columns(R: Tensor) -> Tensor:
    """[H, ..., D, D] as [H, D, all gates]."""
    return R.flatten(1, -2).mT


def _per_head(p: Tensor) -> Tensor:
    """[H, D] beside [H, B, D]."""
    return p[:, None]


def _stacked(outputs: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(outputs)).permute(2, 0, 1, 3)


def _zeros(x: Tensor) -> Tensor:
    return x.new_zeros(x.shape[2], x.shape[0], x.shape[-1])


def elman(x: Tensor, R: Tensor, b: Tensor) -> Tensor:
    h, W, outputs = _zeros(x), _columns(R), []
    for x_t in _steps(x + b):
        h = torch.baddbmm(x_t, h, W).tanh()
        outputs.append(h)
    return _stacked(outputs)


def lstm(x: Tensor, R: Tensor, b: Tensor) -> Tensor:
    h, c, W, outputs = _zeros(x), _zeros(x), _columns(R), []
    for x_t in _steps(x + b):
        i, f, z, o = torch.baddbmm(x_t, h, W).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * z.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return _stacked(outputs)


def gru(x: Tensor, R: Tensor, b: Tensor, b_n: Tensor) -> Tensor:
    h, W, outputs = _zeros(x), _columns(R), []
    bias = torch.cat([b_n.new_zeros(b_n.shape[0], 2 * b_n.shape[1]), b_n], -1)[:, None]
    for x_t in _steps(x + b):
        r_x, z_x, n_x = x_t.chunk(3, -1)
        r_h, z_h, n_h = torch.baddbmm(bias, h, W).chunk(3, -1)
        r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
        n = (n_x + r * n_h).tanh()
        h = torch.lerp(n, h, z)
        outputs.append(h)
    return _stacked(outputs)


def slstm(x: Tensor, R: Tensor, b: Tensor) -> Tensor:
    h, c, n, W, outputs = _zeros(x), _zeros(x), _zeros(x), _columns(R), []
    m = torch.full_like(h, -torch.inf)
    for x_t in _steps(x + b):
        i, f, z, o = torch.baddbmm(x_t, h, W).chunk(4, -1)
        kept = logsigmoid(f) + m
        m = torch.maximum(kept, i)
        keep, write = (kept - m).exp(), (i - m).exp()
        c = keep * c + write * z.tanh()
        n = keep * n + write
        h = o.sigmoid() * c / n
        outputs.append(h)
    return _stacked(outputs)


def lstm_peephole(x: Tensor, R: Tensor, b: Tensor, p: Tensor) -> Tensor:
    h, c, W, outputs = _zeros(x), _zeros(x), _columns(R), []
    p_i, p_f, p_o = (_per_head(w) for w in p.unbind(1))
    for x_t in _steps(x + b):
        i, f, z, o = torch.baddbmm(x_t, h, W).chunk(4, -1)
        c = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * z.tanh()
        h = (o + p_o * c).sigmoid() * c.tanh()
        outputs.append(h)
    return _stacked(outputs)


def layer_norm_lstm(
    x: Tensor, R: Tensor, b: Tensor, gain: Tensor, c_gain: Tensor, c_bias: Tensor, eps: float = 1e-5
) -> Tensor:
    h, c, W, outputs = _zeros(x), _zeros(x), _columns(R), []
    gain, c_gain, c_bias = _per_head(gain.flatten(1)), _per_head(c_gain), _per_head(c_bias)
    for x_t in _steps(x + b):
        y = torch.bmm(h, W)
        normal = torch.nn.functional.layer_norm(y, y.shape[-1:], eps=eps)
        i, f, z, o = torch.addcmul(x_t, gain, normal).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * z.tanh()
        normal = torch.nn.functional.layer_norm(c, c.shape[-1:], eps=eps)
        h = o.sigmoid() * torch.addcmul(c_bias, c_gain, normal).tanh()
        outputs.append(h)
    return _stacked(outputs)


# -- elementwise: tensors stay [B, H, D] ---------------------------------------------------------------------


def indrnn(x: Tensor, u: Tensor, b: Tensor) -> Tensor:
    h, outputs = torch.zeros_like(x[:, 0]), []
    for x_t in (x + b).unbind(1):
        h = torch.addcmul(x_t, u, h).relu()
        outputs.append(h)
    return torch.stack(outputs, 1)


def _affine(keep: Tensor, write: Tensor) -> Tensor:
    """`h = keep * h + write` from 0."""
    h, outputs = torch.zeros_like(write[:, 0]), []
    for a, x in zip(keep.unbind(1), write.unbind(1), strict=True):
        h = torch.addcmul(x, a, h)
        outputs.append(h)
    return torch.stack(outputs, 1)


def min_gru(x: Tensor, z: Tensor) -> Tensor:
    return _affine((-z).sigmoid(), z.sigmoid() * x)


def min_lstm(x: Tensor, i: Tensor, f: Tensor) -> Tensor:
    ratio = logsigmoid(f) - logsigmoid(i)
    return _affine(ratio.sigmoid(), (-ratio).sigmoid() * x)


def hgrn(x: Tensor, g: Tensor) -> Tensor:
    return _affine(g.exp(), x)


def sru(x: Tensor, skip: Tensor, v: Tensor, b: Tensor) -> Tensor:
    c, outputs = torch.zeros_like(skip[:, 0]), []
    candidates, f_x, r_x = x[:, :, :, 0], x[:, :, :, 1] + b[:, 0], x[:, :, :, 2] + b[:, 1]
    v_f, v_r = v.unbind(1)
    each = (t.unbind(1) for t in (candidates, f_x, r_x, skip))
    for z, f_t, r_t, s in zip(*each, strict=True):
        f, r = torch.addcmul(f_t, v_f, c).sigmoid(), torch.addcmul(r_t, v_r, c).sigmoid()
        c = torch.lerp(z, c, f)
        outputs.append(torch.lerp(s, c, r))
    return torch.stack(outputs, 1)


def rwkv4(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    a = n = torch.zeros_like(v[:, 0])
    m, outputs = torch.full_like(a, -torch.inf), []
    for k_t, v_t, now in zip(k.unbind(1), v.unbind(1), (k + u).unbind(1), strict=True):
        p = torch.maximum(m, now)
        old, new = (m - p).exp(), (now - p).exp()
        outputs.append((old * a + new * v_t) / (old * n + new))
        kept = m + w
        m = torch.maximum(kept, k_t)
        keep, write = (kept - m).exp(), (k_t - m).exp()
        a, n = keep * a + write * v_t, keep * n + write
    return torch.stack(outputs, 1)
