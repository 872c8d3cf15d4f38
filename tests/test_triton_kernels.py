"""The kernels of a call as a whole: the first schedule of which all fit, smaller sizes where the solver has none."""

from collections.abc import Callable

import pytest

from rekern import zoo
from rekern.backends.offline import Resources, Source
from rekern.errors import PlanError
from rekern.gate.verdicts import Accepted, Excess, Rejected
from rekern.hwmodels import Machine, load
from rekern.runtime.gpu import fits
from rekern.runtime.gpu.fits import ask, smaller
from rekern.runtime.gpu.kernels import Kernels
from rekern.runtime.gpu.launches import source_of
from rekern.runtime.gpu.views import PASSES, Views, views
from rekern.schedules.gpu.usual import usual_calls
from rekern.schedules.triton.passes import Sizes

RESOURCES = Resources(1024, 255, 8, 8, 0, 128, ())
H100 = load("h100_sxm")


def rejecting(monkeypatch: pytest.MonkeyPatch, spills: Callable[[str], bool]) -> None:
    """A compiler that spills where the text of a kernel is like that."""

    def answer(source: Source, machine: Machine) -> Accepted | Rejected:
        text = getattr(source, "text", "")
        return Rejected(RESOURCES, (Excess("spills", 8, 0, "it spills"),)) if spills(text) else Accepted(RESOURCES)

    monkeypatch.setattr(fits, "ask", answer)


def schedules(found: Views) -> list[str]:
    kernels: list[Kernels] = [found.plain, found.recorded, found.single]
    return [k.chosen.choice.schedule for k in kernels]


def test_where_a_kernel_of_the_best_schedule_does_not_fit_all_are_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    found = views(zoo.lstm, H100, "float32", {"D": 64})
    rejecting(monkeypatch, lambda text: "tl.dot" in text and "def backward" in text)
    assert schedules(found) == ["one_block", "alternating", "one_block"]
    assert {view.name for view in found.of("recording")} == {"recording"}


def test_products_that_hold_too_much_are_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    found = views(zoo.lstm, H100, "float32", {"D": 64})
    rejecting(monkeypatch, lambda text: '"tf32x3"' in text and "def backward" in text)
    assert schedules(found) == ["one_block"] * 3
    assert {name: found.of(name)[0].variant.precision for name in PASSES} == {
        "forward": "tf32x3", "recording": "tf32x3", "backward": "ieee", "step": "tf32x3",
    }  # fmt: skip


def test_where_no_schedule_fits_the_message_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rejecting(monkeypatch, lambda text: True)
    with pytest.raises(PlanError, match=r"(?s)one_block: no sizes fit: forward.*it spills.*alternating: no sizes fit"):
        _ = views(zoo.lstm, H100, "float32", {"D": 64}).plain


def test_kernels_between_products_get_smaller_until_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = views(zoo.lstm, H100, "bfloat16", {"D": 1024})
    rejecting(monkeypatch, lambda text: "D_TILE = tl.constexpr(128)" in text)
    assert {view.sizes.columns for view in found.of("forward")} == {64}


def test_fewer_loads_then_a_smaller_tile_then_more_warps() -> None:
    found = [(s.stages, s.rows, s.columns, s.warps) for s in smaller(Sizes((("D", 64),), 32, 2, 8, 4))]
    assert found == [(4, 2, 32, 8), (2, 2, 32, 8), (1, 2, 32, 8), (1, 1, 32, 8), (1, 1, 16, 8), (1, 1, 16, 16)]


@pytest.mark.parametrize(
    "name, machine, dtype, schedule",
    [
        ("lstm", "h100_sxm", "bfloat16", "alternating"),
        ("layer_norm_lstm", "rtx5090", "float32", "alternating"),
        ("hgrn", "h100_sxm", "bfloat16", "scan"),
        ("rwkv4", "mi300x", "float32", "scan"),
    ],
)
def test_schedules_of_several_kernels_fit_the_machine(name: str, machine: str, dtype: str, schedule: str) -> None:
    found = Views(usual_calls(zoo.load(name), load(machine), dtype)[1])  # type: ignore[arg-type]  # plain text
    for kernels in (found.of("recording"), found.of("backward")):
        assert len(kernels) > 1
        for view in kernels:
            verdict = ask(source_of(view), load(machine))
            assert isinstance(verdict, Accepted) and verdict.resources.spill_bytes == 0
    assert found.recorded.chosen.choice.schedule == schedule
