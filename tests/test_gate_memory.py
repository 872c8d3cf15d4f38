"""Answers of compilers, kept between processes: whole or not at all, and never of another question."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from gate_kernels import product
from rekern.backends.offline import CudaSource, Resources, Source, from_json, identity, to_json
from rekern.entries import read_entry, write_entry
from rekern.gate.memory import Question, recall, store

FOUND = Resources(98_304, 222, 0, 0, 0, 128, (("HGMMA", 8),))
ASKED = Question(product(), "sm_90", "triton 3.7.0, ptxas 12.8", True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))


def entry(folder: Path) -> Path:
    (path,) = (folder / "gate").glob("*.json")
    return path


def test_an_answer_comes_back() -> None:
    assert recall(ASKED) is None
    store(ASKED, FOUND)
    assert recall(ASKED) == FOUND


def test_a_message_of_the_compiler_comes_back() -> None:
    store(ASKED, "at 3:4: no")
    assert recall(ASKED) == "at 3:4: no"


@pytest.mark.parametrize(
    "other",
    [
        ASKED._replace(source=product(stages=3)),
        ASKED._replace(source=product(warps=8)),
        ASKED._replace(architecture="sm_100"),
        ASKED._replace(toolchain="triton 3.9.0, ptxas 12.8"),
        ASKED._replace(disassemble=False),
    ],
    ids=["stages", "warps", "architecture", "toolchain", "disassemble"],
)
def test_another_question_has_no_answer(other: Question) -> None:
    store(ASKED, FOUND)
    assert recall(other) is None


def test_the_entry_can_be_read_by_a_person(tmp_path: Path) -> None:
    store(ASKED, FOUND)
    data = json.loads(entry(tmp_path).read_text())
    assert data["key"]["kernel"] == "matmul(BM=64, BN=32, BK=32), 4 warps, 2 stages"
    assert data["key"]["toolchain"] == "triton 3.7.0, ptxas 12.8"
    assert data["values"]["resources"]["registers"] == 222


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("98304", "98305"),
        lambda text: text.replace("sm_90", "sm_91"),
        lambda text: "\0" * len(text),
    ],
    ids=["truncated", "empty", "a list", "another number", "another key", "zeros"],
)
def test_a_damaged_entry_is_ignored_with_a_warning(damage: Callable[[str], str], tmp_path: Path) -> None:
    store(ASKED, FOUND)
    path = entry(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match=r"the answer of a compiler .* is damaged; it is ignored and made again"):
        assert recall(ASKED) is None
    store(ASKED, FOUND)
    assert recall(ASKED) == FOUND


def test_an_entry_of_bytes_that_are_no_text_is_ignored(tmp_path: Path) -> None:
    store(ASKED, FOUND)
    entry(tmp_path).write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="is damaged"):
        assert recall(ASKED) is None


@pytest.mark.parametrize("values", [{}, {"resources": {"registers": 3}}, {"resources": 3}], ids=str)
def test_a_whole_entry_with_other_fields_is_ignored(values: dict[str, object], tmp_path: Path) -> None:
    write_entry(tmp_path / "gate", ASKED.key(), values)
    with pytest.warns(UserWarning, match="is damaged"):
        assert recall(ASKED) is None


def test_a_folder_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "gate").write_text("a file where the folder should be")
    store(ASKED, FOUND)
    assert recall(ASKED) is None


def write_many(folder: str) -> int:
    """Write and read one entry over and over; the number of reads that found something else."""
    wrong = 0
    for i in range(200):
        write_entry(Path(folder), {"key": 1}, {"value": i})
        found = read_entry(Path(folder), {"key": 1}, "entry")
        wrong += found is None or not 0 <= found["value"] < 200
    return wrong


def test_processes_that_write_the_same_entry_never_see_half_of_it(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(write_many, [str(tmp_path)] * 4)) == [0] * 4
    assert [p.suffix for p in tmp_path.iterdir()] == [".json"]


@pytest.mark.parametrize("source", [product(), CudaSource("text", "k", 64, 1024, ("-DN=1",))], ids=["triton", "cuda"])
def test_sources_survive_json(source: Source) -> None:
    assert from_json(json.loads(json.dumps(to_json(source)))) == source


def test_identity_depends_on_the_text() -> None:
    assert identity(product()) == identity(product()) != identity(product(bk=64))
