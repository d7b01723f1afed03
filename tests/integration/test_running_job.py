"""What a running job can do besides waiting and streaming."""

from __future__ import annotations

import asyncio

import pytest

from glidemq_core import Budget, InvalidOption, JobCancelled, JobFailed, Ledger, NewJob, Throttle
from tests.harness.jobs import lose


async def test_moved_job_starts_again_with_its_next_step_and_the_same_attempt(queue, work):
    async def handler(job):
        if job.data.get("step") != "two":
            await job.move_to_delayed(0.05, next_step="two")
        return [job.data, job.attempt, job.run]

    async with work(handler):
        job = await queue.add("n", {"x": 1})

        assert await job.result(timeout=5) == [{"x": 1, "step": "two"}, 1, 2]


async def test_crash_in_the_second_of_three_moves_repeats_that_step_alone(queue, work):
    done = []

    async def handler(job):
        step = job.data.get("step", "one")
        if step == "two" and "lost" not in done:
            done.append("lost")
            await lose(job)
        done.append(step)
        if step != "three":
            await job.move_to_delayed(0.02, next_step={"one": "two", "two": "three"}[step])
        return job.attempt

    async with work(handler, lock_duration=1):
        job = await queue.add("n", {})
        assert await job.result(timeout=20) == 1
        ended = await job.snapshot()

    assert done == ["one", "lost", "two", "three"]
    assert (ended.attempt, ended.run, ended.stalled) == (1, 4, 1)


async def test_job_that_nobody_reads_is_cancelled(queue, work):
    async def handler(job):
        await asyncio.Event().wait()

    async with work(handler, lock_duration=0.3):
        job = await queue.add("n", stop_when_no_readers=0.5)

        with pytest.raises(JobCancelled):
            await job.result(timeout=10)


@pytest.mark.faults
@pytest.mark.parametrize("patience", [1, 3])
async def test_job_that_is_read_goes_on(queue, work, patience):
    beats = 0

    async def handler(job):
        nonlocal beats
        while beats < 20:
            beats += 1
            await job.stream_chunk("content", "x")
            await asyncio.sleep(0.2)
        return beats

    async with work(handler, lock_duration=1):
        job = await queue.add("n", stop_when_no_readers=patience)
        chunks = [chunk async for chunk in job.stream()]

        assert chunks[-1].content == "completed"
        assert await job.result(timeout=5) == 20


async def test_manual_call_is_booked_with_what_it_used(queue, work):
    async def handler(job):
        async with job.llm_call("m", tokens={"input": 100}) as call:
            call.tokens, call.costs = {"input": 7}, {"total": "0.001"}

    async with work(handler):
        job = await queue.add("n")
        await job.result(timeout=5)

        usage = (await job.snapshot()).usage
        assert usage.tokens == {"input": 7}
        assert str(usage.total_cost) == "0.001"


async def test_manual_call_that_breaks_books_its_estimate_as_not_known(queue, work):
    async def handler(job):
        async with job.llm_call("m", tokens={"input": 100}):
            raise ValueError("cut")

    async with work(handler):
        job = await queue.add("n")
        with pytest.raises(Exception, match="cut"):
            await job.result(timeout=5)

        (call,) = (await job.snapshot()).usage.calls
        assert (call["tokens"], call["status"]) == ({"input": 100}, "missing")


async def test_calls_above_their_estimates_overshoot_by_those_in_flight_alone(queue, work, any_url):
    async def handler(job):
        async with job.llm_call("m", tokens={"input": 30}) as call:
            call.tokens = {"input": 45}
        return 45

    async with work(handler, concurrency=20), Ledger(connection=any_url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=100))
        jobs = await queue.add_many([NewJob(name="n", budgets=["b"]) for _ in range(20)])
        ends = await asyncio.gather(
            *(job.result(timeout=20) for job in jobs), return_exceptions=True
        )
        state = await ledger.budget("b")

    made = [end for end in ends if end == 45]
    assert {end.reason for end in ends if isinstance(end, JobFailed)} == {"budget"}
    assert len(made) in (2, 3)  # the third only comes while no other has been settled
    assert (state.total_tokens, state.reserved) == (45 * len(made), {})


async def test_of_updates_at_one_time_the_last_stands_for_the_handler_and_the_server(queue, work):
    async def handler(job):
        await asyncio.gather(
            *(job.update_data(n) for n in range(20)), *(job.log("x") for _ in "abc")
        )
        return job.data

    async with work(handler):
        job = await queue.add("n")
        known = await job.result(timeout=10)
        stored = (await job.snapshot()).data

    assert (known, stored, await queue.log(job.id)) == (19, 19, ["x"] * 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"remaining": {"rpm": -1}},
        {"remaining": {"rpm": float("inf")}},
        {"outcome": "odd"},
        {"tokens": {"input": -1}},
        {"tokens": 5},
    ],
    ids=str,
)
async def test_wrong_report_is_named_and_books_nothing_anywhere(queue, work, any_url, wrong):
    async def handler(job):
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            await job.report_usage(**{"model": "m", "tokens": {"input": 1}} | wrong)

    async with Ledger(connection=any_url) as ledger, work(handler):
        await ledger.open_budget(queue.name, Budget(max_total_tokens=100))
        job = await queue.add("n", budgets=[queue.name])
        await job.result(timeout=10)
        budget = await ledger.budget(queue.name)

    assert ((await job.snapshot()).usage.tokens, budget.caps["total_tokens"].used) == ({}, 0)


async def test_provider_that_asks_for_days_is_let_alone_for_one_and_its_call_is_booked(
    queue, work, any_url
):
    async def handler(job):
        await job.reserve("c", tokens={"input": 9}, timeout=10 * 86_400)
        await job.report_usage(
            model="m", tokens={"input": 5}, call="c", outcome="limited", retry_after=10 * 86_400
        )

    async with Ledger(connection=any_url) as ledger, work(handler):
        await ledger.open_budget(queue.name, Budget(max_total_tokens=100))
        limits = {queue.name: Throttle(rpm=100, max_pause=86_400)}
        await (await queue.add("n", budgets=[queue.name], limits=limits)).result(timeout=10)
        total = (await ledger.budget(queue.name)).caps["total_tokens"]
        limiter = await ledger.limiter_state(queue.name)

    assert (total.used, total.reserved) == (5, 0)
    assert 86_000 < limiter.blocked <= 86_400
