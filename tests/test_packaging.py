"""The wheel holds what the folders hold, under the names that users import."""

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest

import rekern
from source_tree import PACKAGES, ROOT, files, modules, pyproject


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that no build folder of an earlier tree leaks in or stays behind."""
    tree = tmp_path_factory.mktemp("tree")
    top = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for path in [p for p in top if p.exists()] + [p for folder in PACKAGES.values() for p in files(folder)]:
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (tree / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def about(wheel: zipfile.ZipFile) -> Message:
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return message_from_string(wheel.read(name).decode())


def test_the_wheel_holds_the_folders_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {
        f"{package.replace('.', '/')}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in files(folder)
    }
    held = {n for n in wheel.namelist() if ".dist-info/" not in n}
    assert sorted(expected - held) == [], "not in the wheel: see packages and package-data in pyproject.toml"
    assert sorted(held - expected) == []


def test_the_wheel_carries_its_licence(wheel: zipfile.ZipFile) -> None:
    (name,) = (n for n in wheel.namelist() if n.endswith("/LICENSE"))
    assert wheel.read(name) == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_shows_the_readme(about: Message) -> None:
    readme = (ROOT / "README.md").read_text()
    assert about.get_payload().strip() == readme.strip(), 'pyproject.toml needs readme = "README.md"'


def test_every_folder_with_modules_is_a_listed_package() -> None:
    found = {
        name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in modules().items()
    }
    setuptools = pyproject()["tool"]["setuptools"]
    assert sorted(found) == sorted(setuptools["packages"])
    assert sorted(found) == sorted(setuptools["package-dir"])
    assert {name for name in found if name not in modules()} == set(), "a package needs an __init__.py"


def test_all_places_agree_on_the_version(about: Message) -> None:
    version = pyproject()["project"]["version"]
    assert about["Version"] == version
    assert metadata.version("rekern") == version, "reinstall: pip install -e '.[test]'"
    assert rekern.__version__ == version
    releases = re.findall(r"^## \[?(\d[^\] ]*)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert releases[0] == version


def test_the_command_is_declared_and_its_module_is_there(wheel: zipfile.ZipFile) -> None:
    (name,) = (n for n in wheel.namelist() if n.endswith("/entry_points.txt"))
    assert "rekern = rekern.cli.main:main" in wheel.read(name).decode().splitlines()
    assert "rekern/cli/main.py" in wheel.namelist()


def test_the_installed_package_runs_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rekern; print(rekern.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "rekern" / "__init__.py"
