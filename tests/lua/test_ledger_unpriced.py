"""Caps on money and calls that do not say what they cost."""

from __future__ import annotations

import pytest

from tests.lua.ledger_engine import TTL, LedgerEngine, waiter

MONEY = {"cost.total": 1000}


def test_call_that_names_no_cost_is_refused_where_a_budget_caps_money(ledger: LedgerEngine):
    ledger.open("tokens", total=100)
    ledger.open("b", caps=MONEY)
    before = ledger.dump()

    assert ledger.reserve(input=5, budgets=["tokens", "b"]) == ["unpriced", "b", "cost.total"]

    assert ledger.dump() == before
    assert ledger.reserve(input=5, budgets=["tokens"]) == ["ok"]


@pytest.mark.parametrize(
    ("costs", "verdict"),
    [
        ({}, ["unpriced", "b", "cost.output"]),
        ({"other": 1}, ["unpriced", "b", "cost.output"]),
        ({"output": 1}, ["unpriced", "b", "cost.search"]),
        ({"output": 1, "search": 1}, ["ok"]),
        ({"total": 1}, ["ok"]),
        ({"total": 0}, ["ok"]),
    ],
)
def test_cap_on_one_cost_needs_that_cost_or_a_total(ledger: LedgerEngine, costs, verdict):
    ledger.open(caps={"cost.search": 10, "cost.output": 10, "total_tokens": 10**6})

    assert ledger.reserve(input=5, costs=costs) == verdict


def test_zero_is_a_cost(ledger: LedgerEngine):
    ledger.open(caps=MONEY)

    assert ledger.reserve(input=5, costs={"total": 0}) == ["ok"]
    assert "cost.total" not in ledger.spend()["held"]


def test_what_is_not_sent_may_leave_its_cost_open(ledger: LedgerEngine):
    ledger.open(caps=MONEY)

    assert ledger.reserve(input=5, sent=False) == ["ok"]
    assert ledger.reserve("j/1/2", input=5, sent=False, look=True) == ["ok"]


def test_nobody_waits_for_a_price(ledger: LedgerEngine):
    ledger.open("full", total=1, on="pause")
    ledger.open("b", caps=MONEY, on="pause")
    before = ledger.dump()

    verdict = ledger.reserve(input=5, budgets=["full", "b"], waiter=waiter("j"))

    assert verdict == ["unpriced", "b", "cost.total"]
    assert ledger.dump() == before


def test_reservation_that_is_open_when_a_cap_on_money_comes_stays_one(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=5)
    ledger.open(caps=MONEY, update=True)

    assert ledger.reserve(input=5) == ["ok"]
    assert ledger.reserve("j/1/2", input=5) == ["unpriced", "b", "cost.total"]


def test_slice_that_names_no_cost_is_refused_and_a_later_deadline_is_not(ledger: LedgerEngine):
    ledger.open(caps=MONEY)
    ledger.reserve(input=5, costs={"total": 7})
    before = ledger.spend()

    more = ledger.packed("ledger_extend", call="j/1/1", tokens={"input": 9}, costs={})
    later = ledger.packed("ledger_extend", call="j/1/1", tokens={}, costs={}, ttl_ms=TTL)

    assert more == ["unpriced", "b", "cost.total"]
    assert later == ["ok"]
    assert ledger.spend() == before


@pytest.mark.parametrize(
    ("settled", "money"),
    [
        ({"input": 3}, 7),
        ({"input": 3, "costs": {"total": 2}}, 2),
        ({"input": 3, "costs": {"total": 0}}, 0),
        ({"input": 0}, 0),
        ({"unused": True}, 0),
    ],
    ids=["not known", "known", "free", "nothing used", "not sent"],
)
def test_tokens_of_unknown_cost_have_cost_what_was_set_aside(ledger: LedgerEngine, settled, money):
    ledger.open(caps=MONEY)
    ledger.reserve(input=5, costs={"total": 7, "input": 7})

    assert ledger.settle(**settled) == "settled"

    spend = ledger.spend()
    assert spend["used"].get("cost.total", 0) == money
    assert spend["held"] == {}
    if "costs" not in settled and money:
        assert spend["used"] == {
            "cost.total": 7,
            "cost.input": 7,
            "total_tokens": 3000,
            "tokens.input": 3,
        }
        assert ledger.history()[-1]["cost.total"] == [7, 7]


def test_late_settle_of_unknown_cost_leaves_the_money_that_was_unverified(ledger: LedgerEngine):
    ledger.open(caps=MONEY)
    ledger.reserve(input=5, costs={"total": 7})
    ledger.advance(TTL + 1)
    ledger.upkeep()

    assert ledger.settle(input=3) == "late"

    assert ledger.spend()["used"] == {"cost.total": 7, "total_tokens": 3000, "tokens.input": 3}
    assert ledger.spend()["loose"] == {}


def test_unreserved_use_of_unknown_cost_counts_its_tokens(ledger: LedgerEngine):
    ledger.open(caps=MONEY)

    assert ledger.settle(input=3, budgets=["b"]) == "booked"

    assert ledger.spend()["used"] == {"total_tokens": 3000, "tokens.input": 3}
