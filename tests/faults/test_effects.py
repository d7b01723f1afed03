"""Paid steps whose worker dies: done once, and once more for each death between the effect and its being remembered."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from glidemq_core import Budget, Queue
from glidemq_core.ledger import Ledger
from tests.harness.money import INPUT, behaviour, until_nothing_is_reserved
from tests.harness.provider import Provider
from tests.harness.workers import Workers

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]

CALL = INPUT + 5
LEASE = 1


@pytest.mark.parametrize(("where", "times"), [("inside", 2), ("after", 1)])
async def test_paid_step_is_done_again_only_if_its_worker_died_before_it_was_stored(
    queue: Queue,
    ledger: Ledger,
    workers: Workers,
    provider: Provider,
    tmp_path: Path,
    *,
    where: str,
    times: int,
):
    provider.usually(behaviour(5))
    await ledger.open_budget("b", Budget(max_total_tokens=10 * CALL))
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    gate = tmp_path / "gate"
    job = await queue.add("step", {"gate": str(gate), "where": where}, budgets=["b"])
    worker = workers.start(env=env, lock_duration=LEASE)
    await worker.until("answered")

    worker.kill()
    gate.touch()
    workers.start(env=env)
    assert await job.result(timeout=30) == CALL

    assert [call.key for call in provider.calls()] == [f"{job.id}/draft"] * times
    state = await ledger.budget("b")
    assert state is not None
    assert state.total_tokens == times * CALL  # all that was paid for, no more


async def test_steps_of_workers_that_are_killed_at_random_are_done_once_and_once_more_per_death(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider, tmp_path: Path
):
    provider.usually(behaviour(5, first=0.02))
    await ledger.open_budget("b", Budget(max_total_tokens=1000 * CALL))
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    (tmp_path / "gate").touch()
    data = {"gate": str(tmp_path / "gate"), "where": "after"}
    chance = random.Random(9)
    jobs = [await queue.add("step", data, budgets=["b"]) for _ in range(100)]

    for _ in range(8):
        seen = len(provider.events("end"))
        worker = workers.start(env=env, lock_duration=LEASE, concurrency=10)
        await asyncio.to_thread(
            provider.wait, "end", count=min(seen + chance.randrange(1, 12), 100), timeout=30
        )
        worker.kill()
    workers.start(env=env, concurrency=10)
    results = [await job.result(timeout=30) for job in jobs]

    assert results == [CALL] * 100
    await until_nothing_is_reserved(ledger, ["b"])
