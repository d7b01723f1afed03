"""Jobs that wait for room in a budget, and go; budgets that go while jobs wait."""

from __future__ import annotations

import dataclasses

import pytest

from glidemq_core import Budget, JobFailed, Ledger
from tests.harness.jobs import until_counted


@pytest.mark.parametrize("is_parked_first", [True, False])
async def test_job_that_waits_for_a_budget_which_is_dropped_fails_and_does_not_wait_for_ever(
    queue, work, any_url, is_parked_first
):
    async def spend(job):
        async with job.llm_call("m", tokens={"input": 9}):
            return

    async with Ledger(queue.name, connection=any_url) as ledger, work(spend):
        await ledger.open_budget("b", Budget(max_total_tokens=1, on_exceeded="pause"))
        if not is_parked_first:
            await ledger.drop_budget("b", after=1)
        job = await queue.add("n", budgets=["b"], ledger=queue.name)
        if is_parked_first:
            await until_counted(queue, delayed=1)
            await ledger.drop_budget("b", after=1)

        with pytest.raises(JobFailed, match="no budget of that id"):
            await job.result(timeout=20)


async def test_cancelled_jobs_hold_up_none_of_those_that_wait_behind_them(queue, work, any_url):
    async def spend(job):
        async with job.llm_call("m", tokens={"input": 1}) as call:
            call.tokens = {"input": 1}

    async with Ledger(queue.name, connection=any_url) as ledger, work(spend):
        await ledger.open_budget("b", Budget(max_total_tokens=0, on_exceeded="pause"))
        jobs = [await queue.add("n", budgets=["b"], ledger=queue.name) for _ in range(21)]
        await until_counted(queue, delayed=21)
        for job in jobs[:20]:
            await job.cancel()

        await ledger.update_budget("b", Budget(max_total_tokens=1, on_exceeded="pause"))

        # Room for one: it would be kept for each of the twenty, one after the other, for five seconds.
        await jobs[20].result(timeout=20)


@pytest.mark.parametrize("room", ["raised", "settled", "released"])
async def test_who_makes_room_wakes_the_jobs_that_fit_though_no_worker_runs(
    queue, work, any_url, room
):
    async def spend(job):
        async with job.llm_call("m", tokens={"input": 10}) as call:
            call.tokens = {"input": 10}

    pause = Budget(max_total_tokens=10, on_exceeded="pause")
    async with Ledger(queue.name, connection=any_url) as ledger:
        await ledger.open_budget("b", pause)
        held = await ledger.reserve("c/1/1", tokens={"input": 10}, budgets=["b"])
        async with work(spend):
            job = await queue.add("n", budgets=["b"], ledger=queue.name)
            await until_counted(queue, delayed=1)

        if room == "raised":
            await ledger.update_budget("b", dataclasses.replace(pause, max_total_tokens=20))
        elif room == "settled":
            await held.settle(tokens={})
        else:
            await held.release()

        assert (await job.snapshot()).state == "waiting"
