"""What torch can do with a kernel beside calling it: refused loudly, or right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import rekern as rk

# torch's own forward mode loads its decompositions with torch.jit.script, which warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

X = torch.randn(1, 5, 1, 8)
G = -torch.rand(1, 5, 1, 8)


def total(x: torch.Tensor) -> torch.Tensor:
    return rk.compile(rk.zoo.hgrn)(x=x, g=G)[0].sum()


@pytest.mark.parametrize(
    "transform",
    [
        lambda: torch.func.grad(total)(X),
        lambda: torch.func.jvp(total, (X,), (torch.ones_like(X),)),
        lambda: torch.func.vmap(total)(X[None]),
    ],
    ids=["grad", "jvp", "vmap"],
)
def test_transforms_that_would_give_wrong_numbers_are_refused(transform: Callable[[], object]) -> None:
    with pytest.raises(rk.RekernError, match=r"no rule for torch.func transforms[\s\S]*use backward"):
        transform()


def test_forward_mode_is_refused() -> None:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, torch.ones_like(X))
        with pytest.raises(rk.RekernError, match="no forward-mode derivative"):
            total(dual)
