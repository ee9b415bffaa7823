"""A span of time that work is fitted into: the most important first, and nothing begun after its end."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """Seconds from now on; None is without end. `clock` is monotonic, in seconds."""

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds

    def left(self) -> float:
        """Seconds left, 0 at the least; infinite without an end."""
        return float("inf") if self._end is None else max(0.0, self._end - self._clock())

    def spent(self) -> bool:
        """Whether nothing more should begin."""
        return self.left() <= 0
