"""State space models and their relatives: elementwise decay, no mixing between the numbers of the state.

In: nothing. Out: one `Recurrence` each. `g` and `w` are natural-log decays, <= 0.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from math import inf

from rekern.math import exp, maximum, outer
from rekern.spec import Input, Param, State, recurrence


@recurrence
def hgrn(h=State("D"), x=Input("D"), g=Input("D", at_most=0)):
    """Qin, Yang, Zhong 2023, arXiv:2311.04823.

    The lower bound of the gate and `x = silu(i) * (1 - f)` are outside.
    """
    h = exp(g) * h + x
    return h, h


@recurrence
def rwkv4(
    a=State("D"), b=State("D"), m=State("D", init=-inf),
    k=Input("D"), v=Input("D"), w=Param("D", at_most=0), u=Param("D"),
):
    """Peng et al. 2023, arXiv:2305.13048.

    Read before the update, with the bonus u for the current token. `w` is the log-decay itself; models store
    w_raw with w = -exp(w_raw).
    """
    p = maximum(m, u + k)
    y = (exp(m - p) * a + exp(u + k - p) * v) / (exp(m - p) * b + exp(u + k - p))
    m_new = maximum(m + w, k)
    keep, write = exp(m + w - m_new), exp(k - m_new)
    return (keep * a + write * v, keep * b + write, m_new), y


@recurrence
def selective_scan(
    h=State("D", "N"), x=Input("D"), delta=Input("D", at_least=0), B=Input("N"), C=Input("N"),
    A=Param("D", "N", at_most=0),
):
    """Gu, Dao 2023, arXiv:2312.00752 (Mamba).

    The log-decay is `delta * A`, a product of input and parameter. The softplus of delta, the skip `D * x`
    and the gate z are outside.
    """
    h = exp(delta[:, None] * A) * h + outer(delta * x, B)
    return h, h @ C
