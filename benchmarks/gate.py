"""Shared memory and spills of Triton kernels with one product: what compilers say against what rekern predicts.

In: random tiles. Out: tables on stdout; one CSV file a chip with a line for each kernel, which the tests replay, and
gate.json with toolchains and figures. Needs no GPU.

    nice -n 19 python benchmarks/gate.py             # 1,000 kernels a chip, 100 of them compiled to the end
    python benchmarks/gate.py --stored              # the same kernels against the formulas of today
    python benchmarks/gate.py --chip h100_sxm --kernels 20 --full 5 --out /tmp/x

All kernels are compiled until shared memory is laid out; `--full` of them to the end, for registers and spills.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekern.backends.offline import TritonSource, to_json
from rekern.backends.triton import shared_bytes_of, toolchain
from rekern.cli.console import table, write
from rekern.gate.processes import CompilerProcess, Died, Late
from rekern.gate.verdicts import gpu_of
from rekern.hwmodels import load
from rekern.resources.registers import spills
from rekern.resources.shared_memory import dot_shared_bytes

HERE = Path(__file__).resolve().parent
CHIPS = ("a100_sxm_80gb", "h100_sxm", "b200", "rtx5090")
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
POINTERS = ("a_ptr", "b_ptr", "c_ptr")
NUMBERS = ("m", "n", "k", "a_stride", "b_stride", "c_stride")
TIMEOUT_SECONDS = 30.0    # what does not spill takes 5 s at most on a machine with nothing else to do
MEMORY_BYTES = 8 << 30


@dataclass(frozen=True)
class Tile:
    """A kernel of the sample: `dtype` of both operands, `out` of the result."""

    bm: int
    bn: int
    bk: int
    dtype: str
    out: str
    stages: int
    warps: int

    def source(self) -> TritonSource:
        """The kernel, all rows aligned to 16 bytes."""
        types = dict(zip(POINTERS, (self.dtype, self.dtype, self.out)))
        return TritonSource(
            text=(HERE / "dot.py").read_text(),
            name="matmul",
            arguments=tuple((p, f"*{t}") for p, t in types.items()) + tuple((n, "i32") for n in NUMBERS),
            constants=(("BM", self.bm), ("BN", self.bn), ("BK", self.bk)),
            aligned=POINTERS + NUMBERS,
            warps=self.warps,
            stages=self.stages,
        )

    def predicted_bytes(self, architecture: str) -> int:
        """Shared memory by the formula."""
        sizes = self.bm, self.bn, self.bk, BYTES[self.dtype], BYTES[self.out], self.stages, self.warps
        return int(dot_shared_bytes(*sizes, architecture=architecture))

    def spills(self, architecture: str) -> bool:
        """Whether it is predicted to spill."""
        return bool(spills(self.bm, self.bn, self.bk, BYTES[self.dtype], self.warps, architecture))


def sample(count: int, seed: int) -> list[Tile]:
    """Different tiles; 4 and 8 warps are drawn more often, as they are used."""
    draw = random.Random(seed)
    sides, depths = (16, 32, 64, 128, 256), (16, 32, 64, 128)
    found: dict[Tile, None] = {}
    while len(found) < count:
        tile = Tile(
            bm=draw.choice(sides),
            bn=draw.choice(sides),
            bk=draw.choice(depths),
            dtype=draw.choice(("bf16", "bf16", "fp16", "fp32")),
            out=draw.choice(("bf16", "fp16", "fp32")),
            stages=draw.randint(1, 6),
            warps=draw.choice((1, 2, 4, 4, 4, 8, 8, 8)),
        )
        found[tile] = None
    return list(found)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chip", action="append", help="a machine file; repeat it (default: one a generation)")
    parser.add_argument("--kernels", type=int, default=1000, help="a chip (default: %(default)s)")
    parser.add_argument("--full", type=int, default=100, help="of these to the end (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--stored", action="store_true", help="compile nothing: count again in the files of --out")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "offline")
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"seed": options.seed, "chips": earlier(options.out / "gate.json", options.seed)}
    for chip in options.chip or CHIPS:
        if options.stored:
            report["chips"][chip] |= counts(chip, stored(options.out / f"{gpu_of(load(chip)).architecture}.csv"))
        else:
            report["chips"][chip] = measure(chip, sample(options.kernels, options.seed), options.full, options.out)
        (options.out / "gate.json").write_text(json.dumps(report, indent=1) + "\n")
    print_all(report)
    write(f"\nwritten to {options.out}")
    return 0


def earlier(path: Path, seed: int) -> dict[str, Any]:
    """Figures of the chips that are not measured now, if they are of the same sample."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["chips"] if found.get("seed") == seed else {}


