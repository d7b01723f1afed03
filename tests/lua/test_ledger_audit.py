from __future__ import annotations

import pytest

from tests.lua.engine import Refused
from tests.lua.ledger_engine import LedgerEngine


def test_open_calls_add_up_to_what_is_held(ledger: LedgerEngine):
    ledger.open("a", total=1000)
    ledger.open("b", total=1000)
    ledger.reserve("j/1/1", 10, budgets=["a", "b"])
    ledger.reserve("j/1/2", 20, budgets=["b"])
    ledger.reserve("j/1/3", 30, budgets=["a"])
    ledger.reserve("j/1/4", 40, budgets=["b"])
    ledger.settle("j/1/4", 4)

    _, window, held, used, sums, count, last = ledger.audited()

    assert (window, count, last) == (0, 2, "")
    assert {name: number for name, number in held.items() if number} == sums
    assert sums["total_tokens"] == 30_000
    assert used["total_tokens"] == 4_000


def test_pages_cover_every_open_call(ledger: LedgerEngine):
    ledger.open(total=10_000)
    for n in range(510):
        ledger.reserve(f"j/{n}/1", 1)

    first = ledger.audited()
    second = ledger.packed("ledger_audit", id="b", after=first[6])

    assert (first[5], second[5]) == (500, 10)
    assert second[6] == ""


def test_every_change_of_the_sums_has_a_new_version(ledger: LedgerEngine):
    ledger.open(total=1000)
    seen = {ledger.audited()[0]}
    for change in (
        lambda: ledger.reserve("j/1/1", 10),
        lambda: ledger.packed("ledger_extend", call="j/1/1", tokens={"input": 20}, costs={}),
        lambda: ledger.settle("j/1/1", 5),
        lambda: ledger.settle("x/1/1", 5, budgets=["b"]),
    ):
        change()
        version = ledger.audited()[0]
        assert version not in seen
        seen.add(version)


def test_missing_budget_has_no_page(ledger: LedgerEngine):
    assert ledger.audited() == []


def test_wrong_argument_is_refused(ledger: LedgerEngine):
    with pytest.raises(Refused, match="ARG"):
        ledger.packed("ledger_audit", id="b")
