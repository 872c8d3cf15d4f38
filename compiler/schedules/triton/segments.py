"""Where a block of the schedule scan begins: at a segment of a sequence, or, to join them, at a whole sequence.

In: a variant. Out: lines. The segments of all sequences are rows of one array, those of a sequence one behind the other
in the order in which steps are walked. Sequences of one length have equally many; a packed one takes its rows from
where it begins, as far as its length can need them, so that no program waits for the lengths: a row may have no steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rekern.schedules.triton.passes import Variant

BEGIN = "begin = tl.minimum(tl.maximum(tl.load(boundaries + sequence), 0), time)"
END = "end = tl.minimum(tl.maximum(tl.load(boundaries + sequence + 1), begin), time)"


def segment_rows(sequences: int, time: int, segment: int, packed: bool) -> int:
    """Rows of segments of one head; at least one for every sequence, which may be empty.

    >>> segment_rows(2, 9, 4, packed=False), segment_rows(2, 9, 4, packed=True)
    (6, 4)
    """
    return time // segment + sequences if packed else sequences * max(1, -(-time // segment))


def read_later(lines: Sequence[str], others: Sequence[str]) -> list[str]:
    """`lines` without plain assignments to names that no later line reads, nor a template.

    >>> read_later(["a = 1", "b = a", "c = a"], ["x = b"])
    ['a = 1', 'b = a']
    """
    read = {word for line in others for word in re.findall(r"\w+", line)} | {"steps", "segments", "first_segment"}
    kept: list[str] = []
    for line in reversed(lines):
        target = re.match(r"(\w+) = ", line)
        if target is None or target[1] in read:
            kept.append(line)
            read |= {*re.findall(r"\w+", line)}
    return kept[::-1]


def place_of_segment(variant: Variant, blocks: bool) -> list[str]:
    """From `segment_row`: the sequence, the first step, how many there are."""
    if variant.packed:
        lines = [
            "# The sequence of this segment: the last one whose first segment does not come behind it.",
            "sequence = tl.full([], 0, tl.int64)",
            "last = sequences - 1 + sequence",
            "while sequence < last:",
            "    middle = (sequence + last + 1) // 2",
            "    starts_before = tl.load(boundaries + middle) // SEGMENT + middle <= segment_row",
            "    sequence = tl.where(starts_before, middle, sequence)",
            "    last = tl.where(starts_before, last, middle - 1)",
            BEGIN,
            END,
            "offset = tl.maximum(segment_row - begin // SEGMENT - sequence, 0) * SEGMENT",
            "steps = tl.maximum(tl.minimum(end - begin - offset, SEGMENT), 0).to(tl.int32)",
            *["block_row = begin // BLOCK + sequence + offset // BLOCK"] * blocks,
            f"begin = {'end - 1 - offset' if variant.reverse else 'begin + offset'}",
            "row = begin * heads + head",
        ]
    else:
        offset = "offset" if variant.reverse else "begin"
        lines = [
            "segments = tl.maximum(tl.cdiv(time, SEGMENT), 1)",
            "batch = segment_row // segments",
            f"{offset} = segment_row % segments * SEGMENT",
            f"steps = tl.minimum(time - {offset}, SEGMENT).to(tl.int32)",
            *[f"block_row = batch * tl.cdiv(time, BLOCK) + {offset} // BLOCK"] * blocks,
            *["begin = time - 1 - offset"] * variant.reverse,
            "row = (batch * time + begin) * heads + head",
        ]
    return [*lines, f"row_step = {'-' if variant.reverse else ''}heads", "state_row = segment_row * heads + head"]


def place_of_sequence(variant: Variant) -> list[str]:
    """From `sequence`: its rows of segments."""
    if variant.packed:
        found = ["segments = tl.maximum(tl.cdiv(end - begin, SEGMENT), 1).to(tl.int32)"]
        lines = [BEGIN, END, *found, "first_segment = begin // SEGMENT + sequence"]
    else:
        lines = ["segments = tl.maximum(tl.cdiv(time, SEGMENT), 1)", "first_segment = sequence * segments"]
    return [*lines, "state_row = sequence * heads + head"]
