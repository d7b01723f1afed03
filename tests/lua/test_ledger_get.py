from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import MINUTE, LedgerEngine, throttle


def test_absent_names_are_false_in_their_place(ledger: LedgerEngine):
    ledger.open("a", total=10)

    now, budgets, limiters = ledger.packed("ledger_get", budgets=["a", "nope"], limiters=["nope"])

    assert abs(now - ledger.now()) < 1000
    assert budgets[0][0]["caps"] == {"total_tokens": 10_000}
    assert budgets[1] is False
    assert limiters == [False]


def test_debts_have_leaked_up_to_now(ledger: LedgerEngine):
    ledger.limited("j/1/1", 100, throttle(tpm=(60, 100)))

    ledger.advance(30_000)

    state, running = ledger.limiter()
    assert 69 * MINUTE <= state["axes"]["tpm"][0] <= 70 * MINUTE
    assert running == 0


def test_reading_writes_nothing(ledger: LedgerEngine):
    ledger.open(total=10)
    ledger.limited("j/1/1", 1, throttle(tpm=(60, 100)))
    before = ledger.dump()

    ledger.packed("ledger_get", budgets=["b"], limiters=["m"])

    assert ledger.dump() == before


def test_wrong_argument_is_refused(ledger: LedgerEngine):
    with pytest.raises(Refused, match="ARG"):
        ledger.packed("ledger_get", budgets=["b"] * 101)
