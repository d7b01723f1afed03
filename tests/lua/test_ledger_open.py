from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import DAY, LedgerEngine, waiter


def test_budget_is_made_once_and_kept(ledger: LedgerEngine):
    assert ledger.open(total=100) == "made"
    ledger.reserve(input=60)
    before = ledger.dump()

    assert ledger.open(total=5) == "kept"

    assert ledger.dump() == before


def test_update_needs_a_budget(ledger: LedgerEngine):
    assert ledger.open(total=100, update=True) == "missing"
    assert ledger.names() == set()


def test_update_changes_caps_and_keeps_what_was_spent(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.settle("x/1/1", 40, budgets=["b"])
    ledger.reserve(input=50)

    assert ledger.open(caps={"total_tokens": 95_000, "tokens.input": 91}, update=True) == "updated"

    assert (ledger.used(), ledger.held()) == (40, 50)
    assert ledger.reserve("j/1/2", 2)[1]["cap"] == "tokens.input", (
        "a new cap knows what was used before"
    )


def test_weights_changed_under_way_do_not_unbalance_what_is_held(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=50)

    ledger.open(total=100, weights={"input": 2000}, update=True)
    ledger.settle(input=10)

    assert (ledger.used(), ledger.held()) == (20, 0)


def test_raised_cap_wakes_who_fits_now(ledger: LedgerEngine):
    ledger.open(total=10, on="pause")
    for n in range(3):
        ledger.reserve(f"w{n}/1/1", 20, waiter=waiter(f"w{n}", since=n))

    verdict, wakes = ledger.packed(
        "ledger_open",
        id="b",
        caps={"total_tokens": 45_000},
        weights={},
        on="pause",
        unit="usd",
        window="none",
        zone="UTC",
        start=0,
        stop=0,
        update=True,
    )

    assert verdict == "updated"
    assert [(wake[3], wake[4]) for wake in wakes] == [(1, "w0\nw1")]


def test_update_does_not_begin_a_window_anew(ledger: LedgerEngine):
    now = ledger.now()
    ledger.open(total=100, window="day", start=now - 1000, stop=now + 1000)
    ledger.settle("x/1/1", 40, budgets=["b"])

    ledger.open(total=100, window="day", start=now - 500, stop=now + DAY, update=True)

    assert ledger.used() == 40


def test_other_kind_of_window_begins_at_once_without_losing_a_wake(ledger: LedgerEngine):
    ledger.open(total=10, on="pause")
    ledger.settle("x/1/1", 10, budgets=["b"])
    ledger.reserve("w/1/1", 10, waiter=waiter("w"))
    now = ledger.now()

    ledger.open(total=10, on="pause", window="day", start=now - 1000, stop=now + 1000, update=True)

    assert ledger.used() == 0
    (_, fields), *_ = ledger.server.cmd("XRANGE", f"{ledger.root}:outbox", "-", "+")
    assert fields[7] == b"w"


@pytest.mark.parametrize(
    "wrong",
    [
        {"caps": {"total_tokens": -1}},
        {"caps": {"total_tokens": 2**53}},
        {"weights": {"input": 1.5}},
        {"weights": {"input": 10**7}},
        {"on": "explode"},
        {"window": "year"},
        {"start": -1},
        {"id": 3},
    ],
)
def test_wrong_argument_is_refused_before_anything_is_written(
    ledger: LedgerEngine, wrong: dict[str, object]
):
    with pytest.raises(Refused, match="ARG"):
        ledger.open(**wrong)

    assert ledger.names() == set()
