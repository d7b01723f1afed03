"""Runs that start again from the top: what their jobs remember comes with the claim, if it is not large."""

from __future__ import annotations

import asyncio
from typing import Any

from glidemq_core import NewJob
from tests.harness.processes import eventually

JOBS = 1000


async def _all(queue: Any, state: Any, count: int = JOBS) -> None:
    async def reached() -> bool:
        return (await queue.counts())[state] == count

    await eventually(reached, timeout=60)


async def test_thousand_jobs_go_on_after_a_wait_without_a_call_of_their_own(
    queue, work, any_server
):
    resumed, are_all = set(), asyncio.Event()

    async def handler(job):
        signal = await job.wait_for_signal("go")
        resumed.add(job.id)
        if len(resumed) == JOBS:
            are_all.set()
        return signal.data

    jobs = await queue.add_many([NewJob(name="n") for _ in range(JOBS)])
    async with work(handler, concurrency=100):
        await _all(queue, "suspended")
    await asyncio.gather(*(job.signal("go", n) for n, job in enumerate(jobs)))

    before = any_server.calls("fcall")
    async with work(handler, concurrency=100):
        async with asyncio.timeout(60):
            await are_all.wait()
    calls = any_server.calls("fcall") - before

    # Turns, which hand in and take dozens of jobs each, and a beat now and then.
    assert calls / JOBS < 0.2
    assert [(await job.snapshot()).result for job in jobs[::250]] == [0, 250, 500, 750]


async def test_more_than_comes_with_a_claim_is_remembered_just_the_same(queue, work, any_server):
    made = []

    async def long_text(n):
        made.append(n)
        return str(n) * 30_000

    async def handler(job):
        texts = [await job.step("write", long_text, n) for n in range(3)]
        await job.wait_for_signal("go")
        return [len(text) for text in texts]

    async with work(handler):
        job = await queue.add("n")
        await _all(queue, "suspended", 1)
        await job.signal("go")
        assert await job.result(timeout=10) == [30_000] * 3
    assert made == [0, 1, 2]
