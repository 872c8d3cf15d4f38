"""What is known of a machine: frozen tables, and how they are read from TOML.

In: the text of a TOML file. Out: a `Machine`. A misspelt key, a missing one, a wrong type, a size of 0: each
is an error that names the key. The unit is in the key; what is unknown is absent.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from rekern.hwmodels.errors import MachineError

Scalar = bool | int | float | str
T = TypeVar("T")


class Level(NamedTuple):
    """A level of memory as one core sees it: its size (None: as large as needed) and how fast it is read."""

    name: str
    bytes: int | None
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU as one of its cores sees it. Rates are what code reaches, not peaks of a data sheet.

    Args:
        isa: Instruction set, as `platform.machine()` calls it on Linux.
        vector_bytes: Width of a vector register that code should use.
        vector_registers: Vector registers that code can name.
        fma_per_cycle: Fused multiply-adds of whole vectors of float32, for one core.
        clock_hz: Under vector load, for one core.
        cores: Cores to run on; threads that share a core count once.
        line_bytes: A cache line.
        l1_bytes: Data cache of one core.
        l2_bytes: Share of one core, if several share it.
        l3_bytes_per_core: Share of one core.
        l1_bytes_per_cycle: Reads by one core; l2_bytes_per_cycle, l3_bytes_per_s and dram_bytes_per_s too.
        dram_stream_bytes_per_s: Reads and streaming stores together, two reads a store, by one core.
        barrier_seconds: A barrier of all threads that are running.
        fork_join_seconds: A parallel region that does nothing.
        bf16_dot: Whether there is a dot product of pairs of bfloat16 into float32, at the rate of the FMA.
    """

    isa: Literal["x86_64", "aarch64"]
    vector_bytes: int
    vector_registers: int
    fma_per_cycle: float
    clock_hz: float
    cores: int
    line_bytes: int
    l1_bytes: int
    l2_bytes: int
    l1_bytes_per_cycle: float
    l2_bytes_per_cycle: float
    dram_bytes_per_s: float
    barrier_seconds: float
    bf16_dot: bool
    l3_bytes_per_core: int | None = None
    l3_bytes_per_s: float | None = None
    dram_stream_bytes_per_s: float | None = None
    fork_join_seconds: float | None = None

    def __post_init__(self) -> None:
        _check(self, "[cpu] ")

    @property
    def float32_lanes(self) -> int:
        """float32 numbers in a vector."""
        return self.vector_bytes // 4

    @property
    def float32_flops_per_s(self) -> float:
        """Of one core; a fused multiply-add counts as 2."""
        return 2 * self.float32_lanes * self.fma_per_cycle * self.clock_hz

    @property
    def levels(self) -> tuple[Level, ...]:
        """From the nearest memory to the farthest. A level of unknown size or speed is left out."""
        l3 = self.l3_bytes_per_core, self.l3_bytes_per_s
        return (
            Level("l1", self.l1_bytes, self.l1_bytes_per_cycle * self.clock_hz),
            Level("l2", self.l2_bytes, self.l2_bytes_per_cycle * self.clock_hz),
            *([] if l3[0] is None or l3[1] is None else [Level("l3", l3[0], l3[1])]),
            Level("dram", None, self.dram_bytes_per_s),
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that kernels are made for: the tables that its kind has."""

    name: str
    kind: Literal["cpu", "gpu"]
    cpu: Cpu | None = None

    def __post_init__(self) -> None:
        _check(self, "")
        if (self.kind == "cpu") != (self.cpu is not None):
            raise MachineError(f"kind = {self.kind!r}: a [cpu] table belongs to a cpu, and only to a cpu")

    def resource_vector(self) -> tuple[tuple[str, Scalar], ...]:
        """Everything but the name, as sorted pairs of key and value: what plans are keyed by.

        Two machines with the same resources have the same plans, whatever they are called.
        """
        pairs: list[tuple[str, Scalar]] = [("kind", self.kind)]
        for table in dataclasses.fields(self):
            part = getattr(self, table.name)
            if dataclasses.is_dataclass(part):
                pairs += [(f"{table.name}.{f.name}", getattr(part, f.name)) for f in dataclasses.fields(part)]
        return tuple(sorted((key, value) for key, value in pairs if value is not None))

    def __str__(self) -> str:
        pairs = self.resource_vector()
        width = max(len(key) for key, _ in pairs)
        return "\n".join([self.name, *(f"    {key:{width}}  {_written(value)}" for key, value in pairs)])


@dataclass(frozen=True, slots=True)
class Variant:
    """Machines that differ from the file they belong to.

    Args:
        match: Fields of /proc/cpuinfo, each with words of which the field must have one.
        cpu: The table of such a machine.
    """

    name: str
    match: Mapping[str, Sequence[str]]
    cpu: Cpu

    def fits(self, cpuinfo: Mapping[str, str]) -> bool:
        """Whether the machine with this /proc/cpuinfo is one of them."""
        return all(set(words) & set(cpuinfo.get(field, "").split()) for field, words in self.match.items())


def parse(text: str, source: str) -> tuple[Machine, tuple[Variant, ...]]:
    """A machine and its variants from the text of a TOML file.

    The keys of [cpu.measured] are keys of [cpu]: the table says that a command was run for them.

    Args:
        source: What an error calls the file.

    Raises:
        MachineError: the text is no TOML, or not a machine.
    """
    try:
        data = tomllib.loads(text)
        entries = data.pop("variant", [])
        if isinstance(data.get("cpu"), dict):
            data["cpu"] = _build(Cpu, _with_measured(data["cpu"]), "[cpu]")
        machine = _build(Machine, data, "the file")
        return machine, tuple(_variant(entry, machine) for entry in entries)
    except (tomllib.TOMLDecodeError, MachineError) as error:
        raise MachineError(f"{source}: {error}") from None


def closest(name: str, known: Iterable[str]) -> str:
    """A question that names the closest known name, or ''."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _with_measured(cpu: dict[str, Any]) -> dict[str, Any]:
    stated = {key: value for key, value in cpu.items() if key != "measured"}
    measured = _as_table(cpu.get("measured", {}), "[cpu.measured]")
    for key in measured:
        if key in stated:
            raise MachineError(f"{key!r} is in [cpu] and again in [cpu.measured]")
    return {**stated, **measured}


def _variant(entry: object, machine: Machine) -> Variant:
    entry = _as_table(entry, "variant")
    _check_keys(("name", "match", "cpu"), entry, "[[variant]]", required=("name", "match", "cpu"))
    if machine.cpu is None:
        raise MachineError("[[variant]] needs a [cpu] to differ from")
    differs = _as_table(entry["cpu"], "[variant.cpu]")
    _check_keys([f.name for f in dataclasses.fields(Cpu)], differs, "[variant.cpu]")
    fields = _as_table(entry["match"], "match of [[variant]]")
    match = {field: (words,) if isinstance(words, str) else tuple(words) for field, words in fields.items()}
    return Variant(str(entry["name"]), match, dataclasses.replace(machine.cpu, **differs))


def _as_table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MachineError(f"{where} = {value!r}, expected a table")
    return value


def _build(cls: type[T], data: dict[str, Any], where: str) -> T:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    required = [f.name for f in fields if f.default is dataclasses.MISSING]
    _check_keys([f.name for f in fields], data, where, required)
    return cls(**data)


def _check_keys(
    known: Sequence[str], data: Mapping[str, object], where: str, required: Sequence[str] = ()
) -> None:
    for key in data:
        if key not in known:
            hint = closest(key, known) or f" Keys: {', '.join(known)}."
            raise MachineError(f"{where} has no key {key!r}.{hint}")
    missing = [key for key in required if key not in data]
    if missing:
        raise MachineError(f"{where} lacks {', '.join(map(repr, missing))}")


def _check(table: Cpu | Machine, where: str) -> None:
    """Every field has the type that is declared for it (2 will do for 2.0), and no number is 0 or less."""
    for key, hint in get_type_hints(type(table)).items():
        value = getattr(table, key)
        allowed = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not any(_fits(value, kind) for kind in allowed):
            expected = " or ".join(_in_words(kind) for kind in allowed if kind is not type(None))
            raise MachineError(f"{where}{key} = {value!r}, expected {expected}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not 0 < value < math.inf:
                fault = f"{where}{key} = {value!r}, expected more than 0"
                raise MachineError(f"{fault}; leave out what is unknown")
            if float in allowed:
                object.__setattr__(table, key, float(value))


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(kind, "a table")


def _written(value: Scalar) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
