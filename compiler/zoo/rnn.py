"""Cells without a matrix state: dense ones (they need `R @ h`) and elementwise ones.

In: nothing. Out: one `Recurrence` each. `R[g, i, j]`: rows are outputs. `x` is the projected input. A cell
that has no heads has H = 1.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from math import inf

from rekern.math import exp, log_sigmoid, maximum, mean, sigmoid, sqrt, tanh
from rekern.spec import Input, Param, Scalar, State, recurrence

# -- dense ---------------------------------------------------------------------------------------------------


@recurrence
def elman(h=State("D"), x=Input("D"), R=Param("D", "D"), b=Param("D")):
    """Elman 1990, "Finding Structure in Time".

    The input projection `W x` is outside.
    """
    h = tanh(x + R @ h + b)
    return h, h


@recurrence
def lstm(h=State("D"), c=State("D"), x=Input(4, "D"), R=Param(4, "D", "D"), b=Param(4, "D")):
    """Hochreiter, Schmidhuber 1997; forget gate: Gers, Schmidhuber, Cummins 2000.

    Gate order i f z o, which is torch's i f g o; `b` is the sum of torch's two biases.
    """
    i, f, z, o = x + R @ h + b
    c = sigmoid(f) * c + sigmoid(i) * tanh(z)
    h = sigmoid(o) * tanh(c)
    return (h, c), h


@recurrence
def gru(h=State("D"), x=Input(3, "D"), R=Param(3, "D", "D"), b=Param(3, "D"), b_n=Param("D")):
    """Cho et al. 2014, arXiv:1406.1078, in the reset-after form of cuDNN and torch.

    Order r z n; `b_n` is the recurrent bias of the candidate and stands inside the reset product.
    """
    r_x, z_x, n_x = x + b
    r_h, z_h, n_h = R @ h
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = tanh(n_x + r * (n_h + b_n))
    h = (1 - z) * n + z * h
    return h, h


@recurrence
def slstm(
    h=State("D"), c=State("D"), n=State("D"), m=State("D", init=-inf),
    x=Input(4, "D"), R=Param(4, "D", "D"), b=Param(4, "D"),
):
    """Beck et al. 2024, arXiv:2405.04517: sigmoid forget gate, exponential input gate.

    `n >= 1` after the first step, so no clamp is needed. `i` must be finite; an empty state is m = -inf, not
    n = m = 0.
    """
    i, f, z, o = x + R @ h + b
    m_new = maximum(log_sigmoid(f) + m, i)
    keep, write = exp(log_sigmoid(f) + m - m_new), exp(i - m_new)
    c = keep * c + write * tanh(z)
    n = keep * n + write
    h = sigmoid(o) * c / n
    return (h, c, n, m_new), h


@recurrence
def lstm_peephole(
    h=State("D"), c=State("D"), x=Input(4, "D"), R=Param(4, "D", "D"), b=Param(4, "D"), p=Param(3, "D")
):
    """Gers, Schraudolph, Schmidhuber 2002; Greff et al. 2015, arXiv:1503.04069.

    Peephole order i f o (gates i f z o); i and f see the old c, o sees the new one.
    """
    i, f, z, o = x + R @ h + b
    c_new = sigmoid(f + p[1] * c) * c + sigmoid(i + p[0] * c) * tanh(z)
    h = sigmoid(o + p[2] * c_new) * tanh(c_new)
    return (h, c_new), h


@recurrence
def layer_norm_lstm(
    h=State("D"), c=State("D"), x=Input(4, "D"), R=Param(4, "D", "D"), b=Param(4, "D"),
    gain=Param(4, "D"), c_gain=Param("D"), c_bias=Param("D"), eps=Scalar(default=1e-5),
):
    """Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 20-22.

    Biased variance, one norm over all 4 D numbers of `R @ h`; the stored c is not normalised; `x` already is.
    """
    y = R @ h
    y = y - mean(y, axis=(0, 1))
    i, f, z, o = x + gain * y / sqrt(mean(y * y, axis=(0, 1)) + eps) + b
    c = sigmoid(f) * c + sigmoid(i) * tanh(z)
    u = c - mean(c, axis=0)
    h = sigmoid(o) * tanh(c_gain * u / sqrt(mean(u * u, axis=0) + eps) + c_bias)
    return (h, c), h


# -- elementwise ---------------------------------------------------------------------------------------------


@recurrence
def indrnn(h=State("D"), x=Input("D"), u=Param("D"), b=Param("D")):
    """Li, Li, Cook, Zhu, Gao 2018, arXiv:1803.04831, with ReLU.

    Pointwise nonlinear: it runs step by step only.
    """
    h = maximum(x + u * h + b, 0)
    return h, h


@recurrence
def min_gru(h=State("D"), x=Input("D"), z=Input("D")):
    """Feng, Tung, Ahmed, Bengio, Hajimirsadeghi 2024, arXiv:2410.01201.

    `x` is the linear candidate; the paper's log-space variant maps it first. The log-decay is
    `log_sigmoid(-z)`.
    """
    h = sigmoid(-z) * h + sigmoid(z) * x
    return h, h


@recurrence
def min_lstm(h=State("D"), x=Input("D"), i=Input("D"), f=Input("D")):
    """Feng, Tung, Ahmed, Bengio, Hajimirsadeghi 2024, arXiv:2410.01201, with normalised gates.

    `keep` is sigmoid(f) / (sigmoid(f) + sigmoid(i)), in a form that does not underflow.
    """
    keep = sigmoid(log_sigmoid(f) - log_sigmoid(i))
    h = keep * h + (1 - keep) * x
    return h, h


@recurrence
def sru(c=State("D"), x=Input(3, "D"), skip=Input("D"), v=Param(2, "D"), b=Param(2, "D")):
    """Lei, Zhang, Wang, Dai, Artzi 2017, arXiv:1709.02755 (final version).

    x order: candidate, f, r; both gates see the old c; `skip` is the layer's input. Affine where v = 0.
    """
    f = sigmoid(x[1] + v[0] * c + b[0])
    r = sigmoid(x[2] + v[1] * c + b[1])
    c = f * c + (1 - f) * x[0]
    return c, r * c + (1 - r) * skip
