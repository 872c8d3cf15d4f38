"""The machine files that come with rekern, and the ones that users write.

In: a name, or the path of a TOML file. Out: its `Machine`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.parse import closest, parse
from rekern.hwmodels.schema import Machine, Variant

FOLDER = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Names of the machines that come with rekern, sorted.

    >>> "h100_sxm" in names()
    True
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name: str | Path) -> Machine:
    """The machine of that name, or of the TOML file at that path.

    Args:
        name: One of `names()`, or a path that ends in `.toml`.

    Raises:
        MachineError: there is no such machine, or its file is damaged.

    >>> load("x86_avx512").cpu.float32_lanes
    16
    """
    if name in names():
        return packaged(str(name))[0]
    return parse(text_of(name), str(name))[0]


def text_of(name: str | Path) -> str:
    """The file of that machine, as a person wrote it.

    Raises:
        MachineError: there is no such machine, or its file cannot be read.
    """
    if name in names():
        return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix != ".toml":
        raise MachineError(
            f"no machine is named {str(name)!r}.{closest(str(name), names())}\n"
            f"known: {', '.join(names())}; or the path of a .toml file like theirs."
        )
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MachineError(f"cannot read the machine file {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MachineError(f"cannot read the machine file {str(path)!r}: it is not a text in UTF-8") from None


@cache
def packaged(name: str) -> tuple[Machine, tuple[Variant, ...]]:
    """A machine that comes with rekern, and those known to differ from it."""
    return parse(text_of(name), f"{name}.toml")
