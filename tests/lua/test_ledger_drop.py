from __future__ import annotations

import time

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import LedgerEngine, waiter


def test_dropped_budget_works_on_and_leaves_no_key_for_ever(ledger: LedgerEngine):
    ledger.open(total=100, on="pause")
    ledger.reserve("j/1/1", 60)
    ledger.reserve("w/1/1", 60, waiter=waiter("w"))

    assert ledger.call("ledger_drop", id="b", after_ms=60_000) == 1
    ledger.reserve("j/1/2", 10)
    ledger.settle("j/1/1", 30)
    ledger.settle("j/1/2", 10)

    assert ledger.used() == 40
    ledger.upkeep()
    eternal = {name for name in ledger.names() if ledger.ttl(name) == -1}
    assert eternal <= {"outbox", "parked"}
    assert ledger.ttl("spend:b:0") <= 60_000


def test_dropped_budget_wakes_its_waiters_in_each_window_to_come(ledger: LedgerEngine):
    now = ledger.now()
    ledger.open(total=100, on="pause", window="day", start=now - 1000, stop=now + 10_000)
    ledger.reserve("j/1/1", 60)
    ledger.reserve("w/1/1", 60, waiter=waiter("w"))
    ledger.call("ledger_drop", id="b", after_ms=60_000)
    ledger.reserve("w/1/1", 60, waiter=waiter("w"))  # it was woken

    ledger.advance(10_001)

    assert ledger.upkeep()[2] == [["b", "day", "UTC"]]
    ((_, _, name, _, jobs),) = ledger.packed(
        "ledger_turn", id="b", start=now + 10_000, stop=now + 20_000
    )[1]
    assert (name, jobs) == ("b", "w")
    ledger.advance(10_000)
    assert ledger.upkeep()[2] == [["b", "day", "UTC"]]


def test_nothing_is_left_of_a_budget_that_is_gone(ledger: LedgerEngine):
    now = ledger.now()
    ledger.open(total=100, on="pause", window="day", start=now - 1000, stop=now + 60_000)
    ledger.reserve("w/1/1", 160, waiter=waiter("w"))
    ledger.call("ledger_drop", id="b", after_ms=1)
    until = time.monotonic() + 20
    while "budget:b" in ledger.names():
        assert time.monotonic() < until
    ledger.advance(10_000)  # entries are as old as the server's own clock says

    ledger.upkeep(ack=[entry for entry, *_ in ledger.upkeep()[3]])

    assert ledger.names() <= {"entries:", "outbox"}
    assert ledger.server.cmd("XLEN", f"{ledger.root}:outbox") == 0


def test_unknown_budget_is_not_dropped(ledger: LedgerEngine):
    assert ledger.call("ledger_drop", id="b", after_ms=1) == 0


def test_wrong_argument_is_refused(ledger: LedgerEngine):
    with pytest.raises(Refused, match="ARG"):
        ledger.call("ledger_drop", id="b", after_ms=0)


def test_all_who_wait_for_a_dropped_budget_are_woken_and_told_until_when_it_is_there(
    ledger: LedgerEngine,
):
    ledger.open(total=100, on="pause")
    for name in ("v", "w"):
        ledger.reserve(f"{name}/1/1", 160, waiter=waiter(name))

    ledger.call("ledger_drop", id="b", after_ms=60_000)
    ledger.advance(10_000)  # as above

    ((_, _, name, generation, jobs),) = ledger.upkeep()[3]
    assert (name, generation, jobs) == ("b", 1, "v\nw")
    verdict, refusal, seen = ledger.reserve("v/1/1", 160, waiter=waiter("v"))
    assert (verdict, refusal["gone_in"], seen) == ("budget", 50_000, 1)
