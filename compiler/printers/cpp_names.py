"""What things are called in generated C++.

In: arrays, indices, numbers. Out: words that a person would choose and that mean nothing else there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from rekern.ir import Index
from rekern.loops.program import CARRIED, TEMPORARY, Place

WORDS_OF_CXX = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t char8_t class
    co_await co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype
    default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline
    int linux long main mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected
    public register reinterpret_cast requires return short signed sizeof static static_assert static_cast std
    struct switch template this thread_local throw true try typedef typeid typename union unix unsigned using
    virtual void volatile while xor xor_eq
"""
WORDS_OF_TEMPLATES = """
    AHEAD Arena Array Axis Call Dims Factors Flag Flags INFINITE LANES NOT_A_NUMBER PANEL Packed Panels Product ROWS
    Scratch Sequence Sizes Slice Slot Source Team Tensor Walk Weights Work accumulate active again ahead all
    arena at atomic batch batch_rows begins block block_end block_first block_slots call clear_row contract copy
    count dims element ends failed falling fill fill_in fill_mask first first_column first_columns
    first_of_group first_sequence flags free gather gather_rows group groups head heads int64_t ivec kept lane
    lanes later leader_only load load_mask mask memory needed next next_time omp outer_products own
    own_size packed padded panel_size panels_size part prefetch products rank read real rekern reset restart
    reverse row rows run run_task saved saved_size scatter_rows scratch select sequence sequences shared
    shared_size size sizes slot slot_numbers slot_size source state_size step steps steps_before store store_row
    stream stream_copy stream_fence sum_rows take taken task tasks team tile tile_count tiles time transpose
    transpose_in turn turns unit units vec view weight_memory weight_size weights whole_lines widest
    width work
"""
TAKEN = frozenset((WORDS_OF_CXX + WORDS_OF_TEMPLATES).split())
ENDINGS = re.compile(r"_(tensor|first|last|gradient|row|rows|held|packed|panel|turned|lanes|at|to_\d+|TILE)$")
# What generated names look like, and what may be a macro. Nothing that is made begins with my_ and ends with _.
MADE = re.compile(
    rf"^(carried|d|next|kept|saved|left|right|through|at|mask|own|walk|sum|max|rk|my)_|{ENDINGS.pattern}|_\d+$|_$|[^\x00-\x7f]"
    r"|^[A-Z][A-Z0-9_]{2,}$"
)


def identifier(place: Place) -> str:
    """The C++ name of an array: `x_2` for cell 2 of x, `d_x` for `d:x`; `my_step_` for an operand called step.

    >>> [identifier(p) for p in (("x", (2,)), ("d:x", ()), ("d_x", ()), ("t:sum_x", ()), ("step", ()))]
    ['x_2', 'd_x', 'my_d_x_', 'sum_x', 'my_step_']
    """
    if place[0].startswith(TEMPORARY):
        word = plain_word(place[0].removeprefix(TEMPORARY))
        return f"{word}_value" if word in TAKEN or ENDINGS.search(word) else word
    if place[0].startswith(CARRIED):
        return f"carried_{plain_word(place[0].removeprefix(CARRIED))}"
    *marks, word = place[0].split(":")
    return "_".join([*marks, _own(word), *map(str, place[1])])


def own_part(dim: str) -> str:
    """The part of an axis that a member of a team computes."""
    return f"own_{dim}"


def plain_word(text: str) -> str:
    """Letters that C++ compilers may not know, by their numbers."""
    return re.sub(r"[^\x00-\x7f]", lambda letter: f"u{ord(letter[0]):x}", text)


def _own(word: str) -> str:
    """The user's own word, wrapped where it means something else in generated code."""
    return f"my_{plain_word(word)}_" if word in TAKEN or MADE.search(word) else word


def loop_variable(index: Index) -> str:
    """The variable of a loop: `at_k`, and `at_k_2` for a second index of the same axis."""
    return f"at_{suffix(index)}"


def suffix(index: Index) -> str:
    name = plain_word(index.dim.lower() if index.dim.isupper() else f"{index.dim}_")
    return f"{name}_{index.number + 1}" if index.number else name


def literal(value: float) -> str:
    """A number as C++ of the working precision."""
    if math.isnan(value):
        return "NOT_A_NUMBER"
    if math.isinf(value):
        return "INFINITE" if value > 0 else "-INFINITE"
    return f"real({int(value)})" if value == int(value) and abs(value) < 1e6 else f"real({value!r})"


def indent(lines: Iterable[str], by: int = 1) -> list[str]:
    return ["    " * by + line if line else line for line in lines]


class Names:
    """The names of one function that are taken."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def fresh(self, base: str) -> str:
        """`base`, or `base_2` and so on where it is taken; taken from now on."""
        name, count = base, 2
        while name in self.taken:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name
