"""The measured tables of README.md and docs/performance.md, from the JSON files of the benchmarks.

In: results/<machine>/{cpu,limits,limits-kept-2}.json. Out: the texts, each table between its two marks.

    python benchmarks/publish.py            # write the tables
    python benchmarks/publish.py --check    # exit with 1 if a text does not show what the files hold
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rekern.cli.console import digits, seconds

HERE = Path(__file__).resolve().parent
MACHINE = HERE / "results" / "x86_avx512-amd-epyc-family-26-model-2"
PASSES = "forward", "forward+backward"
SHOWN = (  # one size of each kind of recurrence
    *(("elman", "D128"), ("lstm", "D128"), ("gru", "D128"), ("slstm", "D128"), ("layer_norm_lstm", "D128")),
    *(("min_lstm", "D512"), ("sru", "D512"), ("hgrn", "D512"), ("rwkv4", "D512"), ("selective_scan", "D512 N16")),
    *(("linear_attention", "K64 V64"), ("gla", "K64 V64"), ("mlstm", "K64 V64"), ("based", "K16 V64")),
    *(("gated_delta_rule", "K64 V64"), ("kda", "K64 V64"), ("gated_delta_product", "K64 V64"), ("rwkv7", "K64 V64")),
)


def main(given: Sequence[str]) -> int:
    """Fill in, or compare."""
    old = 0
    for path, mark, lines in (
        (HERE.parent / "README.md", "measured", zoo),
        (HERE.parent / "docs" / "performance.md", "limits", goals),
    ):
        text = path.read_text()
        new = filled(text, mark, lines())
        if text != new and "--check" in given:
            print(f"{path.name} does not show what benchmarks/results holds: run python benchmarks/publish.py")
            old = 1
        elif text != new:
            path.write_text(new)
    return old


def filled(text: str, mark: str, lines: Sequence[str]) -> str:
    """`text` with `lines` between <!-- mark --> and <!-- /mark -->."""
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not begin or not end:
        raise ValueError(f"the text has no pair of marks <!-- {mark} --> and <!-- /{mark} -->")
    return before + begin + "\n".join(lines) + "\n" + end + after


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def zoo() -> list[str]:
    """One size of each kind, and the ranges over all of them."""
    report = json.loads((MACHINE / "cpu.json").read_text())
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for r in report["results"]:
        size = " ".join(f"{axis}{length}" for axis, length in r["sizes"].items())
        whole = found.setdefault((r["spec"], f"B{r['batch']} T{r['time']} H{r['heads']} {size}"), {})
        whole[r["pass"]] = r
    kept = {(m["spec"], " ".join(f"{a}{n}" for a, n in m["sizes"].items())): m["kept_bytes"] for m in report["memory"]}
    rows = []
    for spec, size in SHOWN:
        ((name, passes),) = [(k[1], v) for k, v in found.items() if k[0] == spec and k[1].endswith(f" {size}")][:1]
        cells = [f"{spec}, {name}"]
        for one in PASSES:
            r = passes[one]
            cells.append(digits(1e3 * r["rekern"]["median_seconds"]))
            cells += [against(r, ("loop",)), against(r, ("torch", "nn"))]
        rows.append([*cells, f"{kept[spec, size] / 1e6:.1f} MB"])
    times = [column for p in PASSES for column in (f"{p}, ms", "vs loop", "vs torch")]
    first = [f["nothing_cached"]["seconds"] for f in report["first_call"]]
    later = [f["cached"]["seconds"] for f in report["first_call"]]
    forward, both = (extremes([ratio(v[p], ("loop",)) for v in found.values()]) for p in PASSES)
    told = (
        f"Over all {len(found)} sizes that were measured, a kernel is {forward} times as fast as the loop forward and "
        f"{both} times with the gradient. The first call of a recurrence, forward and gradient with nothing cached, "
        f"took {extremes(first)} s (g++ included, two cores), in a later process {extremes(later)} s beyond imports."
    )
    return [*table(["recurrence, lengths", *times, "kept for the gradient"], rows), "", *textwrap.wrap(told, 120)]


def goals() -> list[str]:
    """Every row of the goals, on one thread and, where it was measured, the ratio on two."""
    report = json.loads((MACHINE / "limits.json").read_text())
    path = MACHINE / "limits-kept-2.json"
    two = {key(r): r for r in json.loads(path.read_text())["results"]} if path.exists() else {}
    rows = [
        [
            f"{r['kernel']}, {r['size']}",
            r["pass"],
            r["against"],
            *(f"{digits(r[n])}x" for n in ("ratio", "least", "aim")),
            seconds(r["rekern_seconds"]),
            seconds(r["floor_seconds"]),
            f"{digits(two[key(r)]['ratio'])}x" if key(r) in two else "",
        ]
        for r in report["results"]
    ]
    head = "kernel, size", "pass", "against", "ratio", "at least", "aim", "time", "floor", "ratio, two threads"
    return table(head, rows)


def key(row: dict[str, Any]) -> tuple[str, str, str, str, float]:
    """What a row of the goals is, whatever it was measured against on the day."""
    return row["kernel"], row["size"], row["pass"], row["role"], row["least"]


def ratio(result: dict[str, Any], roles: Sequence[str]) -> float | None:
    """How many times as fast as the fastest of some competitors."""
    return min((b["ratio"] for b in result["baselines"] if b["role"] in roles), default=None)


def against(result: dict[str, Any], roles: Sequence[str]) -> str:
    found = ratio(result, roles)
    return "" if found is None else f"{found:.1f}x"


def extremes(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{digits(min(known))} to {digits(max(known))}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
