"""What others have for the same recurrences on a GPU, on the same numbers.

In: operands of a case, float tensors on the GPU. Out: functions that return the output [B, T, H, D], by name; and why a
peer is not there. A peer that cannot be imported, or that fails, costs itself only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Operands = Mapping[str, Tensor]
Run = Callable[[Operands], Tensor]


def peers(spec: str, operands: Operands, heads: int) -> tuple[dict[str, Run], dict[str, str]]:
    """Functions of the operands, and reasons."""
    found: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name, make in _makers(spec, heads):
        try:
            found[name] = make(operands)
        except Exception as error:  # of any package: not installed, built for another torch, another signature
            missing[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return found, missing


def _makers(spec: str, heads: int) -> Iterator[tuple[str, Callable[[Operands], Run]]]:
    if spec == "lstm":
        for backend in ("cuda_fused", "triton"):
            yield f"flashrnn {backend}", lambda o, b=backend: _flashrnn(spec, b)
    if spec in ("lstm", "gru") and heads == 1:
        yield f"torch.nn.{spec.upper()}", lambda o: _cudnn(spec, o)
    for package, function, order in FLA.get(spec, ()):
        yield f"fla {function}", lambda o, p=package, f=function, a=order: _fla(p, f, a)
    if spec == "mlstm":
        yield "mlstm_kernels xl_chunk", lambda o: _mlstm()


# Packages and functions of flash-linear-attention, and the names of its arguments by those of the spec.
FLA: Mapping[str, tuple[tuple[str, str, Mapping[str, str]], ...]] = {
    "gated_delta_rule": (
        ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule", {}),
        ("fla.ops.gated_delta_rule", "fused_recurrent_gated_delta_rule", {}),
    ),
    "gla": (
        ("fla.ops.gla", "chunk_gla", {}),
        ("fla.ops.gla", "fused_recurrent_gla", {"g": "gk"}),
    ),
    "hgrn": (
        ("fla.ops.hgrn", "chunk_hgrn", {}),
        ("fla.ops.hgrn", "fused_recurrent_hgrn", {}),
    ),
}


def _fla(package: str, name: str, words: Mapping[str, str]) -> Run:
    function: Any = getattr(importlib.import_module(package), name)
    flat = package.endswith("hgrn")  # [B, T, D], without heads

    def run(operands: Operands) -> Tensor:
        given = {words.get(n, n): t.flatten(2) if flat else t for n, t in operands.items()}
        out: Tensor = function(**given)[0]
        return out.unsqueeze(2) if flat else out

    return run


def _flashrnn(spec: str, backend: str) -> Run:
    function: Any = importlib.import_module("flashrnn").flashrnn

    def run(operands: Operands) -> Tensor:
        x, weight, bias = operands["x"], operands["R"], operands["b"]
        gates = [x.transpose(2, 3), weight.transpose(0, 1), bias.transpose(0, 1)]
        dtype = str(x.dtype).removeprefix("torch.")
        states: Tensor = function(*(t.contiguous() for t in gates), function=spec, backend=backend, dtype=dtype)[0]
        return states[0]

    return run


def _cudnn(spec: str, operands: Operands) -> Run:
    """cuDNN multiplies its input by a weight, here of one number a step: that product is in its time."""
    x, weight = operands["x"], operands["R"]
    gates, dim = x.shape[3:]
    torch_order = [0, 1, 2, 3] if spec == "lstm" else [0, 1, 2]
    module = (torch.nn.LSTM if spec == "lstm" else torch.nn.GRU)(1, dim, batch_first=True)
    module = module.to(x.device, x.dtype)
    with torch.no_grad():
        module.weight_hh_l0.copy_(weight[0, torch_order].reshape(gates * dim, dim))
    line = torch.randn_like(x[:, :, 0, 0, :1])
    inputs = [line, *module.parameters()]

    def run(operands: Operands) -> Tensor:
        out: Tensor = module(line)[0]
        return out.unsqueeze(2)

    for t in inputs:
        t.requires_grad_()
    run.leaves = inputs  # type: ignore[attr-defined]  # a function with a note of what it differentiates
    return run


def _mlstm() -> Run:
    module = importlib.import_module("mlstm_kernels.torch.chunkwise.triton_xl_chunk")
    function: Any = module.mlstm_chunkwise__xl_chunk

    def run(operands: Operands) -> Tensor:
        out: Tensor = function(*(operands[n].transpose(1, 2) for n in "qkvif"))
        return out.transpose(1, 2)

    return run
