"""What a pass takes, remembered beside its library: found without a source, and never in the place of another."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from rekern import plans, zoo
from rekern.backends.cpp import Toolchain
from rekern.digests import digest_of_files
from rekern.errors import BuildError
from rekern.runtime import passes
from rekern.runtime.execute import CpuExecutor
from rekern.runtime.passes import find, from_json, interface_of, to_json, view
from rekern.schedules.passes import CpuSizes, Pass, PassName
from rekern.schedules.programs import Programs, programs
from rekern.spec import derived
from source_tree import modules
from test_architecture import inside, reached_from

SIZES = CpuSizes("float", 32, 0, 16)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The sources that are made, in a store of its own; nothing is compiled: every library is this process."""
    made: list[str] = []

    def seen(programs: Programs, sizes: CpuSizes, name: PassName) -> Pass:
        made.append(f"{programs.spec.name} {name}")
        return view(programs, sizes, name)

    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(passes, "view", seen)
    monkeypatch.setattr(passes, "load", lambda source: None)
    monkeypatch.setattr(passes, "stored", lambda name: object())
    return made


def test_what_was_built_is_found_without_its_source(sources: list[str]) -> None:
    for name in ("recording", "backward"):
        first = find(programs(zoo.lstm), SIZES, name).result()
        again = find(programs(zoo.lstm), SIZES, name).result()
        made = programs(zoo.lstm)
        assert again.interface == first.interface == interface_of(made, view(made, SIZES, name))
    assert sources == ["lstm recording", "lstm backward"]


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], tuple[Programs, CpuSizes, PassName]]] = {
    "another pass": lambda m: (programs(zoo.hgrn), SIZES, "backward"),
    "another spec": lambda m: (programs(zoo.min_gru), SIZES, "forward"),
    "another name": lambda m: (
        programs(derived("other", zoo.hgrn.operands, zoo.hgrn.step)), SIZES, "forward",
    ),
    "other sizes": lambda m: (programs(zoo.hgrn), CpuSizes("double", 32, 0, 16), "forward"),
    "another generator": lambda m: (
        m.setattr(passes, "generator", lambda: "other") or programs(zoo.hgrn), SIZES, "forward",
    ),
    "another compiler": lambda m: (
        m.setattr(passes, "toolchain", lambda: Toolchain("c++", "9", ("-O1",))) or programs(zoo.hgrn), SIZES, "forward",
    ),
    "another processor": lambda m: (
        m.setattr(passes, "processor", lambda: "other") or programs(zoo.hgrn), SIZES, "forward",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_source_is_in_the_key(
    change: str, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find(programs(zoo.hgrn), SIZES, "forward").result()
    find(programs(zoo.hgrn), SIZES, "forward").result()
    assert len(sources) == 1
    find(*CHANGES[change](monkeypatch)).result()
    assert len(sources) == 2


def test_all_that_makes_sources_is_in_the_digest(tmp_path: Path) -> None:
    """Every module that is reached from where passes are made, and every template of C++."""
    hashed = {p.resolve() for p in passes.generator_files()}
    machine = ("rekern.hwmodels", "rekern.solver")  # what they choose is in the sizes
    reached = {m for m in reached_from(["rekern.runtime.passes"]) if not inside(m, *machine)}
    assert {m for m in reached if modules()[m].resolve() not in hashed} == set()
    assert {p.name for p in hashed if p.suffix == ".j2"} >= {"pass.cpp.j2", "forward.cpp.j2", "arrays.h.j2"}
    code = tmp_path / "code.py"
    code.write_text("one")
    before = digest_of_files([code])
    code.write_text("two")
    assert digest_of_files([code]) != before


def test_all_that_chooses_sizes_is_in_the_digest_of_plans() -> None:
    hashed = {p.resolve() for p in plans.generator_files()}
    chooses = ("rekern.schedules.cpu", "rekern.solver", "rekern.hwmodels")
    assert {m for m, path in modules().items() if inside(m, *chooses) and path.resolve() not in hashed} == set()


@pytest.mark.parametrize("text", ["{ half", '{"slots": 3}', "[]"])
def test_a_damaged_entry_is_made_again_with_one_warning(text: str, sources: list[str], tmp_path: Path) -> None:
    find(programs(zoo.hgrn), SIZES, "forward").result()
    (entry,) = (tmp_path / "passes").glob("*.json")
    entry.write_text(text)
    with pytest.warns(UserWarning, match="is damaged; it is ignored and made again"):
        find(programs(zoo.hgrn), SIZES, "forward").result()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find(programs(zoo.hgrn), SIZES, "forward").result()
    assert len(sources) == 2


def test_an_entry_of_another_form_is_made_again(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole by its checksum, and still not what is expected."""
    with monkeypatch.context() as other:
        other.setattr(passes, "to_json", lambda interface: {"slots": [["input"]]})
        find(programs(zoo.hgrn), SIZES, "forward").result()
    with pytest.warns(UserWarning, match="is damaged"):
        found = find(programs(zoo.hgrn), SIZES, "forward").result()
    assert len(sources) == 2 and len(found.interface.slots) > 1


def test_an_interface_is_the_same_after_json() -> None:
    for name in ("lstm", "gla", "layer_norm_lstm"):
        made = programs(zoo.load(name))
        for part in ("forward", "step", "backward"):
            interface = interface_of(made, view(made, SIZES, part))
            assert from_json(json.loads(json.dumps(to_json(interface)))) == interface


def test_a_pass_that_cannot_be_built_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REKERN_CACHE_DIR", str(tmp_path))
    tries: list[int] = []

    def fails(source: object) -> None:
        tries.append(1)
        raise BuildError("no")

    monkeypatch.setattr(passes, "load", fails)
    executor = CpuExecutor(programs(zoo.hgrn))
    for count in (1, 2):
        with pytest.raises(BuildError, match="no"):
            executor.need(SIZES, "forward")
        assert len(tries) == count


AGAIN = """
import sys, torch, rekern as rk
from rekern.runtime import passes
def never(*given): raise AssertionError("a source was made")
if sys.argv[1] == "again": passes.view = never
x = torch.rand(1, 5, 1, 8, requires_grad=True)
out, _ = rk.compile(rk.zoo.gla)(q=x, k=x, v=x, g=-x)
out.sum().backward()
print([m for m in ("jinja2", "rekern.solver", "ortools") if m in sys.modules])
"""


def test_the_next_process_neither_solves_nor_renders(tmp_path: Path) -> None:
    environment = {**os.environ, "REKERN_CACHE_DIR": str(tmp_path)}
    for turn in ("first", "again"):
        command = [sys.executable, "-c", AGAIN, turn]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == []
