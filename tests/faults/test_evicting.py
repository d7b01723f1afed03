"""Servers that may drop keys: refused where they would, warned of where they might, and no call is lost either way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glidemq_core import Budget, NewJob, Queue, ServerUnsuitable, Worker
from glidemq_core.ledger import Ledger
from tests.harness.money import INPUT, behaviour, spender, until_nothing_is_reserved
from tests.harness.provider import Provider
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("aftermath"),
    pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru"]),
]

CALL = INPUT + 5


@pytest.fixture
def server(policy: str) -> Iterator[ValkeyServer]:
    """One that has no memory limit, and would evict at one."""
    with ValkeyServer(options={"maxmemory-policy": policy}) as started:
        yield started


@pytest.fixture
def provider(provider: Provider) -> Provider:
    provider.usually(behaviour(5))
    return provider


async def test_evicting_server_is_refused_before_any_key_and_served_when_it_is_set_right(
    server: ValkeyServer, queue: Queue, ledger: Ledger, provider: Provider
):
    server.cmd("CONFIG", "SET", "maxmemory", 100_000_000)
    worker = Worker(queue.name, spender(provider.port), connection=server.url, concurrency=10)

    with pytest.raises(ServerUnsuitable, match="maxmemory-policy noeviction"):
        await queue.add("spend", budgets=["b"])
    with pytest.raises(ServerUnsuitable):
        await ledger.open_budget("b", Budget(max_total_tokens=20 * CALL))
    with pytest.raises(ServerUnsuitable):
        await worker.run()
    assert (server.keys(), server.cmd("FUNCTION", "LIST")) == ([], [])

    server.cmd("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await ledger.open_budget("b", Budget(max_total_tokens=20 * CALL))
    async with Worker(queue.name, spender(provider.port), connection=server.url, concurrency=10):
        jobs = await queue.add_many([NewJob(name="spend", budgets=["b"]) for _ in range(20)])
        assert [await job.result(timeout=30) for job in jobs] == [CALL] * 20


async def test_server_that_may_evict_one_day_is_warned_of_and_a_dead_workers_calls_are_booked(
    queue: Queue,
    ledger: Ledger,
    workers: Workers,
    provider: Provider,
    tmp_path: Path,
    *,
    policy: str,
):
    await ledger.open_budget("b", Budget(max_total_tokens=20 * CALL))
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    gate = tmp_path / "gate"
    jobs = await queue.add_many(
        [NewJob(name="spend_gated", data={"gate": str(gate)}, budgets=["b"]) for _ in range(5)]
    )
    doomed = workers.start(env=env, concurrency=5, lock_duration=1)
    await doomed.until("answered", count=5)

    doomed.kill()
    gate.touch()
    heir = workers.start(env=env, concurrency=5)
    assert [await job.result(timeout=30) for job in jobs] == [CALL] * 5
    await until_nothing_is_reserved(ledger, ["b"])

    assert f"maxmemory-policy {policy}: if it is ever given a maxmemory" in heir.said()
    state = await ledger.budget("b")
    assert state is not None
    assert (state.total_tokens, state.caps["total_tokens"].unverified) == (10 * CALL, 5 * CALL)
