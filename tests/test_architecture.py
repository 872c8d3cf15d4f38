"""Who may import whom: hwmodels <- solver <- compiler, no cycles, and an import that is light."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions

import pytest

from source_tree import ROOT, modules, pyproject

FRONT_END = (
    "ir", "rewrite", "trace", "spec", "rules", "analysis", "gradient", "reference", "functions", "math",
)
KNOWS_TARGETS = ("backends", "cli", "hwmodels", "printers", "render", "runtime", "schedules", "templates")
FOR_PEOPLE = tuple(f"printers.{p}" for p in ("text", "latex", "layout", "writer"))  # a spec prints itself

# Imports inside a function that would be a cycle at the top of the file: (importer, imported) -> why.
LATE: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Import:
    """One import as written: `target` is a module of ours where there is one of that name."""

    importer: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def type_checking_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that runs, at the top or in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and type_checking_only(node):
            for other in node.orelse:
                yield from import_nodes(ast.Module([other], []))
        else:
            yield from import_nodes(node)


def imports_of(importer: str, tree: ast.AST) -> Iterator[Import]:
    for node in import_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name, node.lineno) for alias in node.names)
        elif node.level:
            yield Import(importer, "." * node.level + (node.module or ""), node.lineno)
        else:
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(importer, inner if inner in modules() else node.module, node.lineno)


@cache
def imports() -> tuple[Import, ...]:
    trees = ((name, ast.parse(path.read_text(), filename=str(path))) for name, path in modules().items())
    return tuple(found for name, tree in trees for found in imports_of(name, tree))


def inside(module: str, *packages: str) -> bool:
    return any(module == p or module.startswith(p + ".") for p in packages)


@cache
def graph() -> dict[str, set[str]]:
    """Module -> modules of ours that it names. The packages above a named module are not counted."""
    edges: dict[str, set[str]] = {name: set() for name in modules()}
    for found in imports():
        if found.target in edges:
            edges[found.importer].add(found.target)
    return edges


def reached_from(starts: Iterable[str]) -> dict[str, str]:
    """Module -> the module through which it was first reached."""
    via = dict.fromkeys(starts, "")
    waiting = list(via)
    while waiting:
        here = waiting.pop()
        for target in graph()[here]:
            if target not in via:
                via[target] = here
                waiting.append(target)
    return via


def test_the_reader_of_imports_sees_functions_but_not_type_checking() -> None:
    text = """
        import a.b as c
        if TYPE_CHECKING:
            import hidden
        else:
            import shown
        def f():
            from d import e
            try:
                from . import g
            except ImportError: pass
    """
    found = imports_of("m", ast.parse(re.sub(r"^ {8}", "", text, flags=re.MULTILINE)))
    assert [i.target for i in found] == ["a.b", "shown", "d", "."]


def test_imports_are_absolute_and_name_submodules() -> None:
    wrong = [str(i) for i in imports() if i.target.startswith(".") or i.target == "rekern"]
    assert wrong == [], "write `from rekern.part import name`"


def test_every_imported_module_of_ours_exists() -> None:
    assert [str(i) for i in imports() if inside(i.target, "rekern") and i.target not in modules()] == []


def test_dependencies_point_one_way() -> None:
    def allowed(i: Import) -> bool:
        if inside(i.importer, "rekern.templates"):
            return False
        if inside(i.importer, "rekern.hwmodels"):
            return inside(i.target, "rekern.hwmodels")
        if inside(i.importer, "rekern.solver"):
            return inside(i.target, "rekern.solver", "rekern.hwmodels")
        return True

    wrong = [str(i) for i in imports() if inside(i.target, "rekern") and not allowed(i)]
    assert wrong == [], "hwmodels <- solver <- compiler"


def test_modules_do_not_import_each_other_in_a_cycle() -> None:
    edges = {name: {t for t in targets if (name, t) not in LATE} for name, targets in graph().items()}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_allowed_late_imports_are_late_and_still_there() -> None:
    top: set[tuple[str, str]] = set()
    for name in {importer for importer, _ in LATE}:
        body = ast.parse(modules()[name].read_text()).body
        direct = ast.Module([n for n in body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        top |= {(i.importer, i.target) for i in imports_of(name, direct)}
    assert set(LATE) & top == set()
    assert set(LATE) <= {(i.importer, i.target) for i in imports()}


def test_the_front_end_knows_no_target() -> None:
    front = [m for m in modules() if inside(m, *(f"rekern.{p}" for p in FRONT_END))]
    assert {m.split(".")[1] for m in front} == set(FRONT_END), "a front-end part was renamed: say so above"

    def forbidden(module: str) -> bool:
        parts = module.removeprefix("rekern.")
        return inside(parts, *KNOWS_TARGETS) and not inside(parts, *FOR_PEOPLE)

    wrong = [f"{m} through {via}" for m, via in reached_from(front).items() if forbidden(m)]
    assert wrong == []


def test_only_the_command_line_imports_typer_and_rich() -> None:
    def foreign(i: Import) -> bool:
        return inside(i.target, "typer", "rich", "click") and not inside(i.importer, "rekern.cli")

    assert [str(i) for i in imports() if foreign(i)] == []
    library = [m for m in modules() if not inside(m, "rekern.cli")]
    assert [m for m in reached_from(library) if inside(m, "rekern.cli")] == []


def test_everything_imported_is_declared() -> None:
    dependencies = pyproject()["project"]["dependencies"]
    declared = {re.split(r"[^\w.-]", d, maxsplit=1)[0].lower() for d in dependencies}
    owners = packages_distributions()

    def known(top: str) -> bool:
        ours = top == "rekern" or top in sys.stdlib_module_names
        return ours or any(owner.lower() in declared for owner in owners.get(top, []))

    assert sorted(str(i) for i in imports() if not known(i.target.split(".")[0])) == []


# torch and sympy come first: what they do at import is theirs.
LIGHT = """
import json, os, sys, torch, sympy
before = set(sys.modules)
acts = []
def watch(event, args):
    if event == "open":
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            acts.append(f"{event} {args[0]}")
    elif event.split(".")[0] in ("subprocess", "socket", "shutil", "tempfile", "ctypes") or event in (
        "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.putenv", "os.mkdir", "os.rename", "os.remove"
    ):
        acts.append(f"{event} {args}")
sys.addaudithook(watch)
import rekern
print(json.dumps({"acts": acts, "loaded": sorted(set(sys.modules) - before)}))
"""


def test_import_is_light_and_has_no_effects() -> None:
    """What costs time at import is other packages; a clock would measure the machine."""
    done = subprocess.run([sys.executable, "-B", "-c", LIGHT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["acts"] == []
    theirs = {m.split(".")[0] for m in seen["loaded"]} - set(sys.stdlib_module_names) - {"rekern", "torch"}
    slow = [m for m in seen["loaded"] if m in ("torch._dynamo", "torch._inductor")]
    assert sorted(theirs) + slow == [], "import these where they are used"
