from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import DAY, TTL, LedgerEngine, waiter


def test_reservation_holds_what_was_asked_and_spends_nothing(ledger: LedgerEngine):
    ledger.open(total=100)

    assert ledger.reserve(input=30) == ["ok"]

    assert ledger.spend() == {
        "used": {},
        "held": {"total_tokens": 30_000, "tokens.input": 30},
        "loose": {},
    }


def test_ask_beyond_the_cap_is_refused_with_all_figures_and_changes_nothing(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve("j/1/1", 20)
    ledger.settle("j/1/1", 20)
    ledger.reserve("j/1/2", 50)
    before = ledger.spend()

    verdict, facts, generation = ledger.reserve("j/1/3", 31)

    assert verdict == "budget"
    assert facts == {
        "budget": "b",
        "cap": "total_tokens",
        "limit": 100_000,
        "used": 20_000,
        "reserved": 50_000,
        "asked": 31_000,
        "on": "fail",
    }
    assert generation == 0
    assert ledger.spend() == before
    assert ledger.reserve("j/1/4", 30) == ["ok"], "exactly the rest fits"


def test_same_call_again_is_the_same_reservation(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)
    before = ledger.dump()

    assert ledger.reserve(input=60) == ["ok"]

    assert ledger.dump() == before


def test_settled_call_is_not_reserved_again(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=60)
    ledger.settle(input=10)

    assert ledger.reserve(input=60) == ["settled"]
    assert ledger.held() == 0


@pytest.mark.parametrize("full", ["a", "b", "c"])
def test_call_is_reserved_in_all_its_budgets_or_in_none(ledger: LedgerEngine, full: str):
    for id in ("a", "b", "c"):
        ledger.open(id, total=10 if id == full else 100)
    before = ledger.dump()

    verdict, facts, _ = ledger.reserve(input=11, budgets=["a", "b", "c"])

    assert (verdict, facts["budget"]) == ("budget", full)
    assert ledger.dump() == before
    ledger.reserve(input=10, budgets=["a", "b", "c"])
    assert [ledger.held(id) for id in ("a", "b", "c")] == [10, 10, 10]


def test_weights_count_for_the_total_and_not_for_the_category(ledger: LedgerEngine):
    ledger.open(total=100, weights={"reasoning": 2000, "cached_input": 0})

    ledger.reserve(tokens={"input": 10, "reasoning": 20, "cached_input": 1000, "unheard_of": 1})

    assert ledger.spend()["held"] == {
        "total_tokens": 51_000,
        "tokens.input": 10,
        "tokens.reasoning": 20,
        "tokens.cached_input": 1000,
        "tokens.unheard_of": 1,
    }


@pytest.mark.parametrize(
    ("caps", "asked"),
    [
        ({"tokens.output": 10}, {"tokens": {"output": 11}}),
        ({"cost.total": 10**15}, {"costs": {"total": 10**15 + 1}}),
        ({"cost.search": 5}, {"costs": {"search": 6, "total": 1}}),
    ],
)
def test_every_kind_of_cap_refuses(
    ledger: LedgerEngine, caps: dict[str, int], asked: dict[str, object]
):
    ledger.open(caps=caps)

    verdict, facts, _ = ledger.reserve(**asked)

    assert verdict == "budget"
    assert {facts["cap"]: facts["limit"]} == caps


def test_overspent_budget_refuses_a_call_that_asks_for_nothing(ledger: LedgerEngine):
    ledger.open(total=10)
    ledger.settle("x/1/1", 11, budgets=["b"])

    assert ledger.reserve(input=0)[0] == "budget"


def test_unknown_budget_is_named(ledger: LedgerEngine):
    ledger.open("a", total=10)

    assert ledger.reserve(budgets=["a", "nope"]) == ["missing", "nope"]
    assert ledger.held("a") == 0


def test_ended_window_is_to_be_renewed_before_anything_is_reserved(ledger: LedgerEngine):
    now = ledger.now()
    ledger.open(total=10, window="day", zone="Europe/Berlin", start=now - 1000, stop=now + 1000)
    assert ledger.reserve("j/1/1", 5) == ["ok"]

    ledger.advance(2000)
    verdict, at, windows = ledger.reserve("j/1/2", 5)

    assert (verdict, windows) == ("renew", [["b", "day", "Europe/Berlin"]])
    assert at >= now + 2000


def test_overdue_reservations_make_room_first(ledger: LedgerEngine):
    ledger.open(total=10)
    ledger.reserve("dead/1/1", 10, sent=False)
    assert ledger.reserve("j/1/1", 10)[0] == "budget"

    ledger.advance(TTL + 1)

    assert ledger.reserve("j/1/1", 10) == ["ok"]


def test_refused_waiter_is_registered_only_where_the_budget_pauses(ledger: LedgerEngine):
    ledger.open("hard", total=0)
    ledger.open("soft", total=0, on="pause")

    ledger.reserve("h/1/1", 1, budgets=["hard"], waiter=waiter("h"))
    ledger.reserve("s/1/1", 1, budgets=["soft"], waiter=waiter("s"))

    assert [found[2] for found in ledger.packed("ledger_get", budgets=["hard", "soft"])[1]] == [
        0,
        1,
    ]


def test_admitted_waiter_waits_no_more(ledger: LedgerEngine):
    ledger.open(total=10, on="pause")
    ledger.reserve("x/1/1", 10)
    ledger.reserve("w/1/1", 10, waiter=waiter("w"))
    ledger.settle("x/1/1", 0)

    assert ledger.reserve("w/2/1", 10, waiter=waiter("w")) == ["ok"]

    left = ledger.names()
    assert not {"waiters:b", "waits:b", "woken:b"} & left


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": {"input": -1}},
        {"tokens": {"input": 1.5}},
        {"tokens": {"input": 2**53}},
        {"costs": {"total": float("nan")}},
        {"tokens": {f"c{n}": 1 for n in range(65)}},
        {"budgets": ["b", "b"]},
        {"budgets": "b"},
        {"ttl_ms": 0},
        {"ttl_ms": DAY + 1},
        {"waiter": "w"},
        {"waiter": {"queue": "q"}},
        {"limiters": ["m"]},
        {"limiters": [["m", "no JSON"]]},
        {
            "limiters": [
                {"name": "m", "axes": [{"axis": "tpm", "limit": 1, "period_ms": DAY, "burst": 1}]}
            ],
            "tokens": {"input": 10**9},
        },
        {"limiters": [{"name": "m", "axes": []}, {"name": "m", "axes": []}]},
        {
            "limiters": [
                {"name": "m", "axes": [{"axis": "rpm", "limit": 0, "period_ms": 1, "burst": 1}]}
            ]
        },
        {
            "limiters": [
                {
                    "name": "m",
                    "axes": [{"axis": "tpm", "limit": 10**12, "period_ms": DAY, "burst": 1}],
                }
            ]
        },
    ],
)
def test_wrong_argument_is_refused_before_anything_is_written(
    ledger: LedgerEngine, wrong: dict[str, object]
):
    ledger.open(total=10)
    before = ledger.dump()

    with pytest.raises(Refused, match="ARG"):
        ledger.reserve(**{"call": "j/1/1", **wrong})

    assert ledger.dump() == before


def test_reservation_is_told_with_the_servers_time_and_its_repeat_with_the_same(
    ledger: LedgerEngine,
):
    ledger.open(total=100)
    args = {
        "call": "j/1/1",
        "budgets": ["b"],
        "tokens": {},
        "costs": {},
        "ttl_ms": 9000,
        "sent": True,
    }
    before = ledger.now()

    verdict, at = ledger.packed("ledger_reserve", **args)

    assert verdict == "ok"
    assert before <= at <= ledger.now()
    ledger.advance(5000)
    assert ledger.packed("ledger_reserve", **args) == ["ok", at]
