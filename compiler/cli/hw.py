"""`rekern hw`: the machines that rekern knows, all numbers of one with their sources, and the machines at hand.

In: nothing, or a name. Out: tables, or JSON.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from rekern.cli.console import digits, size, table, write, write_json
from rekern.cli.options import JsonOption
from rekern.hwmodels import Machine, load, names
from rekern.hwmodels.checks import unit
from rekern.hwmodels.detect import at_hand, detect_gpus
from rekern.hwmodels.device import Recognised
from rekern.hwmodels.files import text_of
from rekern.hwmodels.overlay import overlay_path, with_overlay
from rekern.hwmodels.schema import Scalar
from rekern.hwmodels.sources import Entry, entries

hw = typer.Typer(help="Machines: those that rekern knows, and those at hand.", no_args_is_help=True)


@dataclass(frozen=True)
class Number:
    """One line of a machine file, or what stands for it."""

    value: Scalar
    unit: str
    origin: Literal["file", "read", "measured"]
    note: str
    above: str      # what the file says of the whole paragraph


@hw.command()
def ls(as_json: JsonOption = False) -> None:
    """List the machines that come with rekern."""
    machines = [load(name) for name in names()]
    if as_json:
        write_json([_summary(machine) for machine in machines])
        return
    columns = ("name", "kind", "architecture", "SMs or cores", "memory", "bandwidth", "products")
    right = ("SMs or cores", "memory", "bandwidth", "products")
    table(columns, [_line(machine) for machine in machines], right=right, keep=("name", "architecture"))
    write("\nA CPU: bandwidth and float32 products of one core. A GPU: peaks, products of 16-bit numbers.")


@hw.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A name of `rekern hw ls`, the path of a .toml file, or auto.")
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Print every number of a machine with its unit and source; of this machine's CPU without a name."""
    here = at_hand("cpu") if name == "auto" else None
    machine = load(name) if here is None else with_overlay(here.machine, here.processor)
    numbers = _numbers(machine, here, name)
    if as_json:
        values = {
            key: {"value": n.value, "unit": n.unit, "origin": n.origin, "source": _joined(n.note, n.above)}
            for key, n in numbers.items()
        }
        write_json({"name": machine.name, "kind": machine.kind, "numbers": values})
        return
    write(machine.name + (f": {here.processor}" if here else ""), style="bold")
    rows = [(key, _written(n.value), n.unit, n.note) for key, n in numbers.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for above in dict.fromkeys(n.above for n in numbers.values()):
        write(f"\n{above}", style="italic")
        group = [row for row, n in zip(rows, numbers.values(), strict=True) if n.above == above]
        padded = [(k.ljust(widths[0]), v.rjust(widths[1]), u.ljust(widths[2]), note) for k, v, u, note in group]
        table(("", "", "", ""), padded)
    if here and any(n.origin == "measured" for n in numbers.values()):
        write(f"\nmeasured numbers are kept in {overlay_path(here.machine.name, here.processor)}")


@hw.command()
def detect(as_json: JsonOption = False) -> None:
    """Say which machines are at hand, and by which file each is known."""
    found = [at_hand("cpu"), *detect_gpus()]
    calibrated = [overlay_path(f.machine.name, f.processor).exists() for f in found]
    if as_json:
        write_json(
            [
                {**_summary(f.machine), "processor": f.processor, "note": f.note, "calibrated": done}
                for f, done in zip(found, calibrated, strict=True)
            ]
        )
        return
    columns = ("kind", "processor", "machine file", "calibrated")
    rows = [
        (f.machine.kind, f.processor, f.machine.name, "yes" if done else "no: rekern calibrate")
        for f, done in zip(found, calibrated, strict=True)
    ]
    table(columns, rows, keep=columns)
    for f in found:
        if f.note:
            write(f"\nnote: {f.note}", style="yellow")


def _summary(machine: Machine) -> dict[str, object]:
    """Plain values, in bytes and seconds."""
    cpu, gpu = machine.cpu, machine.gpu
    about: dict[str, object] = {"name": machine.name, "kind": machine.kind}
    if cpu is not None:
        return about | {
            "architecture": cpu.isa,
            "cores": cpu.cores,
            "dram_bytes_per_s": cpu.dram_bytes_per_s,
            "flops_per_s": cpu.float32_flops_per_s,
        }
    assert gpu is not None
    return about | {
        "architecture": gpu.architecture,
        "sms": gpu.sms,
        "dram_bytes": gpu.dram_bytes,
        "dram_bytes_per_s": gpu.dram_bytes_per_s,
        "flops_per_s": gpu.bfloat16_flops_per_s or gpu.float16_flops_per_s or gpu.float32_flops_per_s,
    }


def _line(machine: Machine) -> tuple[str, ...]:
    known = _summary(machine)

    def number(key: str) -> float:
        value = known[key]
        assert isinstance(value, int | float), "these keys hold numbers"
        return float(value)

    memory = size(int(number("dram_bytes"))) if "dram_bytes" in known else ""
    return (
        machine.name,
        machine.kind,
        str(known["architecture"]),
        str(known.get("sms") or known.get("cores")),
        memory,
        f"{digits(number('dram_bytes_per_s') / 1e9)} GB/s",
        f"{digits(number('flops_per_s') / 1e12)} TFLOP/s",
    )


def _numbers(machine: Machine, here: Recognised | None, name: str) -> dict[str, Number]:
    """Every number of `machine` with where it comes from, in the order of its file."""
    stated = list(entries(text_of(machine.name if here else name)))
    before = dict(here.machine.resource_vector()) if here else {}
    laid = list(entries(_overlay(here))) if here else []
    order = {entry.key: place for place, entry in reversed(list(enumerate(stated)))}
    pairs = [(key, value) for key, value in machine.resource_vector() if "." in key]
    pairs.sort(key=lambda pair: order.get(pair[0].partition(".")[2], len(order)))
    return {key.partition(".")[2]: _number(key, value, before, stated, laid) for key, value in pairs}


def _overlay(here: Recognised) -> str:
    path = overlay_path(here.machine.name, here.processor)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _number(key: str, value: Scalar, before: Mapping[str, Scalar], stated: list[Entry], laid: list[Entry]) -> Number:
    short = key.partition(".")[2]
    origin: Literal["file", "measured"] = "measured" if before and before.get(key) != value else "file"
    for entry in laid if origin == "measured" else stated:      # a file with variants has several lines of one key
        if entry.key == short and tomllib.loads(entry.text).get(short) == value:
            return Number(value, unit(short), origin, entry.note, entry.above)
    return Number(value, unit(short), "read", "", "read from this machine")


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _written(value: Scalar) -> str:
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
