"""What the ledger remembers of its records is never believed over what the server holds."""

from __future__ import annotations

import pytest

from tests.lua.engine import Broken
from tests.lua.ledger_engine import LedgerEngine


def test_sums_that_something_else_has_changed_are_read_again(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve("j/1/1", 40)
    key = f"{ledger.root}:spend:b:0"
    before = ledger.server.cmd("GET", key)
    ledger.reserve("j/1/2", 40)

    ledger.server.cmd("SET", key, before)  # as a failover that lost the second reserve does

    assert ledger.held() == 40
    assert ledger.reserve("j/1/3", 60)[0] == "ok"
    assert ledger.held() == 100


def test_reserve_that_broke_off_before_its_write_has_changed_nothing(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve("j/1/1", 40)

    with pytest.raises(Broken):
        ledger.reserve("j/1/2", 60, fail_after=2)  # both index entries, not the records

    assert ledger.held() == 40
    assert ledger.reserve("j/1/3", 60)[0] == "ok"


def test_refusals_leave_the_sums_as_they_are(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve("j/1/1", 40)

    for n in range(3):
        assert ledger.reserve(f"x/1/{n}", 61)[0] == "budget"

    assert (ledger.held(), ledger.used()) == (40, 0)
    assert ledger.settle("j/1/1", 30) == "settled"
    assert (ledger.held(), ledger.used()) == (0, 30)
