"""A provider that lowers its limit to a tenth for a while, and the callers of a limiter that knows nothing of it."""

from __future__ import annotations

import heapq
import itertools

from tests.lua.ledger_engine import LedgerEngine, throttle

RATE = 10  # calls a second, of the limiter and of the provider in good times
CALLERS = 20
TAKES = 200  # ms that a call is under way
STORM = (10_000, 40_000)
RECOVERED = STORM[1] + 40_000
SPAN = 10_000


class Calls:
    """What callers do who ask again when they are told to, and what the provider answers; times in ms."""

    def __init__(self, ledger: LedgerEngine) -> None:
        self.good: list[int] = []
        self.wasted: list[int] = []
        self._ledger = ledger
        self._limit = throttle(rpm=(RATE * 60, 2))
        self._start = ledger.now()
        self._last = 0
        self._room = 2.0

    def run(self, until: int) -> None:
        """Callers make one call after the other until then."""
        numbers = itertools.count()
        steps = [(self._start, f"j/1/{next(numbers)}", False) for _ in range(CALLERS)]
        while steps:
            due, call, is_under_way = heapq.heappop(steps)
            self._ledger.advance(max(0, due - self._ledger.now()))
            now = self._ledger.now()
            if now - self._start >= until:
                return
            if is_under_way:
                self._end(call, now - self._start)
                heapq.heappush(steps, (now, f"j/1/{next(numbers)}", False))
                continue
            verdict = self._ledger.limited(call, 0, self._limit)
            if verdict[0] == "ok":
                heapq.heappush(steps, (now + TAKES, call, True))
            else:
                heapq.heappush(steps, (now + max(1, verdict[2]), call, False))

    def _end(self, call: str, at: int) -> None:
        rate = RATE / 10 if STORM[0] <= at < STORM[1] else RATE * 1.2
        self._room = min(2.0, self._room + (at - self._last) * rate / 1000)
        self._last = at
        has_room = self._room >= 1
        self._room -= has_room
        (self.good if has_room else self.wasted).append(at)
        self._ledger.settle(call, outcome="ok" if has_room else "limited")

    def within(self, start: int, end: int) -> int:
        """How many succeeded in that span."""
        return sum(start <= at < end for at in self.good)


def test_storm_of_refusals_wastes_few_calls_and_is_over_soon_after_it_ends(ledger: LedgerEngine):
    calls = Calls(ledger)

    calls.run(RECOVERED + SPAN)

    before = calls.within(0, SPAN)
    storm = calls.within(*STORM)
    after = calls.within(RECOVERED, RECOVERED + SPAN)
    assert storm >= 20  # of the 30 that the provider would have answered
    assert len(calls.wasted) <= 25
    assert max(calls.wasted) < STORM[1] + 5_000
    assert after >= 0.9 * before
