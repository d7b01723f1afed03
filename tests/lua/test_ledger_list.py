from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import LedgerEngine


def test_budgets_are_listed_eldest_first_without_those_let_go(ledger: LedgerEngine):
    for id in ("z", "a", "m"):
        ledger.open(id, total=10)
        ledger.advance(1)
    ledger.call("ledger_drop", id="a", after_ms=1000)

    assert ledger.call("ledger_list", start=0, limit=100) == [b"z", b"m"]
    assert ledger.call("ledger_list", start=1, limit=1) == [b"m"]
    assert ledger.call("ledger_list", start=2, limit=1) == []


@pytest.mark.parametrize("args", [{"start": -1}, {"limit": 0}, {"limit": 101}, {"start": "x"}])
def test_places_that_are_none_are_refused(ledger: LedgerEngine, args: dict[str, object]):
    with pytest.raises(Refused, match=f"ARG {next(iter(args))} "):
        ledger.call("ledger_list", **{"start": 0, "limit": 10, **args})
