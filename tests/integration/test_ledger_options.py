"""Wrong options of budgets and of a ledger's calls: refused by name before anything is sent."""

from __future__ import annotations

import math
from typing import Any
from uuid import uuid4

import pytest

from glidemq_core import Budget, InvalidOption, Ledger, Queue


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_total_tokens": -1},
        {"max_total_tokens": 1.5},
        {"max_tokens": {"input": -1}},
        {"token_weights": {"input": -1}},
        {"token_weights": {"input": 1001}},
        {"token_weights": {"input": "1"}},
        {"max_total_cost": "NaN"},
        {"max_costs": {"search": -1}},
        {"max_tokens": {"": 1}},
        {"max_tokens": {5: 1}},
        {"max_tokens": None},
        {"max_costs": {"\ud800": 1}},
        {"token_weights": {None: 1}},
        {"token_weights": {"x" * 65: 1}},
        {"cost_unit": "\ud800"},
        {"cost_unit": b"usd"},
        {"on_exceeded": "park"},
        {"window": "week"},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../etc/passwd"},
        {"time_zone": None},
    ],
)
def test_wrong_option_of_a_budget_is_named(wrong: dict[str, object]):
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Budget(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"call": ""},
        {"call": "a\nb"},
        {"tokens": {"input": 10**10}},
        {"tokens": "input"},
        {"costs": {"total": 5 * 10**6}},
        {"budgets": "b"},
        {"budgets": None},
        {"ttl": 0},
        {"limits": ["x"]},
        {"limits": {"x": 5}},
        {"limits": 5},
    ],
    ids=str,
)
async def test_wrong_option_of_a_reserve_is_refused_here(url: str, wrong: dict[str, object]):
    async with Ledger(connection=url) as ledger:
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            await ledger.reserve(**{"call": "a/1/1", **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"call": "\ud800"},
        {"call": ""},
        {"tokens": {None: 1}},
        {"costs": {"\ud800": 1}},
        {"budgets": ["a\nb"]},
        {"outcome": "odd"},
        {"remaining": {"rpm": -1}},
        {"started_at": math.nan},
        {"note": 7},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_wrong_option_of_a_settle_is_named_and_books_nothing(url: str, wrong: dict[str, Any]):
    async with Ledger(uuid4().hex, connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            await ledger.settle(
                **{"call": "a/1/1", "tokens": {"input": 5}, "budgets": ["b"]} | wrong
            )
        for call in (ledger.history("b", before="odd"), ledger.alerts(before="odd")):
            with pytest.raises(InvalidOption, match="before"):
                await call

        state = await ledger.budget("b")
        assert state is not None
        assert state.caps["total_tokens"].used == 0


async def test_budget_is_found_by_any_id_that_it_can_have(url: str):
    async with Ledger(uuid4().hex, connection=url) as ledger, Queue("odd", connection=url) as queue:
        await ledger.open_budget("team:a {b}", Budget(max_total_tokens=1))

        found = await queue.budget("team:a {b}", ledger=ledger.name)
        assert found is not None
        assert await queue.budget("team:b", ledger=ledger.name) is None
        with pytest.raises(InvalidOption, match="ledger"):
            await queue.budget("b", ledger="a}b")
        with pytest.raises(InvalidOption, match="budget"):
            await ledger.open_budget("c", 7)  # type: ignore[arg-type]
