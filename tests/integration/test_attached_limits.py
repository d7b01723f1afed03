"""Limiters of a job, a handler, a worker or a queue; and tokens told to them without a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from glidemq_core import Budget, InvalidOption, JobFailed, Ledger, Throttle, limited
from tests.harness.jobs import until_state
from tests.harness.processes import eventually

ONE = {"p": Throttle(concurrency=1)}
SLOW = {"p": Throttle(tpm=60)}


class Calls:
    """A handler whose jobs make one call each; knows how many were open at one time.

    `meet`: calls stay open until that many are, and have been.
    """

    def __init__(self, meet: int = 1) -> None:
        self.open = self.most = 0
        self.meet = meet

    async def __call__(self, job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 1}) as call:
            self.open += 1
            self.most = max(self.most, self.open)
            await eventually(lambda: self.most >= self.meet)
            await asyncio.sleep(0.02)
            call.tokens = {"input": 1}
            self.open -= 1


@pytest.mark.parametrize("where", ["nowhere", "job", "handler", "worker", "queue"])
async def test_limits_hold_wherever_they_are_attached(queue, work, where):
    calls, together = Calls(meet=2 if where == "nowhere" else 1), 5
    if where == "queue":
        await queue.set_limits(ONE)
    handler = limited(ONE)(calls) if where == "handler" else calls

    async with work(handler, concurrency=together, limits=ONE if where == "worker" else None):
        jobs = [await queue.add("j", limits=ONE if where == "job" else None) for _ in range(2)]
        for job in jobs:
            await job.result(timeout=10)

    assert calls.most == (2 if where == "nowhere" else 1)


async def test_limits_of_a_queue_reach_its_workers_while_they_run_and_end(queue, work):
    calls = Calls()

    async def most_of_two(meet):
        calls.most, calls.meet = 0, meet
        jobs = [await queue.add("j") for _ in range(2)]
        for job in jobs:
            await job.result(timeout=10)
        return calls.most

    async with work(calls, concurrency=5):
        before = await most_of_two(meet=2)
        await queue.set_limits(ONE)
        during = await most_of_two(meet=1)
        await queue.set_limits(None)
        after = await most_of_two(meet=2)

    assert (before, during, after) == (2, 1, 2)


async def test_jobs_of_one_limiter_do_not_start_while_reported_tokens_are_owed(
    queue, work, any_url
):
    started = []

    async def handler(job):
        started.append(job.id)
        await job.report_tokens(50)
        await job.report_tokens({"output": 10})

    async with work(handler), Ledger(connection=any_url) as ledger:
        first = await queue.add("j", limits=SLOW)
        await first.result(timeout=5)
        state = await ledger.limiter_state("p")
        second = await queue.add("j", limits=SLOW)
        parked = await until_state(queue, second.id, "delayed")

    assert 40 <= state.axes["tpm"].used <= 60  # one a second is given back
    assert started == [first.id]
    assert (parked.reason, parked.attempt, parked.usage.total_tokens) == ("throttled", 1, 0)


async def test_use_that_nobody_reserved_stops_the_next_step_of_its_job(queue, work, any_url):
    made = []

    async def handler(job):
        await job.step("one", made.append, 1)
        await job.report_usage(model="m", tokens={"input": job.data})
        await job.step("two", made.append, 2)

    async with work(handler), Ledger(connection=any_url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        await (await queue.add("j", 100, budgets=["b"])).result(timeout=5)
        await ledger.update_budget("b", Budget(max_total_tokens=200))
        with pytest.raises(JobFailed, match=r"'b'.*100 leaves|'b': total_tokens of 200"):
            await (await queue.add("j", 101, budgets=["b"], attempts=3)).result(timeout=5)
        state = await ledger.budget("b")

    assert made == [1, 2, 1]
    assert state.total_tokens == 201


async def test_job_of_a_budget_that_is_used_up_does_not_start_but_one_under_way_ends(
    queue, work, any_url
):
    started = []

    async def handler(job):
        started.append(job.data)
        if job.data == "waits":
            await job.wait_for_signal("go")

    async with work(handler, concurrency=2), Ledger(connection=any_url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        waits = await queue.add("j", "waits", budgets=["b"])
        await until_state(queue, waits.id, "suspended")
        await ledger.settle("c/1/1", tokens={"input": 100}, budgets=["b"])
        late = await queue.add("j", "late", budgets=["b"])
        with pytest.raises(JobFailed) as caught:
            await late.result(timeout=5)
        await waits.signal("go")
        await waits.result(timeout=5)

    assert caught.value.reason == "budget"
    assert started == ["waits", "waits"]


@pytest.mark.parametrize(
    "limits", [{"p": 5}, ["p"], {"p" + str(i): Throttle(rpm=1) for i in range(17)}]
)
async def test_wrong_limits_are_named(queue, work, limits):
    for use in (
        lambda: queue.set_limits(limits),
        lambda: queue.add("j", limits=limits),
    ):
        with pytest.raises(InvalidOption, match="limits"):
            await use()
    with pytest.raises(InvalidOption, match="limits"):
        work(print, limits=limits)
    with pytest.raises(InvalidOption, match="limits"):
        limited(limits)
