"""Linear attention and its gated forms: a matrix state S[K, V] with no, a scalar or a diagonal decay.

In: nothing. Out: one `Recurrence` each. `g`, `w` and `log_decay` are natural-log decays, <= 0; `scale`
multiplies the query.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from rekern.math import abs, exp, log_sigmoid, maximum, outer, sigmoid
from rekern.spec import Input, Param, Scalar, State, recurrence

RSQRT_K = Scalar(default="K**-0.5")


@recurrence
def linear_attention(S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), scale=RSQRT_K):
    """Katharopoulos, Vyas, Pappas, Fleuret 2020, arXiv:2006.16236.

    Without the normaliser; feature maps of q and k are outside.
    """
    S = S + outer(k, v)
    return S, scale * (q @ S)


@recurrence
def retention(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), log_decay=Param(at_most=0), scale=RSQRT_K
):
    """Sun et al. 2023, arXiv:2307.08621; as lightning attention: Qin et al. 2024, arXiv:2401.04658.

    One constant decay a head, 0 is legal. RetNet: ln(1 - 2**(-5 - h)). Lightning-Attention-2 has scale 1.
    """
    S = exp(log_decay) * S + outer(k, v)
    return S, scale * (q @ S)


@recurrence
def simple_gla(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input(at_most=0), scale=RSQRT_K
):
    """Dao, Gu 2024, arXiv:2405.21060 (Mamba-2, SSD).

    From SSD: g = -exp(A_log) * dt, k = B, v = dt * x, q = C, scale 1; the skip `D * x` is outside.
    """
    S = exp(g) * S + outer(k, v)
    return S, scale * (q @ S)


@recurrence
def gla(S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input("K", at_most=0), scale=RSQRT_K):
    """Yang, Wang, Shen, Panda, Kim 2023, arXiv:2312.06635; as HGRN-2: Qin et al. 2024, arXiv:2404.07904.

    HGRN-2 has k = 1 - exp(g).
    """
    S = exp(g)[:, None] * S + outer(k, v)
    return S, scale * (q @ S)


@recurrence
def rwkv6(
    S=State("K", "V"), r=Input("K"), k=Input("K"), v=Input("V"), w=Input("K", at_most=0), u=Param("K"),
    scale=Scalar(default=1),
):
    """Peng et al. 2024, arXiv:2404.05892 (Finch).

    Read before the update, with the bonus u for the current token only. `w` is the log-decay; models store
    w_raw with w = -exp(w_raw).
    """
    y = scale * (r @ S + (r * u) @ k * v)
    S = exp(w)[:, None] * S + outer(k, v)
    return S, y


@recurrence
def mlstm(
    C=State("K", "V"), n=State("K"), m=State(), q=Input("K"), k=Input("K"), v=Input("V"), i=Input(),
    f=Input(), scale=RSQRT_K, eps=Scalar(default=1e-6),
):
    """Beck et al. 2024, arXiv:2405.04517; as kernels: Beck, Pöppel, Lippe, Hochreiter 2025, arXiv:2503.14376.

    m starts at 0, not -inf. eps acts in stabilised units, so for large m the output depends on m.
    """
    m_new = maximum(log_sigmoid(f) + m, i)
    keep, write = exp(log_sigmoid(f) + m - m_new), exp(i - m_new)
    C = keep * C + write * outer(k, v)
    n = keep * n + write * k
    q = scale * q
    return (C, n, m_new), (q @ C) / (maximum(abs(q @ n), exp(-m_new)) + eps)


@recurrence
def mlstm_sigmoid(
    C=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), i=Input(), f=Input(),
    scale=RSQRT_K,
):
    """Beck, Pöppel, Lippe, Hochreiter 2025, arXiv:2503.14376.

    The variant with sigmoid input gate and no normaliser. Equals simple_gla with g = log_sigmoid(f) and
    k = sigmoid(i) * k.
    """
    C = sigmoid(f) * C + sigmoid(i) * outer(k, v)
    return C, scale * (q @ C)


@recurrence
def based(
    S2=State("K", "K", "V"), S1=State("K", "V"), S0=State("V"), z2=State("K", "K"), z1=State("K"), z0=State(),
    q=Input("K"), k=Input("K"), v=Input("V"), scale=RSQRT_K, eps=Scalar(default=1e-6),
):
    """Arora et al. 2024, arXiv:2402.18668: feature map 1 + s + s*s/2 of s = scale * q.k, normalised.

    S2 and z2 are symmetric in their K axes. K is 16 in practice.
    """
    kk, q = outer(k, k), scale * q
    S2, S1, S0 = S2 + kk[..., None] * v, S1 + outer(k, v), S0 + v
    z2, z1, z0 = z2 + kk, z1 + k, z0 + 1
    num = q @ (q @ S2) / 2 + q @ S1 + S0
    den = q @ z2 @ q / 2 + q @ z1 + z0
    return (S2, S1, S0, z2, z1, z0), num / (den + eps)
