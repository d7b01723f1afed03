"""Calls that arrive in another order than they were meant: each order has one defined outcome."""

from __future__ import annotations

import asyncio
import time

import pytest

from glidemq_core import Budget, InvalidOption, JobCancelled, LeaseLost, Queue, Worker
from glidemq_core._client import release_client, shared_client
from glidemq_core._ledger import LedgerClient
from glidemq_core._target import resolve
from glidemq_core.ledger import Ledger
from tests.harness.fsck import fsck
from tests.harness.servers import ValkeyServer

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]


async def test_progress_that_arrives_after_the_end_is_refused(server: ValkeyServer, queue: Queue):
    kept = []

    async def handler(job):
        kept.append(job)
        await job.progress("in time")
        return "done"

    async with Worker(queue.name, handler, connection=server.url):
        job = await queue.add("n")
        assert await job.result(timeout=30) == "done"
        with pytest.raises(LeaseLost):
            await kept[0].progress("too late")
        with pytest.raises(LeaseLost):
            await kept[0].log("too late")
    assert (await job.snapshot()).progress == "in time"
    assert await queue.log(job.id) == []


async def test_signal_before_its_job_waits_is_kept_for_it(server: ValkeyServer, queue: Queue):
    job = await queue.add("n")
    await job.signal("go", 1)

    async def handler(job):
        return (await job.wait_for_signal("go")).data

    async with Worker(queue.name, handler, connection=server.url):
        assert await job.result(timeout=30) == 1


async def test_cancel_between_claim_and_start_ends_the_job_cancelled(
    server: ValkeyServer, queue: Queue
):
    """The cancel reaches the server while the claim's reply is on its way."""
    ran = []

    async def handler(job):
        ran.append(job.id)
        await asyncio.sleep(30)

    async with Worker(queue.name, handler, connection=server.url, concurrency=50):
        jobs = [await queue.add("n") for _ in range(50)]
        await asyncio.gather(*(job.cancel() for job in jobs))
        ends = await asyncio.gather(
            *(job.result(timeout=30) for job in jobs), return_exceptions=True
        )
    assert all(isinstance(end, JobCancelled) for end in ends)
    assert (await queue.counts())["cancelled"] == 50
    assert fsck(server, queue.name) == []


async def test_settle_before_its_reserve_counts_once_and_holds_nothing(server: ValkeyServer):
    client = await shared_client(resolve(server.url))
    ledger = LedgerClient(client)
    started = round(time.time() * 1000)
    try:
        async with Ledger(connection=server.url) as opened:
            await opened.open_budget("b", Budget(max_total_tokens=1000))
            await ledger.settle("j/1.1/1", started_ms=started, tokens={"input": 70}, budgets=["b"])
            with pytest.raises(InvalidOption, match="this call is over"):
                await ledger.reserve(
                    "j/1.1/1", tokens={"input": 100}, costs={}, ttl=60, budgets=["b"]
                )
            await ledger.settle("j/1.1/1", started_ms=started, tokens={"input": 70}, budgets=["b"])
            state = await opened.budget("b")
    finally:
        await release_client(client)
    assert (state.used["total_tokens"], state.reserved) == (70, {})
