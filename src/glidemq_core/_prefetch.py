"""How many jobs to have in hand beyond the free slots: none, unless jobs are so short that the round trip shows."""

from __future__ import annotations

import math
import time
from typing import Final

_SHORT: Final = 0.05
_STUCK_AFTER: Final = 0.2
_PAUSE: Final = 5.0
_WEIGHT: Final = 0.05
_FEW: Final = 4  # so that a worker with one slot or two does not wait for each reply


class Prefetch:
    """Learns the lengths of runs and turns (seconds, exponential averages)."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._run = _SHORT
        self._turn = 0.002
        self._last_finish = time.monotonic()
        self._paused_until = 0.0
        self.size = 0

    def note_run(self, length: float) -> None:
        """A run has ended after `length` seconds."""
        self._run += _WEIGHT * (length - self._run)
        self._last_finish = time.monotonic()

    def note_turn(self, length: float) -> None:
        """A turn took `length` seconds: set the size for the next."""
        self._turn += _WEIGHT * (length - self._turn)
        if self._run >= _SHORT or self._last_finish < self._paused_until:
            self.size = 0
            return
        # Two turns' worth of what all slots together finish, never many more than the slots themselves.
        rate = self._concurrency / max(self._run, 1e-5)
        self.size = min(max(self._concurrency, _FEW), math.ceil(2 * rate * self._turn))

    def is_stuck(self, now: float) -> bool:
        """Has nothing finished for a while?"""
        return now - self._last_finish >= _STUCK_AFTER

    def pause(self) -> None:
        """Jobs turned out longer than they were: prefetch nothing for a while."""
        self._run = _SHORT
        self.size = 0
        self._paused_until = time.monotonic() + _PAUSE
