"""FlashRNN's constraint system restated, and the benchmark of the solver."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from rekern.hwmodels import load
from rekern.solver import solve

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
BACKENDS = ("native", "cpsat", "python_constraint")


def script(name: str) -> ModuleType:
    """A file of `benchmarks/`, which import each other as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return importlib.import_module(name)


SYSTEM = script("flashrnn_system")
H100 = load("h100_sxm").gpu
COUNTS = [
    pytest.param(*key, marks=[pytest.mark.slow] if backward > 6_000 else [])
    for key, (_, backward) in SYSTEM.POINTS.items()
    if backward < 15_000
]


@pytest.mark.parametrize("heads, dim, batch", COUNTS)
@pytest.mark.parametrize("forward", (True, False))
def test_flashrnn_has_the_published_number_of_points(heads: int, dim: int, batch: int, forward: bool) -> None:
    case = SYSTEM.Case(heads, dim, batch, forward)
    found = len(solve(SYSTEM.published(case, H100), 100_000))
    assert found == SYSTEM.POINTS[heads, dim, batch][not forward]
    assert 0 < len(solve(SYSTEM.corrected(case, H100), 100_000)) < found


@pytest.mark.slow
@pytest.mark.parametrize("forward", (True, False))
def test_back_ends_agree_on_flashrnn(forward: bool) -> None:
    problem = SYSTEM.published(SYSTEM.Case(12, 64, 16, forward), H100)
    native, *others = (solve(problem, 3, backend=backend) for backend in BACKENDS)
    assert all(found == native for found in others)
    # One block a head needs no grid barrier, and that is what makes the step short.
    assert native[0].values["output_blocks"] == native[0].values["k_blocks"] == 1


def test_the_corrected_system_counts_every_register() -> None:
    case = SYSTEM.Case(1, 768, 256, False)
    published, corrected = (solve(state(case, H100)) for state in (SYSTEM.published, SYSTEM.corrected))
    # The loop over outputs, which the published count leaves out, is what fills the registers of a thread.
    assert corrected.slack["thread_registers"].used <= 255
    c = SYSTEM.Choice.of(case, H100)
    loop = c.output_loop.subs({v.symbol: published.values[v.name] for v in c.variables})
    held = published.values["cached"] * SYSTEM.TILE_K * published.values["tile_outputs"] * loop
    assert held / 2 / H100.warp_threads > 255


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "machine" / "solver.json"
    assert script("solver").main(["--quick", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert [row["variant"] for row in report["flashrnn"]] == ["published", "corrected"]
    for row in report["flashrnn"]:
        assert row["agree"] and row["backends"].keys() == {*BACKENDS}
        assert all(one["outcome"] == "proven" and one["cpu_seconds"][0] > 0 for one in row["backends"].values())
    assert report["zoo"]["unproven"] == [] and report["zoo"]["solved"]["count"] > 0
    assert {"ortools", "python-constraint2", "cpu", "python"} <= report["machine"].keys()
    assert "python_constraint" in capsys.readouterr().out


def test_what_misses_a_goal_is_listed() -> None:
    def row(native: float, cpsat: float, other: float, agree: bool = True) -> dict[str, object]:
        times = zip(BACKENDS, (native, cpsat, other), strict=True)
        one = {name: {"cpu_seconds": [t], "outcome": "proven", "shown": f"{t} s"} for name, t in times}
        return {"case": "c", "variant": "v", "agree": agree, "backends": one}

    def missed(*rows: dict[str, object], **zoo: object) -> list[str]:
        return list(script("solver").below_goal({"flashrnn": rows, "zoo": zoo}))

    assert missed(row(0.01, 0.1, 0.01)) == []
    assert missed(row(0.2, 3.0, 1.0)) == ["c, v: 0.2 s, goal 100 ms"]
    assert missed(row(0.01, 0.05, 0.02)) == ["c, v: 5.00x the slower, 2.00x the faster"]
    assert missed(row(0.01, 0.2, 0.005)) == ["c, v: 20.0x the slower, 0.50x the faster"]
    assert missed(row(0.01, 0.1, 0.01, agree=False)) == ["c, v: proven, same answer: False"]
    slow = {"median": 0.02, "p99": 0.05}
    assert missed(unproven=["x"], solved=slow) == ["zoo: 1 not proven, such as x", "zoo: median 20.0 ms, goal 10.0 ms"]
