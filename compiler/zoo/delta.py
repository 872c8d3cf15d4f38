"""The delta family: a matrix state S[K, V] whose transition is a decay plus a product of low rank.

In: nothing. Out: one `Recurrence` each. The decays `g` (and `w` of rwkv7) are natural logs, <= 0; `scale`
multiplies the query. An erase reads the decayed state, except in comba, dplr and rwkv7, which read the state
before the decay.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from rekern.math import exp, outer
from rekern.spec import Input, Scalar, State, recurrence

RSQRT_K = Scalar(default="K**-0.5")


@recurrence
def delta_rule(S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), beta=Input(), scale=RSQRT_K):
    """Schlag, Irie, Schmidhuber 2021, arXiv:2102.11174; in parallel: Yang et al. 2024, arXiv:2406.06484.

    Stable for 0 <= beta * k.k <= 2; unit keys are usual but not part of the spec.
    """
    S = S + beta * outer(k, v - k @ S)
    return S, scale * (q @ S)


@recurrence
def gated_delta_rule(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input(at_most=0), beta=Input(),
    scale=RSQRT_K,
):
    """Yang, Kautz, Hatamizadeh 2024, arXiv:2412.06464, eq. 10.

    q and k often have fewer heads than v, g and beta.
    """
    S = exp(g) * S
    S = S + beta * outer(k, v - k @ S)
    return S, scale * (q @ S)


@recurrence
def kda(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input("K", at_most=0), beta=Input(),
    scale=RSQRT_K,
):
    """Kimi team 2025, arXiv:2510.26692 (Kimi delta attention).

    Gates are unbounded below unless the caller bounds them.
    """
    S = exp(g)[:, None] * S
    S = S + beta * outer(k, v - k @ S)
    return S, scale * (q @ S)


@recurrence
def gated_delta_product(
    S=State("K", "V"), q=Input("K"), k=Input("n", "K"), v=Input("n", "V"), g=Input(at_most=0),
    beta=Input("n"), scale=RSQRT_K,
):
    """Siems et al. 2025, arXiv:2502.10297.

    Bind the number of micro-steps first: `gated_delta_product.bind(n=2)`. The decay acts once a token, before
    them.
    """
    S = exp(g) * S
    for k_j, v_j, beta_j in zip(k, v, beta):
        S = S + beta_j * outer(k_j, v_j - k_j @ S)
    return S, scale * (q @ S)


@recurrence
def comba(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), p=Input("K"), g=Input(at_most=0),
    beta=Input(), scale=RSQRT_K,
):
    """Hu et al. 2025, arXiv:2506.02475.

    p reads the state before the decay; a read of the decayed state (other numbers) is p -> exp(g) * p.
    """
    S = exp(g) * S + beta * outer(k, v - p @ S)
    return S, scale * (q @ S)


@recurrence
def gdn2(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input("K", at_most=0), b=Input("K"),
    w=Input("V"), scale=RSQRT_K,
):
    """Gated DeltaNet-2, 2026, arXiv:2605.22791.

    b is the erase gate per key channel, w the write gate per value channel. The erase reads with b * k, the
    write key is k.
    """
    S = exp(g)[:, None] * S
    S = S + outer(k, w * v - (b * k) @ S)
    return S, scale * (q @ S)


@recurrence
def oja(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), g=Input("V", at_most=0), beta=Input(),
    scale=RSQRT_K,
):
    """Oja 1982; as a layer: Irie, Faccio, Schmidhuber 2022, arXiv:2206.01649.

    Low rank on the value side: the decay is per value channel and the erase reads along V. The output still
    reads along K.
    """
    S = S * exp(g)
    S = S + beta * outer(k - S @ v, v)
    return S, scale * (q @ S)


@recurrence
def iplr(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), a=Input("K"), b=Input("K"), scale=RSQRT_K
):
    """Identity plus low rank (the name is that of the FLA library).

    Any a and b; contractive only for b = lambda * a with -2 <= lambda * a.a <= 0.
    """
    S = S + outer(b, a @ S) + outer(k, v)
    return S, scale * (q @ S)


@recurrence
def dplr(
    S=State("K", "V"), q=Input("K"), k=Input("K"), v=Input("V"), a=Input("K"), b=Input("K"),
    g=Input("K", at_most=0), scale=RSQRT_K,
):
    """Diagonal plus low rank (the name is that of the FLA library).

    Transition as in Peng et al. 2025, arXiv:2503.14456. a reads the state before the decay; to read the
    decayed state with a', pass a = exp(g) * a'.
    """
    S = exp(g)[:, None] * S + outer(b, a @ S) + outer(k, v)
    return S, scale * (q @ S)


@recurrence
def rwkv7(
    S=State("K", "V"), r=Input("K"), w=Input("K", at_most=0), k=Input("K"), v=Input("V"), a=Input("K"),
    b=Input("K"), scale=Scalar(default=1),
):
    """Peng et al. 2025, arXiv:2503.14456 (Goose).

    a = -kappa and b = kappa * a_lr in the model; a reads the state before the decay. The bonus for the
    current token is outside. The authors' kernels keep S as [V, K].
    """
    S = exp(w)[:, None] * S + outer(b, a @ S) + outer(k, v)
    return S, scale * (r @ S)
