"""The gate: a verdict on each candidate in order, whatever a compiler does, and nothing left behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gate_kernels import CRASHES, GREEDY, HANGS, NO_PRODUCT, SLEEP, SPILLS, TOO_LARGE, WRONG, candidate, product
from rekern.backends.offline import Resources, to_json
from rekern.errors import BuildError, PlanError
from rekern.gate import run as gate_run
from rekern.gate import worker
from rekern.gate.processes import CompilerProcess, Died, Late
from rekern.gate.run import gate
from rekern.gate.verdicts import Accepted, Candidate, Failed, NotNeeded, Rejected, TimedOut, Verdict, judge
from rekern.hwmodels import load

H100 = load("h100_sxm")
PATIENCE = 120.0    # seconds; a busy machine is no fault
FITS = candidate()
FITS_TOO = candidate(product(64, 64, 32))


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty memory, and a folder for temporary files that has to be empty afterwards; no process is left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield
    assert list(temporary.iterdir()) == []
    assert children() == []


def children() -> list[str]:
    """Processes below this one, zombies too, but for those that pytest-xdist and multiprocessing keep."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    ours = [row for row in rows if int(row[1]) == os.getpid() or row[2] == SLEEP]
    return [row[2] for row in ours if not row[2].startswith("ps ") and "multiprocessing" not in row[2]]


def kinds(verdicts: tuple[Verdict, ...]) -> list[type]:
    return [type(v) for v in verdicts]


def test_every_fault_costs_its_candidate_only() -> None:
    candidates = [TOO_LARGE, SPILLS, CRASHES, WRONG, GREEDY, NO_PRODUCT, FITS]
    verdicts = gate(candidates, H100, timeout=PATIENCE, workers=2)
    expected = [Rejected, Rejected, Failed, Failed, Failed, Rejected, Accepted]
    assert kinds(verdicts) == expected, [str(v) for v in verdicts]
    large, spills, crashes, wrong, greedy, no_product, _ = map(str, verdicts)
    assert large == "rejected: shared_memory: needs 262,144 bytes, one block of h100_sxm has 232,448"
    assert spills.startswith("rejected: spills: a thread spills ")
    assert crashes.startswith("failed: the compiler died: SIGSEGV")
    assert wrong.startswith("failed: Triton cannot compile matmul(BM=64, BN=32, BK=32), 4 warps, 2 stages\n    at 14:")
    assert wrong.endswith("has no attribute 'dott'\")")
    assert greedy == "failed: the compiler died: out of memory"
    reason = "no tensor-core instruction in a kernel whose plan counts on them"
    assert no_product == f"rejected: matrix_units: {reason}"


def test_one_that_hangs_is_ended_with_all_that_it_started() -> None:
    (verdict,) = gate([HANGS], H100, timeout=3)
    assert str(verdict).startswith("timed out after 3.")
    assert sleepers(SLEEP) == []


def test_a_compiler_that_was_stopped_serves_the_next_candidate(tmp_path: Path) -> None:
    process = CompilerProcess(tmp_path / "process", 8 << 30)
    try:
        with pytest.raises(Late):
            process.ask(question(HANGS), time.monotonic() + 3, threading.Event())
        with pytest.raises(Died, match="SIGSEGV"):
            process.ask(question(CRASHES), time.monotonic() + PATIENCE, threading.Event())
        assert "resources" in process.ask(question(FITS), time.monotonic() + PATIENCE, threading.Event())
    finally:
        process.end()


def question(c: Candidate) -> dict[str, object]:
    return {"source": to_json(c.source), "architecture": "sm_90", "disassemble": True}


def test_it_stops_when_enough_are_accepted_in_order_of_rank() -> None:
    verdicts = gate([WRONG, FITS, FITS_TOO, HANGS], H100, timeout=PATIENCE, workers=2, enough=1)
    assert kinds(verdicts) == [Failed, Accepted, NotNeeded, NotNeeded]


def test_a_later_one_that_is_accepted_sooner_does_not_win() -> None:
    slow = candidate(before="import time; time.sleep(6)")
    verdicts = gate([slow, FITS], H100, timeout=PATIENCE, workers=2, enough=1)
    assert kinds(verdicts) == [Accepted, NotNeeded]


def test_the_deadline_of_all_holds() -> None:
    start = time.monotonic()
    verdicts = gate([HANGS, HANGS, FITS], H100, deadline=1.5, workers=1)
    assert time.monotonic() - start < 10
    assert kinds(verdicts) == [TimedOut] * 3
    assert str(verdicts[2]) == "timed out before its turn"