def measure(chip: str, tiles: Sequence[Tile], full: int, out: Path) -> dict[str, Any]:
    """Compile the tiles for one chip; write its CSV file."""
    architecture = gpu_of(load(chip)).architecture
    rows: list[dict[str, Any]] = []
    for tile in tiles:
        start = time.perf_counter()
        shared = shared_bytes_of(tile.source(), architecture)
        rows.append({**vars(tile), "shared_bytes": shared, "layout_seconds": time.perf_counter() - start})
    save(rows, out / f"{architecture}.csv")
    with tempfile.TemporaryDirectory(prefix="rekern-benchmark-") as folder:
        process = CompilerProcess(Path(folder), MEMORY_BYTES)
        try:
            for tile, row in zip(tiles[:full], rows):
                row |= to_the_end(tile, architecture, process)
        finally:
            process.end()
    save(rows, out / f"{architecture}.csv")
    return {"toolchain": toolchain(architecture), **counts(chip, rows)}


def stored(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; fields that are empty there are absent."""
    kinds = {"layout_seconds": float, "seconds": float, "dtype": str, "out": str, "matrix_instructions": str}
    with path.open() as file:
        return [{k: kinds.get(k, int)(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def save(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One line a kernel; what was not compiled to the end has empty fields."""
    columns = [*Tile.__annotations__, "shared_bytes", "layout_seconds", *FULL]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


FULL = ("compiled_shared_bytes", "registers", "spill_bytes", "matrix_instructions", "seconds")


def to_the_end(tile: Tile, architecture: str, process: CompilerProcess) -> dict[str, object]:
    """What the whole compiler says; `seconds` alone if it was stopped."""
    question = {"source": to_json(tile.source()), "architecture": architecture, "disassemble": True}
    try:
        told = process.ask(question, time.monotonic() + TIMEOUT_SECONDS, threading.Event())
    except (Late, Died):
        return {"seconds": TIMEOUT_SECONDS}
    found = told["resources"]
    kinds = " ".join(f"{kind}:{count}" for kind, count in found["matrix_instructions"].items())
    return {
        "compiled_shared_bytes": found["shared_bytes"],
        "registers": found["registers"],
        "spill_bytes": found["spill_bytes"],
        "matrix_instructions": kinds,
        "seconds": told["seconds"],
    }


def counts(chip: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Predicted against compiled."""
    gpu = gpu_of(load(chip))
    limit = gpu.shared_bytes_per_block
    tiles = [Tile(**{name: row[name] for name in Tile.__annotations__}) for row in rows]
    pairs = [(tile.predicted_bytes(gpu.architecture), row["shared_bytes"]) for tile, row in zip(tiles, rows)]
    ended = [(tile, row) for tile, row in zip(tiles, rows) if "registers" in row]
    guesses = [(tile.spills(gpu.architecture), row["spill_bytes"] > 0) for tile, row in ended]
    return {
        "architecture": gpu.architecture,
        "kernels": len(rows),
        "exact": sum(predicted == used for predicted, used in pairs),
        "over_the_limit": sum(used > limit for _, used in pairs),
        "wrong_accepts": sum(predicted <= limit < used for predicted, used in pairs),
        "wrong_rejects": sum(used <= limit < predicted for predicted, used in pairs),
        "to_the_end": len(ended),
        "stopped": sum("seconds" in row and "registers" not in row for row in rows),
        "other_shared_bytes_at_the_end": sum(row["shared_bytes"] != row["compiled_shared_bytes"] for _, row in ended),
        "spill": sum(spilt for _, spilt in guesses),
        "spills_predicted": sum(guess and spilt for guess, spilt in guesses),
        "false_alarms": sum(guess and not spilt for guess, spilt in guesses),
        "missed": sum(spilt and not guess for guess, spilt in guesses),
    }


def print_all(report: dict[str, Any]) -> None:
    rows = []
    for chip, f in report["chips"].items():
        exact = f"{100 * f['exact'] / f['kernels']:.1f} %"
        numbers = (f["kernels"], exact, f["over_the_limit"], f["wrong_accepts"], f["wrong_rejects"])
        ends = (f["to_the_end"], f["spill"], f["spills_predicted"], f["false_alarms"], f["missed"], f["stopped"])
        rows.append((f"{chip} ({f['architecture']})", *map(str, numbers), *map(str, ends)))
    columns = ("chip", "kernels", "exact", "too large", "wrong accepts", "wrong rejects")
    columns += ("to the end", "spill", "predicted", "false alarms", "missed", "stopped")
    table(columns, rows, right=columns[1:], keep=columns)


if __name__ == "__main__":
    sys.exit(main())
