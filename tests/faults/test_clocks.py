"""Processes whose clocks are an hour off, or jump: times come from the server, lengths from the monotonic clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from glidemq_core import JobFailed, Queue
from tests.harness.fsck import fsck
from tests.harness.processes import Process
from tests.harness.servers import ValkeyServer
from tests.harness.workers import until_started

pytestmark = pytest.mark.faults

HOUR = 3600
LEASE = 2

CLOCK = """
import datetime, sys, time

offset = float(sys.argv[1])
right, right_ns = time.time, time.time_ns

class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

time.time = lambda: right() + offset
time.time_ns = lambda: right_ns() + round(offset * 1e9)
datetime.datetime = Wrong
"""
# {seconds: length of a run, fails: how many attempts, jumps: whether its clock changes all the time}
WORKER = (
    CLOCK
    + """
import asyncio, json
from glidemq_core import Worker

async def handle(job):
    global offset
    print(json.dumps({"job": job.id, "run": job.run, "at": time.monotonic()}))
    for i in range(10):
        await job.stream_chunk("content", f"{i} ")
        await asyncio.sleep(job.data.get("seconds", 0) / 10)
        if job.data.get("jumps"):
            offset = -offset
    if job.attempt <= job.data.get("fails", 0):
        raise ValueError("as asked")
    return job.run

asyncio.run(Worker(sys.argv[2], handle, connection=sys.argv[3], concurrency=4, lock_duration=2).run())
"""
)
# Adds a job for every line it is given, and prints its id.
PRODUCER = (
    CLOCK
    + """
import asyncio, json
from glidemq_core import Queue

async def main():
    async with Queue(sys.argv[2], connection=sys.argv[3]) as queue:
        handles = [await queue.add("job", {}, **json.loads(options)) for options in sys.argv[4:]]
        print(json.dumps({"ids": [handle.id for handle in handles]}))

asyncio.run(main())
"""
)


@asynccontextmanager
async def workers_off_by(queue: Queue, url: str, *offsets: int) -> AsyncIterator[list[Process]]:
    """Workers whose clocks are wrong by so many seconds."""
    started = [Process(WORKER, offset, queue.name, url) for offset in offsets]
    try:
        yield started
    finally:
        for worker in started:
            await asyncio.to_thread(worker.kill)


async def added_off_by(queue: Queue, url: str, offset: int, *options: str) -> list[str]:
    """Ids of jobs added by a process whose clock is wrong."""
    with Process(PRODUCER, offset, queue.name, url, *options) as producer:
        assert await producer.ended() == 0, producer.errors
        return producer.json_lines()[0]["ids"]


def runs(workers: list[Process], id: str) -> list[float]:
    """When the runs of a job began, monotonic seconds."""
    return [line["at"] for worker in workers for line in worker.json_lines() if line["job"] == id]


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_times_of_a_job_are_the_servers(server: ValkeyServer, queue: Queue, offset: int):
    began = datetime.now(UTC)
    (id,) = await added_off_by(queue, server.url, offset, "{}")

    async with workers_off_by(queue, server.url, offset):
        await queue.result(id, timeout=30)

    job = await queue.get(id)
    assert job is not None
    times = [job.created_at, job.started_at, job.finished_at]
    slack = timedelta(milliseconds=1)  # the server's are cut to milliseconds
    assert all(at and began - slack <= at <= datetime.now(UTC) for at in times)
    assert times == sorted(times)  # pyright: ignore[reportArgumentType] none is missing, see above


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_delay_is_kept(server: ValkeyServer, queue: Queue, offset: int):
    async with workers_off_by(queue, server.url, -offset) as workers:
        await (await queue.add("job", {})).result(timeout=30)  # the worker is up
        began = time.monotonic()

        (id,) = await added_off_by(queue, server.url, offset, '{"delay": 1.5}')
        await queue.result(id, timeout=30)

    (at,) = runs(workers, id)
    assert 1.5 <= at - began < 30  # with the start of a process


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_pause_between_attempts_is_kept(server: ValkeyServer, queue: Queue, offset: int):
    async with workers_off_by(queue, server.url, offset) as workers:
        job = await queue.add("job", {"fails": 1}, attempts=2, backoff=0.5)
        await job.result(timeout=30)

    first, second = runs(workers, job.id)
    assert 0.4 <= second - first < 30


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_time_to_live_is_kept(server: ValkeyServer, queue: Queue, offset: int):
    lasting, passing = await added_off_by(
        queue, server.url, offset, '{"ttl": 60}', '{"ttl": 0.2, "delay": 1}'
    )

    async with workers_off_by(queue, server.url, -offset):
        assert await queue.result(lasting, timeout=30) == 1
        with pytest.raises(JobFailed, match="expired"):
            await queue.result(passing, timeout=30)


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_time_limit_is_kept(server: ValkeyServer, queue: Queue, offset: int):
    async with workers_off_by(queue, server.url, offset):
        within = await queue.add("job", {"seconds": 0.5, "jumps": True}, timeout=5)
        beyond = await queue.add("job", {"seconds": 20}, timeout=0.5)

        assert await within.result(timeout=30) == 1
        with pytest.raises(JobFailed, match="timeout"):
            await beyond.result(timeout=30)


async def test_no_lease_is_lost_between_workers_of_different_times(
    server: ValkeyServer, queue: Queue
):
    long = {"seconds": 2.5 * LEASE, "jumps": True}

    async with workers_off_by(queue, server.url, HOUR, -HOUR, 0) as workers:
        handles = [await queue.add("job", long) for _ in range(12)]
        results = [await handle.result(timeout=30) for handle in handles]

    assert results == [1] * 12
    assert [len(runs(workers, handle.id)) for handle in handles] == [1] * 12
    assert len({worker.pid for worker in workers if worker.json_lines()}) > 1
    assert fsck(server, queue.name) == []


async def test_dead_workers_job_is_taken_over_after_its_lease(server: ValkeyServer, queue: Queue):
    async with workers_off_by(queue, server.url, HOUR) as ahead:
        job = await queue.add("job", {"seconds": 30})
        await ahead[0].line("{")
        # Until the server knows that the run has begun: its end then counts as a stall.
        await until_started(server, queue.name, [job.id])
        await asyncio.to_thread(ahead[0].kill)
        killed = time.monotonic()

        async with workers_off_by(queue, server.url, -HOUR) as behind:
            await behind[0].line("{")
            (at,) = runs(behind, job.id)

    assert at - killed < LEASE + 20  # with the start of a process


async def test_jobs_of_producers_of_different_times_run_in_the_order_they_came(
    server: ValkeyServer, queue: Queue
):
    ids: list[str] = []
    for offset in (HOUR, -HOUR, 0):
        ids += await added_off_by(queue, server.url, offset, *["{}"] * 3)

    waiting = [job.id for job in await queue.jobs("waiting")]

    assert waiting == ids
