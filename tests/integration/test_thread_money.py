"""The money of handlers in threads: calls made by hand, reserved and booked as those of async handlers."""

from __future__ import annotations

import pytest

from glidemq_core import Budget, JobFailed, Ledger, Throttle


@pytest.fixture
async def ledger(any_url):
    async with Ledger(connection=any_url) as opened:
        await opened.open_budget("b", Budget(max_total_tokens=100))
        yield opened


async def test_call_by_hand_in_a_thread_is_reserved_and_booked(queue, work, ledger):
    def handler(job):
        with job.llm_call("m", tokens={"input": 50}) as call:
            call.tokens = {"input": 7}
        return job.budget.state().total_tokens

    async with work(handler):
        job = await queue.add("j", budgets=["b"])
        assert await job.result(timeout=5) == 7
        refused = await queue.add("j", budgets=["b"], estimate={"tokens": 101})
        with pytest.raises(JobFailed):
            await refused.result(timeout=5)

    assert (await job.snapshot()).usage.total_tokens == 7
    assert (await ledger.budget("b")).reserved == {}


async def test_call_by_hand_that_breaks_in_a_thread_books_its_estimate(queue, work, ledger):
    def handler(job):
        with job.llm_call("m", tokens={"input": 50}):
            raise ConnectionError("in the middle")

    async with work(handler):
        job = await queue.add("j", budgets=["b"])
        with pytest.raises(JobFailed, match="in the middle"):
            await job.result(timeout=5)

    (call,) = (await job.snapshot()).usage.calls
    assert (call["status"], call["tokens"]) == ("missing", {"input": 50})


async def test_tokens_reported_in_a_thread_are_owed(queue, work, ledger):
    async with work(lambda job: job.report_tokens(60)):
        await (await queue.add("j", limits={"p": Throttle(tpm=60)})).result(timeout=5)

    assert (await ledger.limiter_state("p")).axes["tpm"].used > 0
