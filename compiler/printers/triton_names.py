"""What things are called in generated Triton.

In: arrays and axes. Out: words that a person would choose, each for one thing.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from rekern.loops.program import TEMPORARY, Place

# Words of the templates, and names of built-in functions that kernels call.
WORDS_OF_TEMPLATES = """
    BLOCK COLUMN_TILES ROWS SEGMENT SLOT STAGES alive at_row batch begin block block_row bool boundaries column_tile
    copy_row done end exists first first_segment float head heads i int j last length lengths max middle min next_t
    offset product_row program range reset reset_batch reset_time restart row row_blocks row_step segment_row segments
    sequence sequences slot_row starts_before state_row steps t time tl triton
"""
TAKEN = frozenset(WORDS_OF_TEMPLATES.split())


class Names:
    """The names of one kernel."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {*TAKEN, *keyword.kwlist, *taken}
        self._places: dict[Place, str] = {}
        self._weights: dict[tuple[Place, bool], str] = {}

    def of(self, place: Place) -> str:
        """The variable that holds the value of an array in this step: `x_2` for cell 2 of x, `d_x` for `d:x`."""
        if place not in self._places:
            self._places[place] = self.fresh(self.word(place))
        return self._places[place]

    def weight(self, place: Place, turned: bool) -> str:
        """The matrix that is multiplied with; `turned` where it is the transpose of what the caller has."""
        if (place, turned) not in self._weights:
            self._weights[place, turned] = self.fresh(f"{self.word(place)}_turned" if turned else self.word(place))
        return self._weights[place, turned]

    def fresh(self, base: str) -> str:
        """`base`, or `base_2` and so on where it is taken; taken from now on."""
        name, count = base, 2
        while name in self._taken:
            name, count = f"{base}_{count}", count + 1
        self._taken.add(name)
        return name

    @staticmethod
    def word(place: Place) -> str:
        """A word for an array, which another may have too."""
        name = place[0].removeprefix(TEMPORARY).replace(":", "_")
        return "_".join([re.sub(r"\W", "_", name), *map(str, place[1])])
