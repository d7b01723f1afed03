"""Queues and workers on more than one event loop of a process: one after the other, or in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Self

import pytest

from glidemq_core import Queue, RunningJob, Worker


async def double(job: RunningJob) -> int:
    await job.stream_chunk("content", "x")
    return 2 * job.data


async def run_jobs(queue: Queue, count: int = 20) -> list[int]:
    """Add jobs, wait for their results, and read one's stream to its end."""
    handles = [await queue.add("double", i) for i in range(count)]
    results = await asyncio.gather(*(handle.result(timeout=20) for handle in handles))
    assert [chunk.type async for chunk in handles[0].stream()] == ["content", "end"]
    return results


DOUBLED = [2 * i for i in range(20)]


class WorkerThread:
    """A worker on an event loop in a thread of its own."""

    def __init__(self, url: str, queue: str) -> None:
        self._url = url
        self._queue = queue
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with Worker(self._queue, double, connection=self._url, concurrency=5):
            self._ready.set()
            await self._end.wait()


@pytest.fixture
def worker_thread(any_url: str, queue_name: str) -> Iterator[WorkerThread]:
    with WorkerThread(any_url, queue_name) as running:
        yield running


def test_queue_made_once_serves_loop_after_loop(any_url, queue_name):
    queue = Queue(queue_name, connection=any_url)

    async def once() -> list[int]:
        async with Worker(queue_name, double, connection=any_url):
            return await run_jobs(queue)

    assert [asyncio.run(once()) for _ in range(3)] == [DOUBLED] * 3
    asyncio.run(queue.close())


def test_queue_is_used_while_a_worker_thread_owns_the_connections(
    any_url, queue_name, worker_thread
):
    queue = Queue(queue_name, connection=any_url)

    assert asyncio.run(run_jobs(queue)) == DOUBLED
    assert asyncio.run(run_jobs(queue)) == DOUBLED
    asyncio.run(queue.close())


async def test_worker_thread_works_while_this_loop_owns_the_connections(any_url, queue_name):
    async with Queue(queue_name, connection=any_url) as queue:
        await queue.counts()
        worker = WorkerThread(any_url, queue_name)
        await asyncio.to_thread(worker.__enter__)

        assert await run_jobs(queue) == DOUBLED

        await asyncio.to_thread(worker.__exit__)


def test_worker_thread_outlives_the_loop_that_owned_the_connections(any_url, queue_name):
    worker = WorkerThread(any_url, queue_name)

    async def own_and_leave() -> None:
        async with Queue(queue_name, connection=any_url) as queue:
            await queue.counts()
            await asyncio.to_thread(worker.__enter__)

    async def use() -> list[int]:
        async with Queue(queue_name, connection=any_url) as queue:
            return await run_jobs(queue)

    asyncio.run(own_and_leave())
    assert asyncio.run(use()) == DOUBLED
    worker.__exit__()


async def test_one_queue_is_used_on_two_loops_at_once(any_url, queue_name, worker_thread):
    async with Queue(queue_name, connection=any_url) as queue:
        here = asyncio.ensure_future(run_jobs(queue))
        there = asyncio.to_thread(lambda: asyncio.run(run_jobs(queue)))

        assert await asyncio.gather(here, there) == [DOUBLED, DOUBLED]
