from __future__ import annotations

import msgspec
import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import LedgerEngine


def test_pages_lead_back_to_the_first_entry(ledger: LedgerEngine):
    ledger.open(total=1000)
    for n in range(5):
        ledger.settle(f"x/1/{n}", n, budgets=["b"])

    seen, before = [], ""
    while page := ledger.call("ledger_history", id="b", before=before, limit=2):
        seen += [msgspec.msgpack.decode(fields[1])[1] for _, fields in page]
        before = page[-1][0].decode()

    assert seen == ["x/1/4", "x/1/3", "x/1/2", "x/1/1", "x/1/0", ""]


def test_entry_says_what_a_sum_gained_and_became(ledger: LedgerEngine):
    ledger.open(total=1000)
    ledger.settle("x/1/1", 5, budgets=["b"], note="complete")

    ledger.settle("x/1/2", 6, budgets=["b"], costs={"total": 7})

    last = ledger.history()[-1]
    assert last == {
        "kind": "unreserved",
        "call": "x/1/2",
        "window": 0,
        "note": "",
        "total_tokens": [6000, 11000],
        "tokens.input": [6, 11],
        "cost.total": [7, 7],
    }


def test_unknown_budget_has_no_history(ledger: LedgerEngine):
    assert ledger.history("nope") == []
    assert ledger.history("") == []


def test_wrong_argument_is_refused(ledger: LedgerEngine):
    with pytest.raises(Refused, match="ARG"):
        ledger.call("ledger_history", id="b", before="", limit=1001)
