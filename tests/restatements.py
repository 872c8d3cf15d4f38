"""Every recurrence of the zoo, restated without rekern: torch's own cells, closed forms over all pairs of
steps, sums over products of dense transition matrices.

In: operands and initial states by name. Out: the output and the final states.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, logsigmoid

Values = dict[str, Tensor]
Restatement = Callable[[Values, Values], tuple[Tensor, Values]]
RESTATED: dict[str, Restatement] = {}
MICRO_STEPS = 3  # of the gated delta product


def restates(function: Restatement) -> Restatement:
    RESTATED[function.__name__] = function
    return function


def torch_cell(
    cell: type[torch.nn.RNNBase], o: Values, s: Values, gates: int, **kind: str
) -> tuple[Tensor, Values]:
    """One of torch's cells for each head, fed with projected inputs: its input weight is the identity."""
    *_, heads, D = s["h"].shape
    x = o["x"].flatten(3)
    bias_hh = torch.zeros(heads, gates, D, dtype=x.dtype)
    if "b_n" in o:
        bias_hh[:, 2] = o["b_n"]
    outputs, finals = [], []
    for h in range(heads):
        net = cell(gates * D, D, batch_first=True, dtype=x.dtype, **kind)
        weights = (
            torch.eye(gates * D),
            o["R"][h].reshape(gates * D, D),
            o["b"][h].flatten(),
            bias_hh[h].flatten(),
        )
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), weights):
                parameter.copy_(value)
        initial = [v[None, :, h].contiguous() for v in s.values()]
        out, final = net(x[:, :, h], tuple(initial) if len(initial) > 1 else initial[0])
        outputs.append(out)
        finals.append(final if isinstance(final, tuple) else (final,))
    return torch.stack(outputs, 2), {n: torch.stack([f[j][0] for f in finals], 1) for j, n in enumerate(s)}


@restates
def elman(o: Values, s: Values) -> tuple[Tensor, Values]:
    return torch_cell(torch.nn.RNN, o, s, 1)


@restates
def lstm(o: Values, s: Values) -> tuple[Tensor, Values]:
    return torch_cell(torch.nn.LSTM, o, s, 4)


@restates
def gru(o: Values, s: Values) -> tuple[Tensor, Values]:
    return torch_cell(torch.nn.GRU, o, s, 3)


@restates
def indrnn(o: Values, s: Values) -> tuple[Tensor, Values]:
    return torch_cell(torch.nn.RNN, {**o, "R": torch.diag_embed(o["u"])}, s, 1, nonlinearity="relu")


def gates(o: Values, h: Tensor, t: int) -> tuple[Tensor, ...]:
    recurrent = torch.stack([(h[:, :, None] * o["R"][:, g]).sum(-1) for g in range(o["R"].shape[1])], 2)
    return (o["x"][:, t] + recurrent + o["b"]).unbind(2)


@restates
def slstm(o: Values, s: Values) -> tuple[Tensor, Values]:
    """In plain units, without a stabiliser; m is the largest exponent that a weight of the state has had."""
    h, scale = s["h"], s["m"].exp()
    c, n = s["c"] * scale, s["n"] * scale
    exponents = [s["m"]]
    outs = []
    for t in range(o["x"].shape[1]):
        i, f, z, out = gates(o, h, t)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(out) * c / n
        exponents = [e + torch.sigmoid(f).log() for e in exponents] + [i]
        outs.append(h)
    m = torch.stack(exponents).amax(0)
    return torch.stack(outs, 1), {"h": h, "c": c / m.exp(), "n": n / m.exp(), "m": m}


@restates
def lstm_peephole(o: Values, s: Values) -> tuple[Tensor, Values]:
    h, c = s["h"], s["c"]
    p_i, p_f, p_o = o["p"].unbind(1)
    outs = []
    for t in range(o["x"].shape[1]):
        i, f, z, out = gates(o, h, t)
        c = torch.sigmoid(torch.addcmul(f, p_f, c)) * c + torch.sigmoid(torch.addcmul(i, p_i, c)) * z.tanh()
        h = torch.sigmoid(torch.addcmul(out, p_o, c)) * c.tanh()
        outs.append(h)
    return torch.stack(outs, 1), {"h": h, "c": c}


