"""Limits when it matters: herds of jobs that wait for one instant, refusals by the provider, and workers that die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from glidemq_core import Budget, NewJob, Queue, Throttle, Worker
from glidemq_core._failpoints import MONEY_POINTS
from glidemq_core.ledger import Ledger
from glidemq_llm import MeterSettings, Pricing, chat_handler
from tests.harness.money import Admissions, behaviour, money_problems, spender
from tests.harness.provider import Behaviour, Provider
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    with Provider(tmp_path / "provider.jsonl") as started:
        started.usually(behaviour(5))
        yield started


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    async with Ledger(connection=url) as opened:
        yield opened


async def test_herd_that_is_due_at_one_instant_is_let_through_spaced(
    queue: Queue, url: str, server: ValkeyServer
):
    limits = {"p": Throttle(rpm=6_000, burst=0.002)}  # 100 a second, 12 at once
    admissions = Admissions(server)

    async def handler(job: Any) -> None:
        async with job.llm_call("m", tokens={"input": 1}) as call:
            admissions.note(call.id)
            call.tokens = {"input": 1}

    jobs = await queue.add_many(
        [NewJob(name="j", limits=limits, delay=1, attempts=1) for _ in range(300)]
    )

    async with (
        Worker(queue.name, handler, connection=url, concurrency=50),
        Worker(queue.name, handler, connection=url, concurrency=50),
    ):
        await asyncio.gather(*(job.result(timeout=40) for job in jobs))

    assert len(admissions.at) == 300
    assert admissions.problems(per_minute=6_000, burst=12, windows=(0.1, 0.5, 1, 2)) == []


async def test_jobs_parked_for_a_budget_do_not_come_back_as_a_herd(
    queue: Queue, ledger: Ledger, url: str, provider: Provider
):
    await ledger.open_budget("b", Budget(max_total_tokens=5, on_exceeded="pause"))
    jobs = await queue.add_many([NewJob(name="j", budgets=["b"], attempts=1) for _ in range(200)])

    async with Worker(queue.name, spender(provider.port), connection=url, concurrency=50):
        async with asyncio.timeout(20):
            while (await queue.counts())["delayed"] < 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        # Room for 100 of the 200: no others are woken to be parked once more.
        await ledger.update_budget("b", Budget(max_total_tokens=1000, on_exceeded="pause"))
        async with asyncio.timeout(20):
            while (await queue.counts())["completed"] < 100:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(1.2)  # a round of upkeep finds no room either
        snapshots = [await job.snapshot() for job in jobs]

    runs = [one.run for one in snapshots if one and one.state == "delayed"]
    assert len(provider.calls()) == len(jobs) - len(runs) == 100
    assert sum(run > 1 for run in runs) <= 5
    assert await money_problems(ledger, ["b"], provider, queue, [job.id for job in jobs]) == []


async def test_refusals_by_the_provider_slow_all_down_and_end_with_them(
    queue: Queue, ledger: Ledger, url: str, provider: Provider
):
    provider.usually(Behaviour(tokens=2))
    settings = MeterSettings(pricing=Pricing(overrides={"*": {"input": 1, "output": 2}}))
    limits = {"p": Throttle(rpm=12_000, burst=0.002)}  # 200 a second
    data: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

    async with AsyncOpenAI(base_url=provider.openai_url, api_key="-", max_retries=0) as client:
        handler = chat_handler({"openai": client}, settings=settings)
        async with Worker(queue.name, handler, connection=url, concurrency=20):
            provider.limit(5, seconds=1)  # a fortieth of what the limiter believes
            jobs = await queue.add_many(
                [NewJob(name="chat", data=data, limits=limits, attempts=20, backoff=0.01)] * 60
            )
            await asyncio.to_thread(provider.wait, "end", count=20)
            storm = await ledger.limiter_state("p")
            await asyncio.sleep(2)
            provider.limit(None)
            began = time.monotonic()
            await asyncio.gather(*(job.result(timeout=30) for job in jobs))
            took = time.monotonic() - began

    calls = provider.calls()
    wasted = [call for call in calls if call.outcome == "limited"]
    assert len(calls) - len(wasted) == 60
    assert storm.cap < 1 or storm.blocked > 0
    assert 0 < len(wasted) <= 60
    assert took < 20


@pytest.mark.parametrize("point", MONEY_POINTS)
async def test_place_that_only_the_handler_named_is_free_again_wherever_its_worker_dies(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider, point: str
):
    count = 2 if point.startswith("turn") else 1  # the first turn takes, the second hands in
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    job = await queue.add("spend_limited")
    doomed = workers.start(env={**env, "GLIDEMQ_FAILPOINT": f"{point}:{count}"}, lock_duration=1)

    assert await doomed.until_ended() == -9
    workers.start(env=env)

    # Its one place was promised for the call's time limit and a minute more; nobody waits for that.
    assert await job.result(timeout=15) == 10
    assert await (await queue.add("spend_limited")).result(timeout=10) == 10
    assert (await ledger.limiter_state("p")).running == 0


async def test_place_of_a_dead_worker_is_free_again(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider, tmp_path: Path
):
    limits = {"p": Throttle(concurrency=1)}
    gate = tmp_path / "gate"
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    job = await queue.add("spend_gated", {"gate": str(gate)}, limits=limits)
    worker = workers.start(env=env, lock_duration=0.4)
    await worker.until("answered")
    assert (await ledger.limiter_state("p")).running == 1

    worker.kill()
    gate.touch()
    workers.start(env=env, lock_duration=0.4)
    await job.result(timeout=20)
    await (await queue.add("spend", limits=limits)).result(timeout=10)

    assert (await ledger.limiter_state("p")).running == 0
