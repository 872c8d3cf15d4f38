"""A deadline that the parts of a search share.

In: seconds. Out: whether they have passed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from rekern.solver.errors import SolverError

PATIENCE = 60.0     # seconds; problems of kernels take milliseconds, and nobody wants a call that never ends


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds from now until a deadline; None: there is none.

    Raises:
        SolverError: the seconds are not above 0.
    """

    seconds: float | None = None
    start: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise SolverError(f"deadline = {self.seconds!r}, expected a number of seconds above 0, or None")

    @property
    def left(self) -> float:
        """Seconds left, at least 0."""
        if self.seconds is None:
            return math.inf
        return max(0.0, self.start + self.seconds - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.seconds is not None and time.monotonic() >= self.start + self.seconds

    def within(self, seconds: float) -> Clock:
        """A clock for one part of the work, which also ends when this one does."""
        return Clock(max(min(seconds, self.left), 1e-9))