@restates
def layer_norm_lstm(o: Values, s: Values) -> tuple[Tensor, Values]:
    h, c = s["h"], s["c"]
    D = h.shape[-1]
    outs = []
    for t in range(o["x"].shape[1]):
        y = torch.einsum("hgij,bhj->bhgi", o["R"], h)
        y = layer_norm(y.flatten(2), (4 * D,), eps=1e-5).view(y.shape)
        i, f, z, out = (o["x"][:, t] + o["gain"] * y + o["b"]).unbind(2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * z.tanh()
        h = torch.sigmoid(out) * torch.tanh(layer_norm(c, (D,), eps=1e-5) * o["c_gain"] + o["c_bias"])
        outs.append(h)
    return torch.stack(outs, 1), {"h": h, "c": c}


@restates
def sru(o: Values, s: Values) -> tuple[Tensor, Values]:
    c = s["c"]
    outs = []
    for t in range(o["x"].shape[1]):
        candidate, f, r = o["x"][:, t].unbind(2)
        f, r = (torch.sigmoid(a + o["v"][:, j] * c + o["b"][:, j]) for j, a in enumerate((f, r)))
        c = torch.lerp(candidate, c, f)
        outs.append(torch.lerp(o["skip"][:, t], c, r))
    return torch.stack(outs, 1), {"c": c}


def pairs(g: Tensor) -> tuple[Tensor, Tensor]:
    """Decay from step s to step t, [B, t, s, ...] (0 where s > t), and from the start to t, [B, t, ...]."""
    total = g.cumsum(1)
    T = g.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool).tril().view(1, T, T, *[1] * (g.ndim - 2))
    return (total[:, :, None] - total[:, None]).masked_fill(~causal, -torch.inf).exp(), total.exp()


