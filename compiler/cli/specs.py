"""How a recurrence is named on the command line.

In: `gla`, or `path/to/file.py:name`. Out: the `Recurrence`. A file is run as Python, once; what goes wrong in it is
quoted.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from rekern import zoo
from rekern.errors import SpecError
from rekern.spec import Recurrence

ZOO_BINDINGS: Mapping[str, Mapping[str, int]] = {"gated_delta_product": {"n": 2}}  # specs that need one


def find(name: str, bind: Mapping[str, int] | None = None) -> Recurrence:
    """The recurrence that `name` names, with the axes of `bind` made literal.

    Raises:
        SpecError: there is no such file or name, the file fails, or what it has there is not a recurrence.
    """
    path, colon, attribute = name.rpartition(":")
    if colon:
        spec, usual = from_file(Path(path), attribute), {}
    elif name.endswith(".py"):
        found = ", ".join(_recurrences(_module(Path(name))))
        raise SpecError(f"{name} is a file; name the recurrence in it: {name}:NAME\nit has {found or 'none'}")
    else:
        spec = zoo.load(name)
        usual = dict(ZOO_BINDINGS.get(spec.name, {}))
    sizes = {**usual, **(bind or {})}
    return spec.bind(**sizes) if sizes else spec


def from_file(path: Path, name: str) -> Recurrence:
    """The recurrence `name` of a Python file."""
    module = _module(path)
    found = getattr(module, name, None)
    if isinstance(found, Recurrence):
        return found
    known = _recurrences(module)
    has = f"it has {', '.join(known)}" if known else "it has no recurrence; decorate a step with @rekern.recurrence"
    if found is not None:
        kind = "a function" if callable(found) and not isinstance(found, type) else f"a {type(found).__name__}"
        raise SpecError(f"{name!r} in {path} is {kind}, not a recurrence\n{has}")
    close = difflib.get_close_matches(name, known, n=1)
    raise SpecError(f"{path} has no {name!r}" + (f"; did you mean {close[0]!r}?" if close else "") + f"\n{has}")


def _recurrences(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, Recurrence)]


@cache
def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise SpecError(f"there is no file {str(path)!r}\na spec is a name of the zoo, or path/to/file.py:name")
    name = f"rekern_spec_{path.stem}"
    described = importlib.util.spec_from_file_location(name, path)
    if described is None or described.loader is None:
        raise SpecError(f"{str(path)!r} is not a Python file\na spec is a name of the zoo, or path/to/file.py:name")
    module = importlib.util.module_from_spec(described)
    # As when a script is run: the file finds its neighbours, and what it defines can be looked up again.
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        described.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SpecError(f"cannot run {path}: {type(error).__name__}: {error}{_quoted(path, error)}") from None
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _quoted(path: Path, error: BaseException) -> str:
    """The innermost line of the file that was running."""
    if isinstance(error, SyntaxError):
        return f"\n    {(error.text or '').strip()}\nline {error.lineno} of {error.filename}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()]
    return f"\n    {frames[-1].line}\nline {frames[-1].lineno} of {path}" if frames else ""


def lengths(pairs: Sequence[str], spec: Recurrence | None = None) -> dict[str, int]:
    """`["K=64", "V=64"]` as numbers, and with `spec`: only axes that it has.

    >>> lengths(["K=64", "V=128"])
    {'K': 64, 'V': 128}

    Raises:
        ValueError: a pair is not AXIS=LENGTH, or the length is not a whole number from 1 on.
        SpecError: `spec` has no such axis.
    """
    found = {}
    for pair in pairs:
        axis, equals, text = pair.partition("=")
        if not (equals and axis.isidentifier() and text.isdigit() and int(text) > 0):
            raise ValueError(f"{pair!r} is not AXIS=LENGTH, as in K=64")
        if spec is not None and axis not in spec.axes:
            bound = " (bound already)" if axis in dict(spec.bindings) else ""
            raise SpecError(f"{spec.name} has no axis {axis!r}{bound}; it has {', '.join(spec.axes) or 'none'}")
        found[axis] = int(text)
    return found
