"""Claims whose reply comes late: no run is started that its lease no longer covers."""

import asyncio
import time

import pytest

from glidemq_core import Queue, Worker
from glidemq_core._turns import Turns

LEASE = 1.0


@pytest.mark.parametrize("late", [0.8, 1.2])
async def test_job_whose_claim_arrives_late_runs_once(
    url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch, late: float
):
    taken: list[float] = []
    take = Turns.take

    async def take_late(self: Turns, *args, **more):
        reply = await take(self, *args, **more)
        if reply.runs and not taken:
            taken.append(time.monotonic())
            await asyncio.sleep(late)
        return reply

    started: list[int] = []

    async def handle(job):
        started.append(job.run)
        await asyncio.sleep(1.5 * LEASE)

    monkeypatch.setattr(Turns, "take", take_late)
    async with Queue(queue_name, connection=url) as queue:
        job = await queue.add("job")
        async with Worker(queue_name, handle, connection=url, lock_duration=LEASE):
            await job.result(timeout=10)

        snapshot = await job.snapshot()

    assert taken
    assert len(started) == 1
    assert snapshot is not None
    assert snapshot.attempt == 1
