"""What callers may not do with a ledger: leave its slot, move its sums by odd numbers, settle twice or for others."""

from __future__ import annotations

import math

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import QUEUE, LedgerEngine, throttle

ODD_IDS = ["}{other}", "{x}", "a\nb", "a\0b", "/", "*", "x" * 10_000, "é\u202e", "-"]
ODD_AMOUNTS = [-1, 1.5, 2**53, 1e300, math.inf, math.nan, "7", [], {}]


@pytest.mark.parametrize("id", ODD_IDS)
def test_odd_call_id_stays_in_its_slot_and_is_a_call_like_any_other(ledger: LedgerEngine, id: str):
    ledger.open(total=100)

    assert ledger.reserve(id, 40) == ["ok"]
    assert ledger.held() == 40
    assert ledger.settle(id, 30) == "settled"

    assert (ledger.used(), ledger.held()) == (30, 0)
    keys = ledger.server.cmd("KEYS", "*other*") + ledger.server.cmd("KEYS", "*{x}*")
    assert all(key.startswith(ledger.root.encode()) for key in keys)


@pytest.mark.parametrize("amount", ODD_AMOUNTS, ids=repr)
@pytest.mark.parametrize("field", ["tokens", "costs"])
def test_odd_amount_is_refused_and_changes_nothing(
    ledger: LedgerEngine, field: str, amount: object
):
    ledger.open(total=100)
    ledger.reserve("j/1/1", 40)
    before = ledger.dump()

    for name in ("ledger_reserve", "ledger_settle", "ledger_extend"):
        args: dict[str, object] = {"call": "j/1/1", "tokens": {}, "costs": {}, "budgets": ["b"]}
        args |= {"ttl_ms": 1000, "started_ms": ledger.now(), field: {"input": amount}}
        with pytest.raises(Refused, match="ARG"):
            ledger.packed(name, **args)

    assert ledger.dump() == before


def test_call_settled_again_with_other_numbers_keeps_the_first(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve("j/1/1", 40)
    assert ledger.settle("j/1/1", 30) == "settled"

    assert ledger.settle("j/1/1", 0) == "already"
    assert ledger.settle("j/1/1", 99) == "already"
    assert ledger.settle("j/1/1", 0, unused=True) == "already"

    assert (ledger.used(), ledger.held()) == (30, 0)


def test_call_reserved_again_for_more_holds_what_it_held(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.open("other", total=100)
    ledger.reserve("j/1/1", 40)

    assert ledger.reserve("j/1/1", 90, budgets=["other"]) == ["ok"]

    assert (ledger.held(), ledger.held("other")) == (40, 0)


def test_settle_of_a_reserved_call_counts_where_it_was_reserved_whatever_it_names(
    ledger: LedgerEngine,
):
    ledger.open(total=100)
    ledger.open("other", total=100)
    ledger.reserve("j/1/1", 40)

    assert ledger.settle("j/1/1", 30, budgets=["other"]) == "settled"

    assert (ledger.used(), ledger.used("other")) == (30, 0)


def test_made_up_call_frees_no_place_and_no_room_of_others(ledger: LedgerEngine):
    ledger.open(total=100)
    one = throttle(concurrency=1)
    ledger.reserve("j/1/1", 100, limiters=[one])

    assert ledger.settle("j/1/2", 0, unused=True) == "already"
    assert ledger.settle("j/1/2", 0) == "booked"
    ledger.packed("ledger_lapse", run="j/1/1")
    ledger.packed("ledger_lapse", run="")

    assert ledger.held() == 100
    assert ledger.limiter()[1] == 1


@pytest.mark.parametrize("field", ["queue", "job"])
def test_waiter_whose_name_is_two_lines_is_refused(ledger: LedgerEngine, field: str):
    ledger.open(total=10, on="pause")
    before = ledger.dump()
    forged = {"queue": QUEUE, "job": "w"} | {field: "w\nx"}

    with pytest.raises(Refused, match="ARG"):
        ledger.reserve("w/1/1", 60, waiter=forged)

    assert ledger.dump() == before
