"""Budgets that were made for one job or one flow, over the windows of their life."""

from __future__ import annotations

import pytest

from glidemq_core import Budget, FlowJob, FlowProducer


@pytest.mark.parametrize("owner", ["job", "flow"])
async def test_job_that_its_own_budget_parks_goes_on_when_the_window_turns(
    queue, work, any_url, monkeypatch, owner
):
    monkeypatch.setattr(  # a moment, so that the test need not wait for midnight
        "glidemq_core._ledger.window_bounds",
        lambda _w, _z, now: (now // 400 * 400, now // 400 * 400 + 400),
    )
    budget = Budget(max_total_tokens=15, window="day", on_exceeded="pause")

    async def spend(job):
        async with job.llm_call("m", tokens={"input": 10}) as call:
            call.tokens = {"input": 10}

    async def handler(job):
        for name in ("one", "two"):
            await job.step(name, spend, job, inputs=name)
        return "through"

    async with work(handler), FlowProducer(any_url) as flows:
        if owner == "job":
            id = (await queue.add("n", budget=budget)).id
        else:
            id = (await flows.add(FlowJob(name="n", queue=queue.name), budget=budget)).id
        assert await queue.result(id, timeout=15) == "through"

    ended = await queue.get(id)
    assert (ended.attempt, ended.usage.total_tokens) == (1, 20)
    assert (await queue.get_flow_budget(id)).total_tokens <= 10
