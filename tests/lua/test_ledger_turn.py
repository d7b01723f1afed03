from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import DAY, LedgerEngine, waiter


@pytest.fixture
def start(ledger: LedgerEngine) -> int:
    """A day that has a second left, with 40 of 100 used."""
    start = ledger.now() + 1000 - DAY
    ledger.open(total=100, on="pause", window="day", start=start, stop=start + DAY)
    ledger.settle("x/1/1", 40, budgets=["b"])
    return start


def turn(ledger: LedgerEngine, start: int) -> list[object]:
    return ledger.packed("ledger_turn", id="b", start=start, stop=start + DAY)


def test_next_window_begins_with_nothing_and_the_first_to_tell_is_right(
    ledger: LedgerEngine, start: int
):
    ledger.advance(1001)

    assert turn(ledger, start + DAY)[0] == "turned"
    ledger.settle("x/1/2", 7, budgets=["b"])
    assert turn(ledger, start + DAY)[0] == "kept"

    assert ledger.used() == 7


def test_window_that_has_not_begun_or_is_over_is_not_taken(ledger: LedgerEngine, start: int):
    assert turn(ledger, start + DAY)[0] == "early"
    assert turn(ledger, start - DAY)[0] == "kept"
    ledger.advance(3 * DAY)
    assert turn(ledger, start + DAY)[0] == "early"

    assert ledger.used() == 40


def test_new_window_wakes_who_fits(ledger: LedgerEngine, start: int):
    ledger.reserve("w/1/1", 90, waiter=waiter("w"))
    ledger.advance(1001)

    _, wakes = turn(ledger, start + DAY)

    assert [wake[4] for wake in wakes] == ["w"]
    assert wakes[0][3] > 0


def test_alerts_are_told_anew_in_a_new_window(ledger: LedgerEngine, start: int):
    ledger.settle("x/1/2", 10, budgets=["b"])
    ledger.advance(1001)
    turn(ledger, start + DAY)
    ledger.settle("x/1/3", 50, budgets=["b"])

    assert [entry["percent"] for entry in ledger.history("")] == ["50", "50"]


def test_unknown_budget_has_no_window(ledger: LedgerEngine):
    assert ledger.packed("ledger_turn", id="b", start=0, stop=1) == ["missing", []]


def test_wrong_argument_is_refused(ledger: LedgerEngine):
    with pytest.raises(Refused, match="ARG"):
        ledger.packed("ledger_turn", id="b", start=-1, stop=1)
