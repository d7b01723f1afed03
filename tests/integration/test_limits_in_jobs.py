"""Limiters in jobs: shared by queues, kept under way, and no slot held by who waits long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from glidemq_core import NewJob, Queue, Throttle, Throttled, Worker
from glidemq_core._threads import run_in_thread
from glidemq_core.ledger import Ledger
from tests.harness.jobs import until_state
from tests.harness.processes import eventually
from tests.harness.servers import Look


@pytest.fixture
async def ledger(any_url: str) -> AsyncIterator[Ledger]:
    async with Ledger(connection=any_url) as opened:
        yield opened


class Calls:
    """A handler that notes when its calls began, and how many ran at once.

    `meet`: calls stay open until that many are, and a moment more.
    """

    def __init__(self, tokens: int = 10, *, meet: int = 0, fails: bool = False) -> None:
        self.tokens = tokens
        self.meet = meet
        self.fails = fails
        self.begun = time.monotonic()
        self.started: list[float] = []
        self.running = self.most = 0

    async def __call__(self, job: Any) -> None:
        async with job.llm_call("m", tokens={"input": self.tokens}) as call:
            self.started.append(time.monotonic())
            self.running += 1
            self.most = max(self.most, self.running)
            if self.meet:
                await eventually(lambda: self.most >= self.meet)
                await asyncio.sleep(0.02)
            self.running -= 1
            call.tokens = {"input": self.tokens}
            if self.fails:
                raise ConnectionError

    def too_early(self, rate: int, burst: int) -> list[int]:
        """Which calls began before a limiter can have let them through: it is full first, then gives `rate` a second."""
        return [
            number
            for number, at in enumerate(self.started, 1)
            if at - self.begun < (number - burst - 1) / rate
        ]


async def add_and_wait(queues: list[Queue], count: int, limits: dict[str, Throttle]) -> None:
    jobs = []
    for queue in queues:
        jobs += await queue.add_many([NewJob(name="j", limits=limits) for _ in range(count)])
    await asyncio.gather(*(job.result(timeout=30) for job in jobs), return_exceptions=True)


async def test_tokens_a_minute_are_shared_by_two_queues_and_all_their_workers(
    queue: Queue, other: Queue, work: Callable[..., Worker], any_url: str
):
    calls = Calls(100)
    limits = {"p": Throttle(tpm=60_000, burst=0.01)}  # 1,000 a second, 600 at once

    async with (
        work(calls, concurrency=10),
        Worker(other.name, calls, connection=any_url, concurrency=10),
    ):
        await add_and_wait([queue, other], 12, limits)

    assert len(calls.started) == 24
    assert calls.too_early(rate=10, burst=6) == []


async def test_failed_calls_count_too(queue: Queue, work: Callable[..., Worker]):
    calls = Calls(100, fails=True)
    limits = {"p": Throttle(tpm=60_000, burst=0.005)}  # 1,000 a second, 300 at once

    async with work(calls, concurrency=10):
        await add_and_wait([queue], 10, limits)

    assert len(calls.started) == 10
    assert calls.too_early(rate=10, burst=3) == []


async def test_no_more_calls_run_at_one_time_than_said(queue: Queue, work: Callable[..., Worker]):
    calls = Calls(meet=3)

    async with work(calls, concurrency=10):
        await add_and_wait([queue], 12, {"p": Throttle(concurrency=3)})

    assert (calls.most, len(calls.started)) == (3, 12)


async def test_job_that_waits_a_little_waits_in_its_worker(
    queue: Queue, work: Callable[..., Worker]
):
    calls = Calls()
    limits = {"p": Throttle(rpm=120, burst=1 / 120)}  # one in half a second

    async with work(calls, concurrency=3):
        jobs = [await queue.add("j", limits=limits) for _ in range(3)]
        await asyncio.gather(*(job.result(timeout=10) for job in jobs))

    snapshots = [await job.snapshot() for job in jobs]
    assert max(calls.started) - calls.begun >= 0.9
    assert [(one.run, one.attempt) for one in snapshots if one] == [(1, 1)] * 3


async def test_job_that_waits_long_holds_no_slot_and_loses_no_attempt(
    queue: Queue, work: Callable[..., Worker]
):
    calls = Calls()
    limits = {"p": Throttle(rpm=6, burst=0.1)}  # one in ten seconds

    async def free(_job: Any) -> str:
        return "free"

    async with work({"j": calls, "free": free}, concurrency=1):
        first = await queue.add("j", limits=limits)
        second = await queue.add("j", limits=limits, attempts=1)
        other = await queue.add("free")
        await first.result(timeout=10)
        assert await other.result(timeout=5) == "free"
        parked = await until_state(queue, second.id, "delayed")

    assert (parked.reason, parked.attempt) == ("throttled", 1)
    assert len(calls.started) == 1


async def test_handler_in_a_thread_is_told_how_long_it_would_have_to_wait(
    queue: Queue, work: Callable[..., Worker]
):
    told: list[Throttled] = []
    unwound = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handler(job: Any) -> None:
        try:
            for _ in range(2):
                job.reserve(job.next_call_id(), tokens={"input": 1})
        except Throttled as error:
            told.append(error)
            loop.call_soon_threadsafe(unwound.set)
            raise

    async with work(handler):
        job = await queue.add("j", limits={"p": Throttle(rpm=6, burst=0.1)})
        await asyncio.wait_for(unwound.wait(), 10)
        parked = await until_state(queue, job.id, "delayed")

    assert [(error.limiter, 5 < error.retry_after <= 10) for error in told] == [("p", True)]
    assert (parked.reason, parked.attempt) == ("throttled", 1)


async def test_thread_inside_of_an_async_handler_is_told_so_too(
    queue: Queue, work: Callable[..., Worker]
):
    def blocking(job: Any) -> float:
        job.reserve(job.next_call_id(), tokens={"input": 1})
        with pytest.raises(Throttled) as caught:
            job.reserve(job.next_call_id(), tokens={"input": 1})
        return caught.value.retry_after

    async def handler(job: Any) -> float:
        return await job.step("blocking", run_in_thread, blocking, job, inputs=None)

    async with work(handler):
        job = await queue.add("j", limits={"p": Throttle(rpm=6, burst=0.1)})
        assert 5 < await job.result(timeout=10) <= 10


async def test_state_of_a_limiter_can_be_read(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger
):
    async with work(Calls(100)):
        await add_and_wait([queue], 1, {"p": Throttle(tpm=600, rpm=60, concurrency=2, burst=1)})
        state = await ledger.limiter_state("p")

    tokens = state.axes["tpm"]
    assert (tokens.limit, tokens.burst, state.running, state.concurrency) == (600, 600, 0, 2)
    assert 50 <= tokens.used <= 100
    assert tokens.remaining == 600 - tokens.used
    assert 5 <= tokens.reset <= 10


async def test_idle_limiter_leaves_no_key_without_an_end(
    queue: Queue, work: Callable[..., Worker], ledger: Ledger, any_server: Look
):
    async with work(Calls()):
        await add_and_wait([queue], 3, {"p": Throttle(tpm=6_000, concurrency=2)})
        for _ in range(3):
            await ledger.limiter_state("p")

    keys = any_server.keys("glidemq:{ledger:main}:*")
    lasting = {key for key in keys if any_server.cmd("PTTL", key) == -1}
    # Sorted sets that are empty again are gone; what stays is not the limiter's.
    assert not [key for key in lasting if ":limiter:" in key or "ticket" in key or "call:" in key]
    assert any("limiter" in key for key in keys)
