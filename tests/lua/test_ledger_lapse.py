from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import QUEUE, LedgerEngine, throttle, waiter


def test_what_a_run_left_open_ends_at_once_and_no_other_run_does(ledger: LedgerEngine):
    ledger.open(total=1000)
    ledger.reserve("j/1/1", 10)
    ledger.reserve("j/1/2", 20, sent=False)
    for other in ("j/10/1", "j/2/1", "jj/1/1", "j/1"):
        ledger.reserve(other, 100)

    assert ledger.packed("ledger_lapse", run="j/1") == [2, 0, []]

    assert (ledger.used(), ledger.held()) == (10, 400)
    assert ledger.spend()["loose"]["total_tokens"] == 10_000
    assert ledger.packed("ledger_lapse", run="j/1") == [0, 0, []]


def test_places_and_room_come_free(ledger: LedgerEngine):
    ledger.open(total=10, on="pause")
    limit = throttle(concurrency=1)
    ledger.reserve("j/1/1", 10, limiters=[limit], sent=False)
    ledger.reserve("w/1/1", 5, waiter=waiter("w"))

    _, _, wakes = ledger.packed("ledger_lapse", run="j/1")

    assert [wake[1:] for wake in wakes] == [[QUEUE, "b", 1, "w"]]
    assert ledger.limited("k/1/1", 0, limit) == ["ok"]


def test_zombie_that_settles_after_all_replaces_the_unverified_spend(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=50)
    ledger.packed("ledger_lapse", run="j/1")

    assert ledger.settle(input=20) == "late"
    assert ledger.spend()["used"]["total_tokens"] == 20_000
    assert ledger.spend()["loose"] == {}


def test_many_calls_are_ended_in_bounded_steps(ledger: LedgerEngine):
    ledger.open(total=1000)
    for n in range(70):
        ledger.reserve(f"j/1/{n}", 1, sent=False)

    assert ledger.packed("ledger_lapse", run="j/1")[:2] == [64, 1]
    assert ledger.packed("ledger_lapse", run="j/1")[:2] == [6, 0]
    assert ledger.held() == 0


def test_wrong_argument_is_refused(ledger: LedgerEngine):
    with pytest.raises(Refused, match="ARG"):
        ledger.packed("ledger_lapse")
