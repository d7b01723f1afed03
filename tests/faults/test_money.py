"""Money under concurrency and crashes: never more than the cap is granted, and in the end three books agree."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from glidemq_core import Budget, JobFailed, NewJob, Queue, Worker
from glidemq_core.ledger import Ledger
from tests.harness.money import INPUT, behaviour, money_problems, price, spender
from tests.harness.provider import Provider

pytestmark = pytest.mark.faults

CALL = INPUT + 5
FITS = 37


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    with Provider(tmp_path / "provider.jsonl") as started:
        started.usually(behaviour(5))
        yield started


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    async with Ledger(connection=url) as opened:
        yield opened


def caps() -> list[Budget]:
    """Three budgets of which each has room for FITS calls, each by another cap."""
    cost = price({"input": INPUT, "output": 5})["total"]
    return [
        Budget(max_total_tokens=FITS * CALL + CALL - 1),
        Budget(max_total_cost=FITS * cost),
        Budget(max_tokens={"output": FITS * 5 + 4}, max_total_tokens=200 * CALL),
    ]


async def race(queue: Queue, url: str, port: int, budgets: list[str]) -> list[str]:
    """200 jobs at once on two workers; answers the ids."""
    async with (
        Worker(queue.name, spender(port), connection=url, concurrency=100),
        Worker(queue.name, spender(port), connection=url, concurrency=100),
    ):
        jobs = await queue.add_many(
            [NewJob(name="spend", budgets=budgets, attempts=2) for _ in range(200)]
        )
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)
    refused = [end for end in ends if isinstance(end, JobFailed)]
    assert [end for end in ends if isinstance(end, int)] == [CALL] * FITS
    assert {end.reason for end in refused} == {"budget"}
    assert len(refused) == 200 - FITS
    return [job.id for job in jobs]


@pytest.mark.parametrize("count", [1, 3])
async def test_of_200_calls_at_once_exactly_37_reach_the_provider(
    queue: Queue, ledger: Ledger, url: str, provider: Provider, count: int
):
    names = [f"b{number}" for number in range(count)]
    for name, budget in zip(names, caps(), strict=False):
        await ledger.open_budget(name, budget)

    ids = await race(queue, url, provider.port, names)

    assert len(provider.calls()) == FITS
    assert await money_problems(ledger, names, provider, queue, ids) == []
    for id in ids:
        job = await queue.get(id)
        assert job is not None
        assert (job.attempt, job.run) == (1, 1)
