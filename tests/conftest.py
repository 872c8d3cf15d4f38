"""For all tests: the session's own cache folder, repeatable examples, golden files, no need of a GPU."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

GOLDEN = Path(__file__).parent / "golden"
CACHE_DIR = pytest.StashKey[str]()

# Threads that spin while they wait starve the other xdist worker.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# readline tells the workers of xdist that there are 80 columns; output that is piped is wide.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

# Same examples on every run; --hypothesis-profile=thorough looks further, at random.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files; then read the diff")
    parser.addoption("--every-float", action="store_true", help="walk all 2^32 floats in test_cpp_floats.py")


def is_xdist_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """One cache a session: workers inherit the environment, so each kernel is compiled once."""
    if not is_xdist_worker(config):
        config.stash[CACHE_DIR] = tempfile.mkdtemp(prefix="rekern-tests-")
        os.environ["REKERN_CACHE_DIR"] = config.stash[CACHE_DIR]


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE_DIR in config.stash:
        shutil.rmtree(config.stash[CACHE_DIR], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wants_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if wants_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in wants_gpu:
                item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Folder that this session's kernels and plans are kept in, shared by all workers."""
    return Path(os.environ["REKERN_CACHE_DIR"])


class Golden:
    """Compares a text with the one that a person has read: `golden(text)`, `golden(text, "forward.cpp")`.

    The file is tests/golden/<test module>/<test name>[.<name>], `.txt` where the name has no suffix.
    """

    def __init__(self, folder: Path, test: str, update: bool) -> None:
        self.folder, self.test, self.update = folder, test, update

    def __call__(self, text: str, name: str = "txt") -> None:
        path = self.folder / f"{self.test}.{name}"
        text = text.rstrip("\n") + "\n"
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"{path} is missing: pytest --update-golden writes it; then read it"
        assert text == path.read_text(), f"{path.name} differs: pytest --update-golden, then read the diff"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    test = re.sub(r"[^\w.=-]+", "-", request.node.name).strip("-").removeprefix("test_")
    return Golden(GOLDEN / request.path.stem, test, request.config.getoption("--update-golden"))
