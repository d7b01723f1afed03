"""Limits when it matters: herds of jobs that wait for one instant, refusals by the provider, and workers that die."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from glidemq_core import Budget, NewJob, Queue, Throttle, Worker
from glidemq_core._failpoints import MONEY_POINTS
from glidemq_core.ledger import Ledger
from glidemq_llm import MeterSettings, Pricing, chat_handler
from tests.harness.aftermath import Aftermath, Rate
from tests.harness.money import Admissions, behaviour, money_problems, spender
from tests.harness.provider import Behaviour, Provider, ProviderCall
from tests.harness.servers import ValkeyServer
from tests.harness.workers import Workers, until_count

QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]


@pytest.fixture
def provider(provider: Provider) -> Provider:
    provider.usually(behaviour(5))
    return provider


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
        await until_count(queue, "delayed", 200)
        # Room for 100 of the 200: no others are woken to be parked once more.
        await ledger.update_budget("b", Budget(max_total_tokens=1000, on_exceeded="pause"))
        await until_count(queue, "completed", 100)
        await asyncio.sleep(1.2)  # a round of upkeep finds no room either
        snapshots = [await job.snapshot() for job in jobs]

    runs = [one.run for one in snapshots if one and one.state == "delayed"]
    assert len(provider.calls()) == len(jobs) - len(runs) == 100
    assert sum(run > 1 for run in runs) <= 5
    assert await money_problems(ledger, ["b"], provider, queue, [job.id for job in jobs]) == []


def admitted(calls: Iterable[ProviderCall], since: float, until: float) -> int:
    """How many calls that began in this time the provider has let in."""
    return sum(one.outcome != "limited" and since <= one.started < until for one in calls)


@pytest.mark.timeout(120)
async def test_storm_of_refusals_wastes_few_calls_and_its_backlog_flows_again_soon_after(
    queue: Queue, url: str, provider: Provider, aftermath: Aftermath
):
    aftermath.rates = [Rate(per_minute=1_200, burst=2)]
    provider.usually(Behaviour(tokens=2, first=0.3))
    settings = MeterSettings(pricing=Pricing(overrides={"*": {"input": 1, "output": 2}}))
    limits = {"p": Throttle(rpm=1_200, burst=0.002)}  # 20 a second
    one = NewJob(name="chat", data=QUESTION, limits=limits, attempts=20, backoff=0.01)

    async with AsyncOpenAI(base_url=provider.openai_url, api_key="-", max_retries=0) as client:
        handler = chat_handler({"openai": client}, settings=settings)
        await queue.add_many([one] * 800)
        # With so many at once the storm finds the whole backlog parked, each job until its slot.
        async with Worker(queue.name, handler, connection=url, concurrency=30):
            await asyncio.to_thread(provider.wait, "start", count=60, timeout=40)
            began = time.monotonic()
            provider.limit(2, seconds=1)  # a tenth
            await asyncio.sleep(6)
            provider.limit(None)
            ended = time.monotonic()
            # The limit's own rate at the most: calls that came late make a window fuller.
            before = min(40, admitted(provider.calls(), began - 2, began))

            async with asyncio.timeout(40):
                now = 0
                while now < 0.9 * before:
                    await asyncio.sleep(0.5)
                    now = admitted(provider.calls(), time.monotonic() - 2, math.inf)

    calls = provider.calls()
    wasted = [call for call in calls if call.outcome == "limited"]
    let_in = admitted(calls, began, ended)
    assert let_in >= 0.5 * 2 * (ended - began)  # what the provider had to give was taken
    assert (
        0 < len(wasted) <= 20 * (ended - began) / 6
    )  # of those that the limit alone would have sent
    assert not [call for call in wasted if call.started > ended]


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
    assert await job.result(timeout=30) == 10
    assert await (await queue.add("spend_limited")).result(timeout=30) == 10
    assert (await ledger.limiter_state("p")).running == 0


async def test_place_that_only_a_wrapped_client_named_is_free_again_after_a_kill_in_mid_call(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider
):
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    provider.plan("m", Behaviour(tokens=4, faults={-1: "hang"}), *[Behaviour(tokens=4)] * 2)
    first = await queue.add("limited_chat", QUESTION)
    doomed = workers.start(env=env, lock_duration=1)
    await asyncio.to_thread(provider.wait, "hang", timeout=30)
    assert (await ledger.limiter_state("openai")).running == 1

    doomed.kill()
    workers.start(env=env)
    second = await queue.add("limited_chat", QUESTION)
    # Its place was promised for the ten minutes of a call.
    await asyncio.gather(first.result(timeout=30), second.result(timeout=30))

    assert (await ledger.limiter_state("openai")).running == 0


async def test_place_of_a_dead_worker_is_free_again(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider, tmp_path: Path
):
    limits = {"p": Throttle(concurrency=1)}
    gate = tmp_path / "gate"
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    job = await queue.add("spend_gated", {"gate": str(gate)}, limits=limits)
    worker = workers.start(env=env, lock_duration=1)
    await worker.until("answered")
    assert (await ledger.limiter_state("p")).running == 1

    worker.kill()
    gate.touch()
    workers.start(env=env)
    await job.result(timeout=30)
    await (await queue.add("spend", limits=limits)).result(timeout=30)

    assert (await ledger.limiter_state("p")).running == 0