def leaky_sum(g: Tensor, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """All values of h = exp(g) h + x, and the last one."""
    between, since = pairs(g)
    h = (between * x[:, None]).sum(2) + since * start[:, None]
    return h, h[:, -1]


def attention(q: Tensor, k: Tensor, v: Tensor, g: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Quadratic form of S = exp(g)[:, None] * S + outer(k, v), read by q."""
    between, since = pairs(g)
    scores = torch.einsum("bthk,bshk,btshk->btsh", q, k, between)
    out = torch.einsum("btsh,bshv->bthv", scores, v) + torch.einsum("bthk,bhkv->bthv", q * since, start)
    last = torch.einsum("bshk,bshv->bhkv", between[:, -1] * k, v) + since[:, -1, ..., None] * start
    return out, last


def scaled(q: Tensor) -> Tensor:
    return q / q.shape[-1] ** 0.5


@restates
def hgrn(o: Values, s: Values) -> tuple[Tensor, Values]:
    out, last = leaky_sum(o["g"], o["x"], s["h"])
    return out, {"h": last}


@restates
def min_gru(o: Values, s: Values) -> tuple[Tensor, Values]:
    z = torch.sigmoid(o["z"])
    out, last = leaky_sum(torch.log(1 - z), z * o["x"], s["h"])
    return out, {"h": last}


@restates
def min_lstm(o: Values, s: Values) -> tuple[Tensor, Values]:
    f, i = torch.sigmoid(o["f"]), torch.sigmoid(o["i"])
    out, last = leaky_sum(torch.log(f / (f + i)), i / (f + i) * o["x"], s["h"])
    return out, {"h": last}


@restates
def selective_scan(o: Values, s: Values) -> tuple[Tensor, Values]:
    h, last = leaky_sum(
        o["delta"][..., None] * o["A"], (o["delta"] * o["x"])[..., None] * o["B"][..., None, :], s["h"]
    )
    return torch.einsum("bthdn,bthn->bthd", h, o["C"]), {"h": last}


@restates
def rwkv4(o: Values, s: Values) -> tuple[Tensor, Values]:
    """In plain units, without a stabiliser."""
    k, v = o["k"], o["v"]
    decay = o["w"].expand_as(k)
    a, last_a = leaky_sum(decay, k.exp() * v, s["a"] * s["m"].exp())
    b, last_b = leaky_sum(decay, k.exp(), s["b"] * s["m"].exp())
    bonus = (o["u"] + k).exp() - k.exp()
    before_a, before_b = ((x - k.exp() * w) * (-decay).exp() for x, w in ((a, v), (b, 1)))
    out = (before_a + (bonus + k.exp()) * v) / (before_b + bonus + k.exp())
    T = k.shape[1]
    steps = torch.arange(T - 1, -1, -1).view(1, T, 1, 1)
    m = torch.maximum(T * o["w"] + s["m"], (steps * o["w"] + k).amax(1))
    return out, {"a": last_a / m.exp(), "b": last_b / m.exp(), "m": m}


@restates
def linear_attention(o: Values, s: Values) -> tuple[Tensor, Values]:
    out, last = attention(scaled(o["q"]), o["k"], o["v"], torch.zeros_like(o["k"]), s["S"])
    return out, {"S": last}


@restates
def retention(o: Values, s: Values) -> tuple[Tensor, Values]:
    out, last = attention(scaled(o["q"]), o["k"], o["v"], o["log_decay"][:, None].expand_as(o["k"]), s["S"])
    return out, {"S": last}


@restates
def simple_gla(o: Values, s: Values) -> tuple[Tensor, Values]:
    out, last = attention(scaled(o["q"]), o["k"], o["v"], o["g"][..., None].expand_as(o["k"]), s["S"])
    return out, {"S": last}


@restates
def gla(o: Values, s: Values) -> tuple[Tensor, Values]:
    out, last = attention(scaled(o["q"]), o["k"], o["v"], o["g"], s["S"])
    return out, {"S": last}


@restates
def rwkv6(o: Values, s: Values) -> tuple[Tensor, Values]:
    """A read before the update sees the state of the step before: undo the decay, leave out the diagonal."""
    r, k, v, w = (o[n] for n in "rkvw")
    _, last = attention(r, k, v, w, s["S"])
    after, _ = attention(r * torch.exp(-w), k, v, w, s["S"])
    current = (r * torch.exp(-w) * k).sum(-1, keepdim=True)
    bonus = torch.einsum("bthk,hk,bthk->bth", r, o["u"], k)[..., None]
    return after + (bonus - current) * v, {"S": last}


@restates
def mlstm_sigmoid(o: Values, s: Values) -> tuple[Tensor, Values]:
    write = torch.sigmoid(o["i"])[..., None] * o["k"]
    out, last = attention(
        scaled(o["q"]), write, o["v"], torch.sigmoid(o["f"]).log()[..., None].expand_as(write), s["C"]
    )
    return out, {"C": last}


@restates
def mlstm(o: Values, s: Values) -> tuple[Tensor, Values]:
    """In plain units, without a stabiliser; eps acts in stabilised units, so it is multiplied by e^m."""
    q, write = scaled(o["q"]), o["i"].exp()[..., None] * o["k"]
    g = logsigmoid(o["f"])
    scale = s["m"].exp()
    num, C = attention(q, write, o["v"], g[..., None].expand_as(write), s["C"] * scale[..., None, None])
    ones = torch.ones_like(o["v"][..., :1])
    den, n = attention(q, write, ones, g[..., None].expand_as(write), (s["n"] * scale[..., None])[..., None])
    between, since = pairs(g)
    m = torch.maximum((between * o["i"].exp()[:, None]).amax(2), since * scale[:, None]).log()
    out = num / (den.abs().clamp(min=1) + 1e-6 * m.exp()[..., None])
    end = m[:, -1]
    return out, {"C": C / end.exp()[..., None, None], "n": n[..., 0] / end.exp()[..., None], "m": end}


@restates
def based(o: Values, s: Values) -> tuple[Tensor, Values]:
    """1 + s + s*s/2 of every score; what the initial state adds is the same polynomial of the query."""
    q, k, v = scaled(o["q"]), o["k"], o["v"]
    scores = torch.einsum("bthk,bshk->btsh", q, k)
    causal = torch.ones(q.shape[1], q.shape[1]).tril()[None, :, :, None]
    weights = (1 + scores + scores**2 / 2) * causal
    num = torch.einsum("btsh,bshv->bthv", weights, v) + s["S0"][:, None]
    num = (
        num
        + torch.einsum("bthk,bhkv->bthv", q, s["S1"])
        + torch.einsum("bthk,bthl,bhklv->bthv", q, q, s["S2"]) / 2
    )
    den = weights.sum(2) + s["z0"][:, None]
    den = (
        den
        + torch.einsum("bthk,bhk->bth", q, s["z1"])
        + torch.einsum("bthk,bthl,bhkl->bth", q, q, s["z2"]) / 2
    )
    last = {
        "S2": s["S2"] + torch.einsum("bthk,bthl,bthv->bhklv", k, k, v),
        "S1": s["S1"] + torch.einsum("bthk,bthv->bhkv", k, v),
        "S0": s["S0"] + v.sum(1),
        "z2": s["z2"] + torch.einsum("bthk,bthl->bhkl", k, k),
        "z1": s["z1"] + k.sum(1),
        "z0": s["z0"] + k.shape[1],
    }
    return num / (den + 1e-6)[..., None], last


def dense(A: Tensor, U: Tensor, start: Tensor) -> Tensor:
    """Every state of S = A S + U, each as one sum over products of transitions."""
    states = []
    for t in range(A.shape[1]):
        reach, S = torch.eye(A.shape[-1], dtype=A.dtype), torch.zeros_like(start)
        for earlier in range(t, -1, -1):
            S = S + reach @ U[:, earlier]
            reach = reach @ A[:, earlier]
        states.append(S + reach @ start)
    return torch.stack(states, 1)


def outer(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None] * b[..., None, :]


def identity(k: Tensor) -> Tensor:
    return torch.eye(k.shape[-1], dtype=k.dtype)


def read(q: Tensor, S: Tensor) -> tuple[Tensor, Values]:
    return torch.einsum("bthk,bthkv->bthv", q, S), {"S": S[:, -1]}


def householder(o: Values) -> tuple[Tensor, Tensor]:
    beta = o["beta"][..., None, None]
    return identity(o["k"]) - beta * outer(o["k"], o["k"]), beta * outer(o["k"], o["v"])


@restates
def delta_rule(o: Values, s: Values) -> tuple[Tensor, Values]:
    return read(scaled(o["q"]), dense(*householder(o), s["S"]))


@restates
def gated_delta_rule(o: Values, s: Values) -> tuple[Tensor, Values]:
    A, U = householder(o)
    return read(scaled(o["q"]), dense(o["g"].exp()[..., None, None] * A, U, s["S"]))


@restates
def kda(o: Values, s: Values) -> tuple[Tensor, Values]:
    A, U = householder(o)
    return read(scaled(o["q"]), dense(A @ torch.diag_embed(o["g"].exp()), U, s["S"]))


@restates
def gated_delta_product(o: Values, s: Values) -> tuple[Tensor, Values]:
    A, U = o["g"].exp()[..., None, None] * identity(o["k"]), torch.zeros_like(s["S"])[:, None]
    for j in range(MICRO_STEPS):
        A_j, U_j = householder({"k": o["k"][..., j, :], "v": o["v"][..., j, :], "beta": o["beta"][..., j]})
        A, U = A_j @ A, A_j @ U + U_j
    return read(scaled(o["q"]), dense(A, U, s["S"]))


@restates
def comba(o: Values, s: Values) -> tuple[Tensor, Values]:
    beta = o["beta"][..., None, None]
    A = o["g"].exp()[..., None, None] * identity(o["k"]) - beta * outer(o["k"], o["p"])
    return read(scaled(o["q"]), dense(A, beta * outer(o["k"], o["v"]), s["S"]))


@restates
def gdn2(o: Values, s: Values) -> tuple[Tensor, Values]:
    A = (identity(o["k"]) - outer(o["k"], o["b"] * o["k"])) @ torch.diag_embed(o["g"].exp())
    return read(scaled(o["q"]), dense(A, outer(o["k"], o["w"] * o["v"]), s["S"]))


@restates
def oja(o: Values, s: Values) -> tuple[Tensor, Values]:
    """The transition acts on the value side: run it on the transposed state."""
    beta = o["beta"][..., None, None]
    A = (identity(o["v"]) - beta * outer(o["v"], o["v"])) @ torch.diag_embed(o["g"].exp())
    return read(scaled(o["q"]), dense(A, beta * outer(o["v"], o["k"]), s["S"].mT).mT)


@restates
def iplr(o: Values, s: Values) -> tuple[Tensor, Values]:
    return read(
        scaled(o["q"]), dense(identity(o["k"]) + outer(o["b"], o["a"]), outer(o["k"], o["v"]), s["S"])
    )


@restates
def dplr(o: Values, s: Values) -> tuple[Tensor, Values]:
    A = torch.diag_embed(o["g"].exp()) + outer(o["b"], o["a"])
    return read(scaled(o["q"]), dense(A, outer(o["k"], o["v"]), s["S"]))


@restates
def rwkv7(o: Values, s: Values) -> tuple[Tensor, Values]:
    A = torch.diag_embed(o["w"].exp()) + outer(o["b"], o["a"])
    return read(o["r"], dense(A, outer(o["k"], o["v"]), s["S"]))
