"""Jobs that call models by hand under a cap on money: each call says what it costs, or is not made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from glidemq_core import Budget, JobFailed, Queue, Worker
from glidemq_core.ledger import Ledger

MONEY = Budget(max_total_tokens=100, max_total_cost="0.05")


@pytest.fixture
async def ledger(any_url: str) -> AsyncIterator[Ledger]:
    async with Ledger(connection=any_url) as opened:
        yield opened


async def used(ledger: Ledger, id: str = "b") -> int:
    state = await ledger.budget(id)
    assert state is not None
    assert state.reserved == {}
    return state.total_tokens


@pytest.mark.parametrize("on", ["fail", "pause"])
async def test_call_that_does_not_say_what_it_costs_is_not_made_under_a_cap_on_money(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger, on: Any
):
    await ledger.open_budget("tokens", Budget(max_total_tokens=100))
    await ledger.open_budget("b", Budget(max_total_cost=1, on_exceeded=on))
    made: list[str] = []

    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 10}) as call:
            made.append(call.id)

    async with work(handler):
        job = await queue.add("j", budgets=["tokens", "b"], attempts=3)
        with pytest.raises(JobFailed, match="'b' caps cost.total") as caught:
            await job.result(timeout=10)

    assert (caught.value.reason, caught.value.attempt, made) == ("budget", 1, [])
    assert (await used(ledger, "tokens"), await used(ledger)) == (0, 0)


async def test_call_may_say_that_it_costs_nothing(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", MONEY)

    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 10}, costs={"total": 0}) as call:
            call.tokens = {"input": 10}

    async with work(handler):
        await (await queue.add("j", budgets=["b"])).result(timeout=10)

    assert await used(ledger) == 10


async def test_call_that_tells_its_tokens_but_no_cost_has_cost_what_was_reserved(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", MONEY)

    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 10}, costs={"total": "0.02"}) as call:
            call.tokens = {"input": 5}

    async with work(handler):
        ends = [await queue.add("j", budgets=["b"]) for _ in range(3)]
        found = await asyncio.gather(
            *(job.result(timeout=10) for job in ends), return_exceptions=True
        )

    assert [type(end) for end in found] == [type(None), type(None), JobFailed]
    state = await ledger.budget("b")
    assert state is not None
    assert (state.total_tokens, str(state.total_cost)) == (10, "0.04")
    usage = (await ends[0].snapshot()).usage  # type: ignore[union-attr]
    assert (usage.unpriced, dict(usage.costs)) == (1, {})
    assert (await ledger.audit("b")).problems == ()


async def test_use_of_unknown_cost_stops_the_next_step_under_a_cap_on_money(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("tokens", Budget(max_total_tokens=100))
    await ledger.open_budget("b", MONEY)
    made: list[Any] = []

    async def handler(job: Any) -> None:
        await job.step("one", made.append, 1)
        await job.report_usage(model="m", tokens={"input": 10}, costs=job.data)
        await job.step("two", made.append, 2)

    async with work(handler):
        await (await queue.add("j", {"total": 0}, budgets=["b"])).result(timeout=10)
        await (await queue.add("j", budgets=["tokens"])).result(timeout=10)
        with pytest.raises(JobFailed, match="'b' caps cost.total") as caught:
            await (await queue.add("j", budgets=["b"], attempts=3)).result(timeout=10)

    assert (caught.value.reason, made) == ("budget", [1, 2, 1, 2, 1])
    assert await used(ledger) == 20


async def test_estimate_and_question_may_leave_the_money_open(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    await ledger.open_budget("b", MONEY)

    async def handler(job: Any) -> list[bool]:
        grants = [await job.budget.try_reserve(n) for n in (50, 60)]
        return [grant is not None for grant in grants]

    async with work(handler):
        job = await queue.add("j", budgets=["b"], estimate={"tokens": 10})
        assert await job.result(timeout=10) == [True, False]
