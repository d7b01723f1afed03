"""Worker processes that are killed, stopped by the debugger's signals, or busy: no job is lost, none ends twice."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from glidemq_core import NewJob, Queue
from glidemq_core._failpoints import POINTS
from tests.harness.auditor import all_events, audit
from tests.harness.servers import ValkeyServer
from tests.harness.workers import WorkerProcess, Workers

pytestmark = pytest.mark.faults

LEASE = 0.5
ALL_ONCE = {"lock_duration": LEASE, "max_stalled": 100}


async def results(queue: Queue, ids: list[str], timeout: float = 15) -> list[object]:
    async with asyncio.timeout(timeout):
        return await asyncio.gather(*(queue.result(id) for id in ids))


async def test_thirty_kills_at_random_moments_lose_no_job(
    server: ValkeyServer, queue: Queue, workers: Workers
):
    rng = random.Random(seed := random.randrange(10**6))
    print("seed", seed)
    handles = await queue.add_many(
        [NewJob(name="stream", data={"chunks": 10, "pause": 0.03}) for _ in range(60)]
    )
    ids = [handle.id for handle in handles]
    alive = [workers.start(concurrency=5, **ALL_ONCE) for _ in range(2)]

    for i in range(30):
        victim = alive[i % 2]
        await victim.until("up")
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        victim.kill()
        alive[i % 2] = workers.start(concurrency=5, **ALL_ONCE)

    await results(queue, ids)
    await audit(server, queue, ids, workers.all)
