"""Workers that are told to stop: nothing is lost, nothing runs twice, nothing waits for a lease to run out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from glidemq_core import JobHandle, NewJob, Queue, Worker
from tests.harness.auditor import audit
from tests.harness.processes import eventually
from tests.harness.proxy import Proxy
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers, until_started

pytestmark = pytest.mark.faults


def ids_of(handles: Sequence[JobHandle]) -> list[str]:
    return [handle.id for handle in handles]


async def stalls(handles: Sequence[JobHandle]) -> list[tuple[int, int]]:
    """(run, stalled) of each job."""
    jobs = [await handle.snapshot() for handle in handles]
    return [(job.run, job.stalled) for job in jobs if job is not None]


async def test_sigterm_lets_running_jobs_finish_and_leaves_the_rest_waiting(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handles = await queue.add_many([NewJob(name="wait", data={"seconds": 0.5}) for _ in range(20)])
    first = workers.start(concurrency=5, lock_duration=30)
    await first.until("start", count=5)

    first.terminate()
    assert await first.until_ended() == 0

    done = len(first.noted("start"))
    counts = await queue.counts()
    assert (counts["completed"], counts["waiting"], counts["active"]) == (done, 20 - done, 0)
    workers.start(concurrency=20)
    assert [await handle.result(timeout=30) for handle in handles] == [{"run": 1}] * 20
    await audit(server, queue, ids_of(handles), workers.all)


async def test_short_jobs_in_hand_are_given_back_at_once(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handles = await queue.add_many([NewJob(name="echo", data=i) for i in range(3000)])
    first = workers.start(concurrency=20, lock_duration=30)
    await first.until("start", count=100)

    first.terminate()
    assert await first.until_ended() == 0

    assert (await queue.counts())["active"] == 0
    workers.start(concurrency=50)
    await handles[-1].result(timeout=30)
    assert [await handle.result(timeout=30) for handle in handles[::100]] == list(
        range(0, 3000, 100)
    )
    started = [line["job"] for worker in workers.all for line in worker.noted("start")]
    assert len(started) == len(set(started))
    assert set(await stalls(handles[::50])) == {(1, 0)}


async def test_a_job_longer_than_the_grace_goes_back_without_using_an_attempt(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    handle = await queue.add("gate", {"gate": str(tmp_path / "gate"), "chunks": True})
    first = workers.start(lock_duration=30, grace=0.5)
    await first.until("waiting")
    (tmp_path / "gate.2").touch()
    workers.start(lock_duration=30)

    asked_at = time.monotonic()
    first.terminate()

    assert await handle.result(timeout=30) == {"text": "from 2 done", "run": 2}
    assert await first.until_ended() == 0
    assert first.ended_at is not None
    assert 0.5 <= first.ended_at - asked_at < 5
    job = await handle.snapshot()
    assert job is not None
    assert (job.attempt, job.stalled) == (1, 0)
    await audit(server, queue, [handle.id], workers.all)


async def test_a_second_sigterm_gives_back_at_once_whatever_the_grace(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    data = {"gate": str(tmp_path / "gate")}
    handles = await queue.add_many([NewJob(name="gate", data=data) for _ in range(10)])
    first = workers.start(concurrency=10, lock_duration=30, grace=30)
    await first.until("waiting", count=10)
    (tmp_path / "gate.2").touch()
    second = workers.start(concurrency=10, lock_duration=30)
    await second.until("up")

    first.terminate()
    first.terminate()
    asked_at = time.monotonic()

    assert await first.until_ended() == 0
    assert first.ended_at is not None
    assert first.ended_at - asked_at < 3
    assert [await handle.result(timeout=30) for handle in handles] == [{"run": 2}] * 10
    assert (await second.until("start", count=10))["t"] - asked_at < 5
    assert await stalls(handles) == [(2, 0)] * 10
    await audit(server, queue, ids_of(handles), workers.all)


async def test_a_draining_worker_keeps_its_leases(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handle = await queue.add("wait", {"seconds": 3})
    first = workers.start(lock_duration=1, grace=30)
    await first.until("start")
    await until_started(server, queue.name, [handle.id])
    first.terminate()
    second = workers.start(lock_duration=1)
    await second.until("up")

    assert await handle.result(timeout=30) == {"run": 1}
    assert await stalls([handle]) == [(1, 0)]
    await audit(server, queue, [handle.id], workers.all)


async def test_a_drain_that_ends_by_kill_costs_one_stall(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    handle = await queue.add("stubborn", {"gate": str(tmp_path / "gate")})
    first = workers.start(lock_duration=1, grace=0.2)
    await until_started(server, queue.name, [handle.id])

    first.terminate()
    await first.until("ignored")
    first.kill()
    (tmp_path / "gate").touch()
    workers.start()

    assert await handle.result(timeout=30) == {"run": 2}
    assert await stalls([handle]) == [(2, 1)]
    await audit(server, queue, [handle.id], workers.all)


async def test_a_handler_in_a_thread_is_given_back_at_its_next_call(
    server: ValkeyServer, queue: Queue, workers: Workers, tmp_path: Path
):
    handle = await queue.add("thread", {"gate": str(tmp_path / "gate")})
    first = workers.start(lock_duration=30, grace=0.2)
    await first.until("start")

    first.terminate()
    assert await first.until_ended() == 0
    (tmp_path / "gate").touch()
    workers.start(lock_duration=30)

    assert await handle.result(timeout=30) == {"run": 2}
    assert await stalls([handle]) == [(2, 0)]
    await audit(server, queue, [handle.id], workers.all)


async def test_closing_a_worker_under_load_leaves_nothing_leased(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    handles = await queue.add_many([NewJob(name="echo", data=i) for i in range(500)])
    ran: list[str] = []

    async def handler(job):
        ran.append(job.id)
        await asyncio.sleep(0.02)
        return job.data

    worker = Worker(queue.name, handler, connection=server.url, concurrency=10)
    async with worker:
        await eventually(lambda: len(ran) >= 100)
        async with asyncio.timeout(15):
            await worker.stop(grace=30)

    counts = await queue.counts()
    assert counts["active"] == 0
    assert counts["completed"] == len(ran) == len(set(ran))
    workers.start(concurrency=50)
    assert [await handle.result(timeout=30) for handle in handles] == list(range(500))
    assert set(await stalls(handles[::50])) == {(1, 0)}


@pytest.mark.parametrize("has_job", [False, True], ids=["idle", "with a result"])
async def test_a_second_sigterm_ends_a_worker_that_has_lost_its_server(
    queue: Queue, workers: Workers, proxy: Proxy, *, has_job: bool
):
    if has_job:
        await queue.add("wait", {"seconds": 0.5})
    worker = workers.start(url=proxy.url, lock_duration=30)
    await worker.until("start" if has_job else "up")

    proxy.refuse = True
    proxy.reset_all()
    if has_job:
        await worker.until("end")
    await asyncio.sleep(3)  # longer than an idle worker waits: a turn is on its way
    worker.terminate()
    worker.terminate()

    assert await worker.until_ended() == 0
