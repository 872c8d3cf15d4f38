"""What a caller handed over, checked against the spec.

In: operands by name. Out: `Arguments`: lengths of all axes, the sequences, and the tensors in the order of
the spec. Every fault is an `ArgumentError` that quotes the operand and says what was expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rekern.errors import ArgumentError
from rekern.spec import Operand, Recurrence

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LEAD = {"input": ("B", "T", "H"), "param": ("H",), "state": ("N", "H")}


@dataclass(frozen=True)
class Arguments:
    """A checked call. `sequences`: (batch, first, steps, row of the states) each."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    batch: int
    time: int
    heads: int
    sequences: tuple[tuple[int, int, int, int], ...]
    double: bool

    @property
    def real(self) -> torch.dtype:
        """The precision of arithmetic and states."""
        return torch.float64 if self.double else torch.float32

    @property
    def in_bfloat16(self) -> bool:
        """Whether every operand is stored in it: products may round rows to it then.

        Outputs and gradients are rounded to it, which costs as much or more.
        """
        return all(t.dtype == torch.bfloat16 for t in self.tensors.values())


def named_operands(spec: Recurrence, given: Mapping[str, object]) -> None:
    """Every operand that has no default is there, and nothing else.

    Raises:
        ArgumentError: an operand is missing, or one is given that the spec does not have.
    """
    wanted = [o.name for o in spec.operands if o.kind in ("input", "param")]
    known = [o.name for o in spec.operands if o.kind != "state"]
    unknown = [n for n in given if n not in known]
    if unknown:
        hint = (
            f"; pass states as state={{{unknown[0]!r}: ...}}"
            if unknown[0] in {o.name for o in spec.states}
            else ""
        )
        raise ArgumentError(f"{spec.name} has no operand {unknown[0]!r}; it takes {', '.join(known)}{hint}")
    missing = [n for n in wanted if given.get(n) is None]
    if missing:
        operand = spec.operand(missing[0])
        raise ArgumentError(
            f"{spec.name} needs the operand {missing[0]!r}: {_expected(operand)}; pass {missing[0]}=..."
        )


def dense_tensor(spec: Recurrence, what: str, value: object, device: str = "cpu") -> Tensor:
    """`value`, which a kernel for `device` can read.

    Raises:
        ArgumentError: it is not a tensor, is elsewhere, or is sparse.
    """
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{spec.name}: {what} is a {type(value).__name__}, expected a tensor")
    if value.device.type != device:
        place, move = ("the CPU", ".cpu()") if device == "cpu" else ("a GPU", f'.to("{device}")')
        raise ArgumentError(
            f"{spec.name}: {what} is on {value.device}, this kernel runs on {place}; move it with {move}"
        )
    if value.layout != torch.strided:
        raise ArgumentError(f"{spec.name}: {what} is {value.layout}; make it dense with .to_dense()")
    return value


def check(
    spec: Recurrence,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    cu_seqlens: Tensor | None = None,
    reset: Tensor | None = None,
) -> Arguments:
    """Check a call.

    Raises:
        ArgumentError: shape, dtype or device of an operand, or the sequence boundaries, do not fit.
    """
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}
    heads: dict[str, int] = {}

    def shown(name: str) -> str:
        return f"{name!r} {_shape(all_tensors[name])}"

    def meet(name: str, axis: str, length: int) -> None:
        if axis in sizes and sizes[axis] != length:
            raise ArgumentError(
                f"{spec.name}: axis {axis.removesuffix(' (implicit)')} is {length} in operand {shown(name)} "
                f"but {sizes[axis]} in {shown(source[axis])}; they must agree"
            )
        sizes[axis] = length
        source.setdefault(axis, name)

    all_tensors = {**tensors, **state}
    ordered = [o for o in spec.operands if o.name in all_tensors]
    for o in ordered:
        tensor = all_tensors[o.name]
        _check_kind(spec, o, tensor)
        # a spec may well call an axis of its own B or N
        lead = tuple(f"{axis} (implicit)" for axis in LEAD[o.kind])
        for axis, length in zip((*lead, *o.dims), tensor.shape, strict=True):
            if isinstance(axis, int):
                if length != axis:
                    raise ArgumentError(
                        f"{spec.name}: operand {o.name!r} has shape {_shape(tensor)}, expected {_expected(o)}"
                    )
            elif axis == "H (implicit)":
                heads[o.name] = int(length)
            else:
                meet(o.name, axis, int(length))
    total = max(heads.values(), default=1)
    for name, count in heads.items():
        if count == 0 or total % count:
            raise ArgumentError(
                f"{spec.name}: operand {shown(name)} has {count} heads, which do not divide the {total} "
                f"of the call; heads are shared in equal groups"
            )
        if spec.operand(name).kind == "state" and count != total:
            raise ArgumentError(f"{spec.name}: state {shown(name)} has {count} heads, the call has {total}")
    for axis in spec.axes:
        if axis not in sizes:
            only = next(o.name for o in spec.states if axis in o.axes)
            raise ArgumentError(
                f"{spec.name}: the length of axis {axis} is unknown, only a state has it; "
                f"pass state={{{only!r}: ...}}"
            )
        if sizes[axis] == 0:
            raise ArgumentError(f"{spec.name}: axis {axis} is empty in {shown(source[axis])}")
    if "T (implicit)" not in sizes:
        raise ArgumentError(f"{spec.name} has no input, so the number of steps is unknown; declare an Input")
    batch, time = sizes.pop("B (implicit)"), sizes.pop("T (implicit)")
    states = sizes.pop("N (implicit)", None)
    sequences = _sequences(spec, batch, time, cu_seqlens)
    if states is not None and states != len(sequences):
        raise ArgumentError(
            f"{spec.name}: state {shown(next(iter(state)))} has {states} rows, "
            f"the call has {len(sequences)} sequences"
        )
    if reset is not None and (reset.dtype != torch.bool or tuple(reset.shape) != (batch, time)):
        raise ArgumentError(
            f"{spec.name}: reset is {reset.dtype} {_shape(reset)}, expected bool [{batch}, {time}]"
        )
    return Arguments(
        tensors, state, sizes, batch, time, total, sequences, in_double(spec, all_tensors.values())
    )


