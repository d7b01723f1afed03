from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import MINUTE, TTL, LedgerEngine, throttle


def extend(
    ledger: LedgerEngine, call: str = "j/1/1", input: int = 0, **more: object
) -> list[object]:
    return ledger.packed(
        "ledger_extend", **{"call": call, "tokens": {"input": input}, "costs": {}, **more}
    )


def test_slice_raises_the_reservation_to_its_total_once(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=30)

    assert extend(ledger, input=50) == ["ok"]
    assert extend(ledger, input=50) == ["ok"]

    assert ledger.held() == 50
    assert extend(ledger, input=20) == ["ok"]
    assert ledger.held() == 50, "a reservation never shrinks but by its settle"


def test_refused_slice_names_its_cap_and_leaves_the_reservation(ledger: LedgerEngine):
    ledger.open("a", total=1000)
    ledger.open("b", total=100)
    ledger.reserve(input=30, budgets=["a", "b"])
    before = ledger.dump()

    verdict, facts, _ = extend(ledger, input=101)

    assert (verdict, facts["budget"], facts["asked"]) == ("budget", "b", 71_000)
    assert ledger.dump() == before
    assert ledger.settle(input=35) == "settled"
    assert (ledger.used(), ledger.held()) == (35, 0)


def test_settle_after_slices_leaves_nothing_held(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=10)
    for total in (20, 30, 40):
        extend(ledger, input=total, tokens={"input": 10, "output": total - 10})

    ledger.settle(tokens={"input": 10, "output": 25})

    assert ledger.spend()["held"] == {}
    assert ledger.used() == 35


def test_slice_can_put_off_the_deadline_and_never_brings_it_closer(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=10)

    extend(ledger, input=10, ttl_ms=2 * TTL)
    extend(ledger, input=10, ttl_ms=10)

    ledger.advance(TTL + 1)
    ledger.upkeep()
    assert ledger.held() == 10
    ledger.advance(TTL)
    ledger.upkeep()
    assert ledger.spend()["loose"]["total_tokens"] == 10_000


def test_limiters_are_charged_for_the_slice_and_corrected_by_the_settle(ledger: LedgerEngine):
    ledger.limited("j/1/1", 10, throttle(tpm=(60, 100)))

    assert extend(ledger, input=500) == ["ok"]
    debt = ledger.limiter()[0]["axes"]["tpm"][0]
    ledger.settle(input=20)

    assert 499 * MINUTE <= debt <= 500 * MINUTE
    assert ledger.limiter()[0]["axes"]["tpm"][0] <= 20 * MINUTE


def test_call_that_is_over_or_unknown_is_not_extended(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=10)
    ledger.settle(input=10)

    assert extend(ledger, input=20) == ["over"]
    assert extend(ledger, "nobody/1/1", input=20) == ["over"]


def test_wrong_argument_is_refused_before_anything_is_written(ledger: LedgerEngine):
    ledger.open(total=100)
    ledger.reserve(input=10)
    before = ledger.dump()

    for wrong in ({"tokens": {"input": 0.5}}, {"ttl_ms": -1}, {"call": 1}):
        with pytest.raises(Refused, match="ARG"):
            extend(ledger, **wrong)

    assert ledger.dump() == before
