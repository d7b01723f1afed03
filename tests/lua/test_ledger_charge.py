from __future__ import annotations

import json

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import MINUTE, LedgerEngine

LIMITER = [
    "p",
    json.dumps({"axes": [{"axis": "tpm", "limit": 60, "period_ms": MINUTE, "burst": 6}]}),
]


def _charge(ledger: LedgerEngine, call: str, tokens: int) -> list[str]:
    return ledger.packed("ledger_charge", call=call, limiters=[LIMITER], tokens={"input": tokens})


def _used(ledger: LedgerEngine) -> int:
    ((state, _),) = ledger.packed("ledger_get", limiters=["p"])[2]
    return round(state["axes"]["tpm"][0] / MINUTE)


def test_tokens_are_charged_without_being_asked_for_and_once_per_call(ledger: LedgerEngine):
    assert _charge(ledger, "j/1/1", 50) == ["ok"]
    assert _charge(ledger, "j/1/1", 50) == ["already"]
    assert _charge(ledger, "j/1/2", 10) == ["ok"]

    assert _used(ledger) == 60
    assert ledger.limited("k/1/1", 1, LIMITER)[0] == "throttled"


def test_charged_limiter_leaves_no_key_for_ever(ledger: LedgerEngine):
    _charge(ledger, "j/1/1", 50)

    assert {name for name in ledger.names() if ledger.ttl(name) == -1} == set()


def test_wrong_argument_is_refused_and_changes_nothing(ledger: LedgerEngine):
    for more in ({"tokens": {"input": -1}}, {"limiters": [["p"]]}, {"call": 7}):
        args = {"call": "j/1/1", "limiters": [LIMITER], "tokens": {"input": 1}, **more}
        with pytest.raises(Refused, match="ARG"):
            ledger.call("ledger_charge", **args)
    assert ledger.names() == set()


def test_look_asks_for_rates_and_not_for_places(ledger: LedgerEngine):
    one = {"name": "p", "axes": [], "concurrency": 1}
    assert ledger.limited("j/1/1", 1, one) == ["ok"]

    assert ledger.limited("k/1/1", 1, one)[0] == "throttled"
    assert ledger.limited("l/1/look", 1, one, look=True) == ["ok"]


def test_look_answers_as_a_reserve_and_sets_nothing_aside(ledger: LedgerEngine):
    ledger.open(total=10)
    before = ledger.names()

    assert ledger.reserve("j/1/look", 10, look=True) == ["ok"]
    assert ledger.names() == before
    assert ledger.reserve("j/1/look", 11, look=True)[0] == "budget"
    assert ledger.reserve("j/1/1", 10) == ["ok"]
