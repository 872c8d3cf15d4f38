"""What compilers are told of addresses and strides: only what holds for every call that a kernel is kept for."""

import torch

from kernel_checks import draw
from rekern import zoo
from rekern.runtime.arguments import check
from rekern.runtime.gpu.launches import source_of
from rekern.runtime.gpu.variants import aligned_copy, aligned_operands, lies_aligned, usually_aligned
from rekern.schedules.programs import programs
from rekern.schedules.triton.forward import forward_pass
from rekern.schedules.triton.passes import Sizes, Variant

SPEC = zoo.gated_delta_rule
LENGTHS = {"K": 32, "V": 48}


def test_rows_of_sixteen_are_aligned_and_single_numbers_are_not() -> None:
    operands, _ = draw(SPEC, batch=2, time=3, heads=2, sizes=LENGTHS)
    assert aligned_operands(SPEC, check(SPEC, operands, {})) == {"q", "k", "v", "out"} == usually_aligned(SPEC, LENGTHS)
    assert usually_aligned(SPEC, {"K": 20, "V": 48}) == {"v", "out"}


def test_a_view_that_begins_elsewhere_is_not_aligned() -> None:
    whole = torch.zeros(2, 3, 2, 64)
    assert lies_aligned(whole) and lies_aligned(whole[..., 16:48]) and lies_aligned(whole.transpose(1, 2))
    assert not lies_aligned(whole[..., 1:33])
    assert not lies_aligned(torch.zeros(2, 3, 2, 20)[..., :16])
    assert not lies_aligned(whole.transpose(2, 3))
    odd = torch.zeros(65)[1:]
    assert aligned_copy(odd).data_ptr() % 16 == 0 and aligned_copy(whole) is whole


def test_a_kernel_says_what_is_aligned_and_no_more() -> None:
    variant = Variant(aligned=frozenset({"q", "out"}))
    sizes = Sizes((("K", 32), ("V", 48)), 16, 0, 1, 2)
    source = source_of(forward_pass(programs(SPEC), sizes, variant, record=False))
    own = {"S_first", "S_last", "out"}
    assert {*source.aligned} == {"q_at", "q_at_batch", "q_at_time", "q_at_head"} | own
