"""A crowd before a limiter that has places alone: when it is told to ask again, and how often."""

from __future__ import annotations

import heapq
import math

from tests.lua.ledger_engine import LedgerEngine, throttle


class Crowd:
    """Callers of a limiter with places alone, who come at one moment and ask again when they are told to."""

    def __init__(self, ledger: LedgerEngine, places: int) -> None:
        self.asked = 0
        self._ledger = ledger
        self._limit = throttle(concurrency=places)

    def run(self, callers: int, takes: int, until: float = math.inf) -> float:
        """Let each make one call that takes so many ms; answers after how many ms all have ended, or `until`."""
        start = self._ledger.now()
        steps = [(start, f"{takes}-{n}/1/1", False) for n in range(callers)]
        while steps:
            due, call, is_under_way = heapq.heappop(steps)
            if due - start > until:
                return until
            self._ledger.clock += due - self._ledger.now()
            if is_under_way:
                self._ledger.settle(call)
                continue
            self.asked += 1
            verdict = self._ledger.limited(call, 0, self._limit)
            wait = takes if verdict[0] == "ok" else max(1, verdict[2])
            heapq.heappush(steps, (due + wait, call, verdict[0] == "ok"))
        return due - start


def test_crowd_of_short_calls_flows_at_nearly_the_full_rate_from_the_first_on(ledger: LedgerEngine):
    crowd = Crowd(ledger, places=5)

    took = crowd.run(callers=200, takes=100)

    assert took <= 1.5 * 200 * 100 / 5
    assert crowd.asked <= 4 * 200


def test_crowd_behind_long_calls_hardly_asks_while_none_of_them_ends(ledger: LedgerEngine):
    crowd = Crowd(ledger, places=5)
    crowd.run(callers=50, takes=100)
    before = crowd.asked

    crowd.run(callers=100, takes=600_000, until=60_000)

    assert crowd.asked - before <= 5 * 100


def test_first_call_that_ends_tells_how_long_calls_take(ledger: LedgerEngine):
    limit = throttle(concurrency=1)
    ledger.limited("j/1/1", 0, limit)
    ledger.advance(3000)
    ledger.settle("j/1/1")
    ledger.limited("j/1/2", 0, limit)

    _, _, wait = ledger.limited("k/1/1", 0, limit)

    assert 2800 <= wait <= 3200