def test_the_same_question_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = gate([WRONG, FITS], H100, timeout=PATIENCE)
    monkeypatch.setattr(gate_run, "_serve", lambda *_: pytest.fail("a compiler was started"))
    again = gate([WRONG, FITS], H100, timeout=PATIENCE)
    assert [str(v) for v in again] == [str(v) for v in first]
    assert all(isinstance(v, Accepted | Failed) and v.remembered for v in again)
    # another machine of the same architecture has other limits, and needs no compiler either
    assert kinds(gate([FITS], load("h200_sxm"))) == [Accepted]


def test_a_new_toolchain_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gate([FITS], H100, timeout=PATIENCE)
    monkeypatch.setattr(gate_run, "toolchain_of", lambda *_: "triton 3.99")
    (verdict,) = gate([FITS], H100, timeout=PATIENCE)
    assert isinstance(verdict, Accepted) and not verdict.remembered


@pytest.mark.parametrize("dies", [CRASHES, GREEDY], ids=["crashes", "greedy"])
def test_a_death_is_not_remembered(dies: Candidate) -> None:
    """It may be the machine's fault."""
    for _ in range(2):
        (verdict,) = gate([dies], H100, timeout=PATIENCE)
        assert isinstance(verdict, Failed) and not verdict.remembered


def test_a_lack_of_memory_in_ptxas_is_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise BuildError("Triton cannot compile k\n    ptxas fatal   : Memory allocation failure")

    monkeypatch.setattr("rekern.backends.compile.compile_source", full)
    assert worker.answer(question(FITS)) == {"died": "out of memory"}


def test_settings_of_triton_in_the_environment_do_not_reach_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_PTXAS_PATH", "/nowhere/ptxas")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert kinds(gate([FITS], H100, timeout=PATIENCE)) == [Accepted]


def test_no_candidates_no_verdicts() -> None:
    assert gate([], H100) == ()


def test_a_cpu_is_refused() -> None:
    with pytest.raises(PlanError, match="x86_avx2 is no GPU"):
        gate([FITS], load("x86_avx2"))


# A shell that runs the tests in the background makes its children ignore interrupts.
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from gate_kernels import HANGS, SLEEP
from rekern.gate.run import gate
from rekern.hwmodels import load
print(SLEEP, flush=True)
gate([HANGS, HANGS], load("h100_sxm"), timeout=600, workers=2)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_compilers_end_with_the_process_that_asked(how: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parent)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        try:
            sleep = process.stdout.readline().decode().strip()
            wait_for(lambda: len(sleepers(sleep)) == 2)
            process.send_signal(how)
            process.wait(20)
        finally:
            process.kill()
    wait_for(lambda: sleepers(sleep) == [])


def sleepers(command: str) -> list[str]:
    listed = subprocess.run(["ps", "-e", "-o", "stat=,args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.endswith(f" {command}") and line[0] != "Z"]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


# -- judging, without a compiler -----------------------------------------------------------------------------

SMALL = Resources(1024, 64, 0, 0, 0, 128, (("HGMMA", 1),))


def with_resources(**changes: object) -> Resources:
    return Resources.from_json(SMALL.as_json() | changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shared_bytes": 232_449}, "shared_memory: needs 232,449 bytes, one block of h100_sxm has 232,448"),
        ({"threads": 1088, "registers": 32}, "threads: needs 1,088 threads, one block of h100_sxm has 1,024"),
        ({"registers": 129, "threads": 512}, "registers: needs 69,632 registers, one block of h100_sxm has 65,536"),
        ({"spill_bytes": 168}, "spills: a thread spills 168 bytes"),
    ],
)
def test_every_limit_is_named_with_both_numbers(changes: dict[str, object], text: str) -> None:
    assert str(judge(FITS, with_resources(**changes), H100)) == f"rejected: {text}"


def test_what_is_exactly_at_the_limit_is_accepted() -> None:
    assert isinstance(judge(FITS, with_resources(shared_bytes=232_448, registers=128, threads=512), H100), Accepted)


def test_a_plan_without_products_needs_no_matrix_units() -> None:
    plain = Candidate(product(), matrix_units=False)
    assert isinstance(judge(plain, with_resources(matrix_instructions={}), H100), Accepted)


def test_tensor_memory_is_a_limit_where_there_is_some() -> None:
    verdict = judge(FITS, with_resources(tensor_memory_columns=768), load("b200"))
    assert str(verdict) == "rejected: tensor_memory: needs 768 columns, one block of b200 has 512"


def test_candidates_are_values() -> None:
    assert pickle.loads(pickle.dumps(FITS)) == FITS == candidate() != FITS_TOO
