from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import QUEUE, TTL, LedgerEngine, waiter


def test_upkeep_of_nothing_writes_nothing(ledger: LedgerEngine):
    _, more, windows, entries = ledger.upkeep()

    assert (more, windows, entries) == (0, [], [])
    assert ledger.names() == set()


def test_overdue_calls_are_ended_in_bounded_rounds(ledger: LedgerEngine):
    ledger.open(total=1000)
    for n in range(70):
        ledger.reserve(f"j/{n}/1", 1)
    ledger.advance(TTL + 1)

    assert ledger.upkeep()[1] == 1, "there is more"
    assert ledger.held() == 6
    assert ledger.upkeep()[1] == 0

    assert ledger.spend()["held"] == {}
    assert ledger.spend()["loose"]["total_tokens"] == 70_000
    assert not {"calls", "deadlines"} & ledger.names()


def test_ended_windows_are_reported_until_they_are_turned(ledger: LedgerEngine):
    now = ledger.now()
    ledger.open(total=10, window="month", zone="Asia/Tokyo", start=now - 1000, stop=now + 1000)
    assert ledger.upkeep()[2] == []

    ledger.advance(1100)
    assert ledger.upkeep()[2] == [["b", "month", "Asia/Tokyo"]]
    ledger.packed("ledger_turn", id="b", start=now + 1000, stop=now + 9000)

    assert ledger.upkeep()[2] == []


def test_entries_nobody_relayed_come_until_they_are_acknowledged(ledger: LedgerEngine):
    ledger.open(total=10, on="pause")
    ledger.reserve("x/1/1", 10)
    ledger.reserve("w/1/1", 10, waiter=waiter("w"))
    _, (wake,) = ledger.settled("x/1/1", 0)
    assert ledger.upkeep()[3] == [], "whoever made room relays it; it is too early for others"

    ledger.advance(4000)  # entries are as old as the server's own clock says

    assert ledger.upkeep()[3] == [wake]
    assert ledger.upkeep()[3] == [wake]
    assert wake[1:] == [QUEUE, "b", 1, "w"]
    assert ledger.upkeep(ack=[wake[0]])[3] == []


def test_room_of_a_woken_job_that_has_ended_goes_to_the_next(ledger: LedgerEngine):
    ledger.open(total=10, on="pause")
    ledger.reserve("x/1/1", 10)
    for name in ("first", "second"):
        ledger.reserve(f"{name}/1/1", 10, waiter=waiter(name))
    _, (wake,) = ledger.settled("x/1/1", 0)
    assert wake[4] == "first"
    assert ledger.upkeep(ack=[wake[0]])[3] == [], "its room is kept for it"

    (next_,) = ledger.upkeep(gone=[["b", f"{QUEUE}\nfirst"]])[3]

    assert next_[1:] == [QUEUE, "b", 2, "second"]
    assert ledger.upkeep(gone=[["nobudget", f"{QUEUE}\nfirst"]])[3] == []


@pytest.mark.parametrize("gone", [["b"], [["b"]], [[1, "x"]], "x", [["b", "x"]] * 1001])
def test_ended_jobs_that_make_no_sense_are_refused(ledger: LedgerEngine, gone: object):
    with pytest.raises(Refused, match="ARG gone"):
        ledger.upkeep(gone=gone)
    assert ledger.names() == set()


def test_many_waiters_are_woken_as_the_woken_come_back(ledger: LedgerEngine):
    ledger.open(total=1, on="pause")
    for n in range(1010):
        ledger.reserve(f"w{n}/1/1", 2, waiter=waiter(f"w{n:04}", since=n))
    ledger.open(total=10_000, on="pause", update=True)
    assert ledger.upkeep()[3] == [], "a thousand are on their way"

    for n in range(4):
        ledger.reserve(f"w{n}/2/1", 2, waiter=waiter(f"w{n:04}"))
    (entry,) = ledger.upkeep()[3]

    sent = ledger.server.cmd("XRANGE", f"{ledger.root}:outbox", "-", "+")
    batches = [fields[7].decode().split("\n") for _, fields in sent]
    assert [len(batch) for batch in batches] == [250, 250, 250, 250, 4], (
        "what a queue takes at a time"
    )
    assert [job for batch in batches for job in batch] == [f"w{n:04}" for n in range(1004)]
    assert [int(fields[5]) for _, fields in sent] == [1, 1, 1, 1, 2], (
        "each wake is newer than any refusal before it"
    )
    assert entry[4] == "w1000\nw1001\nw1002\nw1003", "who does the round relays it"


def test_budget_nobody_waits_for_is_looked_at_no_more(ledger: LedgerEngine):
    ledger.open(total=10, on="pause")
    ledger.reserve("w/1/1", 11, waiter=waiter("w"))
    ledger.upkeep()
    assert "parked" in ledger.names()
    ledger.server.cmd("UNLINK", f"{ledger.root}:waiters:b")

    ledger.upkeep()

    assert "parked" not in ledger.names()


def test_wrong_argument_is_refused(ledger: LedgerEngine):
    with pytest.raises(Refused, match="ARG"):
        ledger.upkeep(ack="all")