def in_double(spec: Recurrence, tensors: Iterable[Tensor]) -> bool:
    """Whether a call computes in float64: one operand or state that is in it is enough."""
    return any(t.dtype == torch.float64 for t in tensors) or any(o.dtype == "float64" for o in spec.states)


def _check_kind(spec: Recurrence, o: Operand, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise ArgumentError(
            f"{spec.name}: operand {o.name!r} is {tensor.dtype}, "
            f"expected one of float32, bfloat16, float16, float64"
        )
    if tensor.ndim != len(LEAD[o.kind]) + len(o.dims):
        raise ArgumentError(
            f"{spec.name}: operand {o.name!r} has shape {_shape(tensor)}, expected {_expected(o)}"
        )


def check_operand_facts(spec: Recurrence, o: Operand, tensor: Tensor) -> None:
    """Compare the values of an operand with what its spec declares.

    Raises:
        ArgumentError: a value breaks a declared fact.
    """
    where = f"{spec.name}: operand {o.name!r}"
    if o.at_most is not None and bool((tensor > o.at_most).any()):
        raise ArgumentError(f"{where} reaches {tensor.max().item():g}, declared at most {o.at_most:g}")
    if o.at_least is not None and bool((tensor < o.at_least).any()):
        raise ArgumentError(f"{where} falls to {tensor.min().item():g}, declared at least {o.at_least:g}")
    if o.unit_norm and tensor.numel():
        norm = tensor.detach().float().norm(dim=-1)
        rounding = 8 * torch.finfo(tensor.dtype).eps
        if bool(((norm - 1).abs() > rounding).any()):
            raise ArgumentError(
                f"{where} is declared to have unit norm along its last axis, but norms run from "
                f"{norm.min().item():g} to {norm.max().item():g}\n"
                f"normalise it with torch.nn.functional.normalize(x, dim=-1)"
            )


def _sequences(
    spec: Recurrence, batch: int, time: int, cu_seqlens: Tensor | None
) -> tuple[tuple[int, int, int, int], ...]:
    if cu_seqlens is None:
        return tuple((n, 0, time, n) for n in range(batch))
    if cu_seqlens.ndim != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64) or len(cu_seqlens) < 2:
        raise ArgumentError(
            f"{spec.name}: cu_seqlens is {cu_seqlens.dtype} {_shape(cu_seqlens)}, "
            f"expected int32 or int64 [N + 1]"
        )
    if batch != 1:
        raise ArgumentError(
            f"{spec.name}: with cu_seqlens all sequences are packed in one row, B = 1, but B is {batch}"
        )
    if cu_seqlens.device.type != "cpu":  # not read: the host would wait for the GPU; kernels bound them
        return tuple((0, 0, time, n) for n in range(len(cu_seqlens) - 1))
    bounds: list[int] = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] != time:
        raise ArgumentError(
            f"{spec.name}: cu_seqlens runs from {bounds[0]} to {bounds[-1]}, expected from 0 to T = {time}"
        )
    for n, (start, end) in enumerate(pairwise(bounds)):
        if end < start:
            raise ArgumentError(
                f"{spec.name}: cu_seqlens falls from {start} to {end} at sequence {n}; boundaries never fall"
            )
    return tuple((0, start, end - start, n) for n, (start, end) in enumerate(pairwise(bounds)))


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _expected(operand: Operand) -> str:
    return "[" + ", ".join(map(str, (*LEAD[operand.kind], *operand.dims))) + "]"


def longest_first(sequences: Sequence[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Order for units of several sequences: those that still run at a step are then the first ones."""
    return sorted(sequences, key=lambda s: -s[2])
