"""A machine from the text of its TOML file.

In: the text. Out: a `Machine`. A misspelt key, a missing one, a wrong type or unit, a number without a source:
each is an error that names the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rekern.hwmodels.cpu import Cpu
from rekern.hwmodels.errors import MachineError
from rekern.hwmodels.gpu import Gpu
from rekern.hwmodels.schema import Machine, Variant
from rekern.hwmodels.sources import check_sources

TABLES: Mapping[str, type[Cpu | Gpu]] = {"cpu": Cpu, "gpu": Gpu}
T = TypeVar("T")


def parse(text: str, source: str) -> tuple[Machine, tuple[Variant, ...]]:
    """A machine and its variants from the text of a TOML file.

    The keys of [cpu.measured] are keys of [cpu]: the table says that a command was run for them. So for [gpu].

    Args:
        source: What an error calls the file.

    Raises:
        MachineError: the text is no TOML, or not a machine.
    """
    try:
        data = tomllib.loads(text)
        entries = data.pop("variant", [])
        for name, cls in TABLES.items():
            if isinstance(data.get(name), dict):
                data[name] = _build(cls, _with_measured(data[name], name), f"[{name}]")
        machine = _build(Machine, data, "the file")
        variants = tuple(_variant(entry, machine) for entry in entries)
        check_sources(text)
        return machine, variants
    except (tomllib.TOMLDecodeError, MachineError) as error:
        raise MachineError(f"{source}: {error}") from None


def closest(name: str, known: Iterable[str]) -> str:
    """A question that names the closest known name, or ''."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _with_measured(table: dict[str, Any], name: str) -> dict[str, Any]:
    stated = {key: value for key, value in table.items() if key != "measured"}
    measured = _as_table(table.get("measured", {}), f"[{name}.measured]")
    for key in measured:
        if key in stated:
            raise MachineError(f"{key!r} is in [{name}] and again in [{name}.measured]")
    return {**stated, **measured}


def _variant(entry: object, machine: Machine) -> Variant:
    entry = _as_table(entry, "variant")
    check_keys(("name", "match", "cpu"), entry, "[[variant]]", required=("name", "match", "cpu"))
    if machine.cpu is None:
        raise MachineError("[[variant]] needs a [cpu] to differ from")
    differs = _as_table(entry["cpu"], "[variant.cpu]")
    check_keys([f.name for f in dataclasses.fields(Cpu)], differs, "[variant.cpu]")
    fields = _as_table(entry["match"], "match of [[variant]]")
    match = {field: (words,) if isinstance(words, str) else tuple(words) for field, words in fields.items()}
    return Variant(str(entry["name"]), match, dataclasses.replace(machine.cpu, **differs))


def _as_table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MachineError(f"{where} = {value!r}, expected a table")
    return value


def _build(cls: type[T], data: dict[str, Any], where: str) -> T:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # every section is a dataclass
    required = [f.name for f in fields if f.default is dataclasses.MISSING]
    check_keys([f.name for f in fields], data, where, required)
    return cls(**data)


def check_keys(
    known: Sequence[str], data: Mapping[str, object], where: str, required: Sequence[str] = ()
) -> None:
    """Every key of `data` is known, and every required one is there.

    Raises:
        MachineError: otherwise; it names the closest known key.
    """
    for key in data:
        if key not in known:
            hint = closest(key, known) or f" Keys: {', '.join(known)}."
            raise MachineError(f"{where} has no key {key!r}.{hint}")
    missing = [key for key in required if key not in data]
    if missing:
        raise MachineError(f"{where} lacks {', '.join(map(repr, missing))}")
