"""A signal and the deadline of its wait, fired at the same moment: exactly one of them wins."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from glidemq_core import NewJob, Queue, SignalTimeout, Worker, WrongState
from tests.harness.fsck import fsck
from tests.harness.servers import ValkeyServer

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]

ROUNDS = 500
WAIT = 0.25


async def test_signal_and_deadline_at_the_same_moment_have_one_winner(
    server: ValkeyServer, queue: Queue
):
    parked_at: dict[str, float] = {}
    outcomes: dict[str, list[str]] = {}

    async def handler(job):
        parked_at.setdefault(job.id, time.monotonic())
        try:
            signal = await job.wait_for_signal("go", timeout=WAIT)
            outcome = f"signal {signal.data}"
        except SignalTimeout:
            outcome = "timeout"
        outcomes.setdefault(job.id, []).append(outcome)
        await job.sleep(0)  # one more run, which must see the same
        return outcome

    async def fire(job, spread: int) -> bool:
        while job.id not in parked_at:  # noqa: ASYNC110 the handler tells
            await asyncio.sleep(0.001)
        # The server counts from the wait's arrival: later, and much later where the machine is slow.
        aim = parked_at[job.id] + WAIT + random.uniform(-0.05, 0.15) * spread
        await asyncio.sleep(max(0.0, aim - time.monotonic()))
        try:
            return await job.signal("go", job.id)
        except WrongState:
            return False  # it has ended by its timeout

    async with Worker(queue.name, handler, connection=server.url, concurrency=100):
        jobs = await queue.add_many(NewJob(name="n") for _ in range(ROUNDS))
        await asyncio.gather(*(fire(job, 1 + n % 10) for n, job in enumerate(jobs)))
        results = [await job.result(timeout=30) for job in jobs]

    for job, result in zip(jobs, results, strict=True):
        assert result in ("timeout", f"signal {job.id}")
        assert set(outcomes[job.id]) == {result}
    winners = {result.partition(" ")[0] for result in results}
    assert winners == {"signal", "timeout"}  # it was a race
    assert fsck(server, queue.name) == []
