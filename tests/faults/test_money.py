"""Money under concurrency and crashes: never more than the cap is granted, and in the end three books agree."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from glidemq_core import Budget, JobFailed, NewJob, Queue, Worker
from glidemq_core._failpoints import MONEY_POINTS
from glidemq_core.ledger import Ledger
from tests.harness.money import (
    INPUT,
    behaviour,
    money_problems,
    price,
    reserved,
    spender,
    until_nothing_is_reserved,
)
from tests.harness.processes import eventually
from tests.harness.provider import Provider
from tests.harness.proxy import Proxy
from tests.harness.servers import ValkeyServer
from tests.harness.workers import WorkerProcess, Workers

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]

CALL = INPUT + 5
FITS = 37
REPLIES = ("ledger_reserve", "ledger_settle", "job_usage", "turn")


@pytest.fixture
def provider(provider: Provider) -> Provider:
    provider.usually(behaviour(5))
    return provider


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


async def test_random_kills_and_lost_replies_never_grant_more_than_the_cap(
    queue: Queue, ledger: Ledger, server: ValkeyServer, workers: Workers, provider: Provider
):
    names = ["b0", "b1", "b2"]
    for name, budget in zip(names, caps(), strict=True):
        await ledger.open_budget(name, budget)
    provider.usually(behaviour(5, first=0.25))  # so that kills come in the middle of calls
    provider.plan("*", behaviour(5, faults={-1: "hang"}))  # and one does, whatever the timing
    chance = random.Random(34)
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}

    with Proxy(server.port) as proxy:
        jobs = await queue.add_many(
            [NewJob(name="spend", budgets=names, attempts=3) for _ in range(200)]
        )

        def start() -> WorkerProcess:
            url = f"valkey://127.0.0.1:{proxy.port}"
            return workers.start(url=url, env=env, concurrency=4, lock_duration=1)

        lost = {name: proxy.lose_reply(name.encode(), times=1) for name in REPLIES}
        alive = [start() for _ in range(3)]
        ends = asyncio.gather(*(job.result(timeout=40) for job in jobs), return_exceptions=True)
        await asyncio.to_thread(provider.wait, "start", count=6, timeout=30)
        while not ends.done():
            await asyncio.wait([ends], timeout=chance.uniform(0.05, 0.3))
            busy = [worker for worker in alive if worker.is_busy]
            if busy and chance.random() < 0.5:
                victim = chance.choice(busy)
                victim.kill()
                alive[alive.index(victim)] = start()
            else:
                proxy.lose_reply(chance.choice(REPLIES).encode())
        results = await ends
        await until_nothing_is_reserved(ledger, names)

    assert {end.reason for end in results if isinstance(end, JobFailed)} <= {"budget", "stalled"}
    assert not [end for end in results if not isinstance(end, int | JobFailed)]
    calls = provider.calls()
    assert 0 < len(calls) <= FITS
    assert any(call.outcome == "caller left" for call in calls)  # killed while it was answered
    assert [name for name, rule in lost.items() if not rule.count] == []
    for name in names:
        state = await ledger.budget(name)
        assert state is not None
        assert not any(state.reserved.values())
    ids = [job.id for job in jobs]
    assert await money_problems(ledger, names, provider, queue, ids) == []


async def test_a_call_whose_worker_died_before_booking_it_is_unverified_spend(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider, tmp_path: Path
):
    await ledger.open_budget("b", Budget(max_total_tokens=10 * CALL))
    gate = tmp_path / "gate"
    job = await queue.add("spend_gated", {"gate": str(gate)}, budgets=["b"])
    worker = workers.start(env={"FAKE_PROVIDER_PORT": str(provider.port)}, lock_duration=1)
    await worker.until("answered")

    worker.kill()
    gate.touch()
    workers.start(env={"FAKE_PROVIDER_PORT": str(provider.port)})
    assert await job.result(timeout=30) == CALL
    await until_nothing_is_reserved(ledger, ["b"])

    state = await ledger.budget("b")
    assert state is not None
    assert (state.total_tokens, state.caps["total_tokens"].unverified) == (2 * CALL, CALL)
    assert len(provider.calls()) == 2
    assert await money_problems(ledger, ["b"], provider, queue, [job.id]) == []


@pytest.mark.parametrize("point", [point for point in MONEY_POINTS if "job_update" not in point])
async def test_wherever_a_worker_dies_its_job_and_its_budget_tell_the_same(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider, point: str
):
    await ledger.open_budget("b", Budget(max_total_tokens=10 * CALL))
    # The first turn takes, the first reserve is the look at the start.
    count = 2 if point.startswith(("turn", "ledger_reserve")) else 1
    env = {"FAKE_PROVIDER_PORT": str(provider.port)}
    job = await queue.add("spend", budgets=["b"])
    doomed = workers.start(env={**env, "GLIDEMQ_FAILPOINT": f"{point}:{count}"}, lock_duration=1)

    assert await doomed.until_ended() == -9
    workers.start(env=env)
    assert await job.result(timeout=30) == CALL
    await until_nothing_is_reserved(ledger, ["b"])

    state = await ledger.budget("b")
    assert state is not None
    # What was reserved and is on no job's list is a guess, and said to be one.
    unverified = state.caps["total_tokens"].unverified
    assert unverified == (CALL if point in ("ledger_reserve.after", "job_usage.before") else 0)
    assert await money_problems(ledger, ["b"], provider, queue, [job.id]) == []


async def test_a_reservation_whose_worker_died_holds_nothing_for_long(
    queue: Queue, ledger: Ledger, workers: Workers, provider: Provider, tmp_path: Path
):
    await ledger.open_budget("b", Budget(max_total_tokens=100))
    gate = tmp_path / "gate"
    job = await queue.add("reserve_gated", {"gate": str(gate)}, budgets=["b"])
    worker = workers.start(env={"FAKE_PROVIDER_PORT": str(provider.port)}, lock_duration=1)
    await worker.until("answered")

    worker.kill()
    gate.touch()
    workers.start(env={"FAKE_PROVIDER_PORT": str(provider.port)})
    await job.result(timeout=30)
    await until_nothing_is_reserved(ledger, ["b"])

    state = await ledger.budget("b")
    assert state is not None
    # Nobody can know whether it was sent: it counts, and is said to be a guess.
    assert (state.total_tokens, state.caps["total_tokens"].unverified) == (10, 10)
    assert (await ledger.audit("b")).problems == ()


async def test_what_a_dead_worker_had_set_aside_and_not_sent_is_free_again(
    queue: Queue, ledger: Ledger, workers: Workers, tmp_path: Path
):
    await ledger.open_budget("b", Budget(max_total_tokens=100, on_exceeded="pause"))
    gate = tmp_path / "gate"
    job = await queue.add("gate", {"gate": str(gate)}, budgets=["b"], estimate={"tokens": 60})
    worker = workers.start(lock_duration=1)
    await worker.until("waiting")
    held = await reserved(ledger)

    worker.kill()
    (tmp_path / "gate.2").touch()
    workers.start()
    await job.result(timeout=30)  # there is no room for it twice
    await until_nothing_is_reserved(ledger, ["b"])

    state = await ledger.budget("b")
    assert state is not None
    assert held["total_tokens"] == 60
    assert (state.total_tokens, state.caps["total_tokens"].unverified) == (0, 0)


async def test_a_run_stopped_while_it_reserves_gives_back_what_it_never_sent(
    queue: Queue, ledger: Ledger, server: ValkeyServer, provider: Provider
):
    await ledger.open_budget("b", Budget(max_total_tokens=100))
    began, go = asyncio.Event(), asyncio.Event()

    async def handler(job):
        began.set()
        await go.wait()
        async with job.llm_call("m", tokens={"input": 10}):
            raise AssertionError

    with Proxy(server.port) as proxy:
        url = f"valkey://127.0.0.1:{proxy.port}"
        async with Worker(queue.name, handler, connection=url):
            job = await queue.add("call", budgets=["b"], timeout=1.5)
            reserves = proxy.watch(b"ledger_reserve")
            await began.wait()
            proxy.hold(up=False)
            go.set()
            await asyncio.to_thread(reserves.wait)
            await eventually(lambda: reserved(ledger), what="the server has not applied it")
            held = await reserved(ledger)
            await asyncio.sleep(1.6)  # its time runs out while nobody hears the answer
            proxy.release()
            with pytest.raises(JobFailed, match="timeout"):
                await job.result(timeout=30)

    state = await ledger.budget("b")
    assert state is not None
    assert held == {"total_tokens": 10, "tokens.input": 10}
    assert (state.reserved, state.total_tokens) == ({}, 0)
