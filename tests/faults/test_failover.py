"""A failover that loses acknowledged writes: the replica stood still for a while before it took over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from glidemq_core import Budget, JobFailed, NewJob, Queue, Worker
from glidemq_core.ledger import Ledger
from tests.harness.fsck import fsck
from tests.harness.money import INPUT, behaviour, spender
from tests.harness.processes import eventually
from tests.harness.provider import Provider
from tests.harness.proxy import Proxy
from tests.harness.servers import HOST, ValkeyServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

CALL = INPUT + 5
FITS = 37


@pytest.fixture
def pair() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    """A primary and its replica."""
    with ValkeyServer() as primary, ValkeyServer() as replica:
        replica.cmd("REPLICAOF", HOST, primary.port)
        yield primary, replica


async def in_step(replica: ValkeyServer) -> bool:
    return b"master_link_status:up" in replica.cmd("INFO", "replication")


async def test_budget_that_lost_its_last_writes_is_sound_and_grants_what_it_knows_to_be_left(
    pair: tuple[ValkeyServer, ValkeyServer], provider: Provider, queue_name: str
):
    primary, replica = pair
    provider.usually(behaviour(5))
    await eventually(lambda: in_step(replica), 20)
    go_on = asyncio.Semaphore(0)

    async def paced(job):
        await go_on.acquire()
        return await spend(job)

    spend = spender(provider.port)
    with Proxy(primary.port) as network:
        async with (
            Ledger(connection=network.url) as ledger,
            Queue(queue_name, connection=network.url) as queue,
            Worker(queue_name, paced, connection=network.url, concurrency=20, lock_duration=1),
        ):
            await ledger.open_budget("b", Budget(max_total_tokens=FITS * CALL))
            jobs = await queue.add_many(
                [NewJob(name="n", budgets=["b"], attempts=5) for _ in range(60)]
            )
            _let(go_on, 12)
            await eventually(lambda: _has_settled(ledger, 12), 20)
            primary.cmd("WAIT", "1", "10000")
            replica.freeze()
            _let(go_on, 8)
            await eventually(lambda: _has_settled(ledger, 20), 20)

            primary.kill()
            replica.thaw()
            replica.cmd("REPLICAOF", "NO", "ONE")
            network.upstream = replica.port
            network.reset_all()
            _let(go_on, 1000)

            async with asyncio.timeout(60):
                ends = await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)
            state = await ledger.budget("b")
            audit = await ledger.audit("b")

        refused = [end for end in ends if isinstance(end, JobFailed)]
        billed = sum(call.input + call.output for call in provider.calls())
        assert len(refused) + ends.count(CALL) == 60
        assert {end.reason for end in refused} == {"budget"}
        assert state is not None
        assert (dict(state.reserved), audit.problems) == ({}, ())
        assert state.used["total_tokens"] <= FITS * CALL
        # What the new primary never heard of is all that may be missing.
        assert state.used["total_tokens"] <= billed <= state.used["total_tokens"] + 8 * CALL
        assert fsck(replica, queue_name) == []


def _let(go_on: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        go_on.release()


async def _has_settled(ledger: Ledger, calls: int) -> bool:
    state = await ledger.budget("b")
    return state is not None and state.used.get("total_tokens") == calls * CALL
