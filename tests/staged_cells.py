"""Dense cells whose products depend on each other, on inputs alone, or have two axes."""

from __future__ import annotations

from rekern import Input, Param, State, recurrence
from rekern.math import max, sigmoid, sum, tanh


@recurrence
def swapped(a=State("D"), b=State("D"), h=State("D"), x=Input("D"), R=Param("D", "D"), s=Param()):
    """Two states change places, and one keeps what it is; a product of three vectors one after the other."""
    u = tanh(x + R @ h)
    w = sigmoid(R @ (u * a))
    h = tanh(R @ (w + s * h)) + 0.1 * b
    return (b, a, h), {"out": h * w, "total": sum(u * b)}


@recurrence
def early(h=State("D"), c=State("D"), x=Input(2, "N"), V=Param(2, "D", "N"), W=Param("D", "D"), R=Param("D", "D")):
    """Products of inputs, one of a product of inputs, and one of the transpose of what a state is multiplied with."""
    z = W @ tanh(V[0] @ x[0])
    g = sigmoid(V[1] @ x[0] + V[0] @ sigmoid(x[1]))
    h = tanh(z + g * (R @ h) + R.T @ c)
    c = g * c + (1 - g) * h
    return (h, c), h


@recurrence
def narrow(h=State("N"), x=Input("D"), up=Param("D", "N"), down=Param("N", "D"), gain=Param("D")):
    """Two axes, a norm before a product, and a largest number."""
    u = tanh(up @ h + x)
    u = u * gain / (1 + sum(u * u))
    h = tanh(down @ u) * max(u)
    return h, u


STAGED = (swapped, early, narrow)
