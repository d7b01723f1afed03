"""Jobs whose budgets are in another ledger than the main one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glidemq_core import Budget, InvalidOption, Ledger, Parent
from tests.harness.processes import eventually


async def spend(job: Any) -> int:
    async with job.llm_call("m", tokens={"input": 10}) as call:
        call.tokens = {"input": 10}
    return 10


async def test_jobs_of_another_ledger_are_parked_and_woken_there(queue, work, any_url, any_server):
    async def parent(job: Any) -> int:
        await job.add_child("j")
        await job.wait_for_children()
        return await spend(job)

    async with Ledger("eu", connection=any_url) as ledger:

        async def both_wait() -> bool:
            return (await ledger.budget("b")).waiting == 2

        await ledger.open_budget("b", Budget(max_total_tokens=15, on_exceeded="pause"))
        async with work({"j": spend, "parent": parent}, concurrency=2):
            job = await queue.add("j", budgets=["b"], ledger="eu")
            assert await job.result(timeout=10) == 10
            more = await queue.add("parent", budgets=["b"], ledger="eu")
            own = await queue.add(
                "j", budgets=["b"], ledger="eu", budget=Budget(max_total_tokens=10)
            )
            await eventually(both_wait)
            await ledger.update_budget("b", Budget(max_total_tokens=40, on_exceeded="pause"))
            assert await asyncio.gather(*(one.result(timeout=10) for one in (more, own))) == [
                10,
                10,
            ]
        state = await ledger.budget("b")

    assert (state.total_tokens, state.reserved) == (40, {})
    assert (await queue.get_flow_budget(own.id)).total_tokens == 10
    assert (await queue.budget("b", ledger="eu")).total_tokens == 40
    assert any_server.keys("glidemq:{ledger:main}*") == []


async def test_child_of_another_ledger_than_its_parents_budgets_is_refused(queue, work, any_url):
    async def parent(job: Any) -> list[str]:
        told = []
        for add in (
            lambda: job.add_child("leaf", options={"ledger": "us"}),
            lambda: queue.add(
                "leaf", budgets=["c"], ledger="us", parent=Parent(id=job.id, queue=queue.name)
            ),
        ):
            with pytest.raises(InvalidOption, match="us") as caught:
                await add()
            told.append(caught.value.field)
        return told

    async with Ledger("eu", connection=any_url) as ledger, work({"parent": parent}):
        await ledger.open_budget("b", Budget())
        job = await queue.add("parent", budgets=["b"], ledger="eu")
        assert await job.result(timeout=10) == ["ledger", "ledger"]

    assert sum((await queue.counts()).values()) == 1
