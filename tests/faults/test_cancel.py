"""A job is cancelled at each stage of its life: one outcome, one end of its stream, and no money lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from glidemq_core import Budget, JobCancelled, Queue, Worker
from glidemq_core.ledger import Ledger
from glidemq_llm import Pricing, chat_handler
from tests.harness.fsck import fsck
from tests.harness.processes import eventually
from tests.harness.provider import Behaviour, Provider
from tests.harness.servers import ValkeyServer

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("aftermath")]

BEAT = 10.0  # of a lease of 30 s
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=provider.openai_url, api_key="-", max_retries=0) as opened:
        yield opened


async def check_one_end(server: ValkeyServer, queue: Queue, job: Any) -> None:
    """It is cancelled: to waiters, to readers, in the index, in the events; each once."""
    with pytest.raises(JobCancelled):
        await job.result(timeout=BEAT)
    assert (await job.snapshot()).state == "cancelled"
    counts = await queue.counts()
    assert (counts["cancelled"], sum(counts.values())) == (1, 1)
    chunks = [chunk async for chunk in job.stream()]
    assert [chunk.content for chunk in chunks if chunk.type == "end"] == ["cancelled"]
    assert chunks[-1].type == "end"
    assert await job.cancel() == "ended"
    assert fsck(server, queue.name) == []


@pytest.mark.parametrize("options", [{}, {"delay": 60}], ids=["waiting", "delayed"])
async def test_job_that_has_not_started_never_runs(server: ValkeyServer, queue: Queue, options):
    ran = []
    job = await queue.add("n", **options)
    assert await job.cancel() == "cancelled"
    async with Worker(queue.name, lambda job: ran.append(job.id), connection=server.url):
        await check_one_end(server, queue, job)
        other = await queue.add("n")
        await other.result(timeout=30)
        assert ran == [other.id]


@pytest.mark.parametrize("park", ["signal", "sleep", "retry", "budget"])
async def test_parked_job_ends_at_once(
    server: ValkeyServer, queue: Queue, ledger: Ledger, client: AsyncOpenAI, park: str
):
    async def handler(job):
        if park == "signal":
            await job.wait_for_signal("never")
        if park == "retry":
            raise ValueError("again, later")
        await job.sleep(60)

    if park == "budget":
        await ledger.open_budget("small", Budget(max_total_tokens=1, on_exceeded="pause"))
        handler = chat_handler({"openai": client}, pricing=Pricing(overrides={}))
    budgets = ["small"] if park == "budget" else []
    async with Worker(queue.name, handler, connection=server.url):
        job = await queue.add("n", CHAT, attempts=2, backoff=60, budgets=budgets)
        parked = "suspended" if park == "signal" else "delayed"
        await eventually(lambda: _is(job, parked))
        assert await job.cancel() == "cancelled"
        await check_one_end(server, queue, job)
        assert await queue.suspended() == []


async def _is(job: Any, state: str) -> bool:
    return (await job.snapshot()).state == state


@pytest.mark.parametrize("stage", ["before the first token", "in the middle"])
async def test_providers_connection_is_closed_and_its_use_is_booked(
    server: ValkeyServer,
    queue: Queue,
    ledger: Ledger,
    client: AsyncOpenAI,
    provider: Provider,
    *,
    stage: str,
):
    at = 0 if stage == "before the first token" else 5
    provider.usually(Behaviour(tokens=20, faults={at: "hang"}))
    await ledger.open_budget("b", Budget(max_total_tokens=1000))
    handler = chat_handler({"openai": client}, pricing=Pricing(overrides={}))

    async with Worker(queue.name, handler, connection=server.url):
        job = await queue.add("n", CHAT, budgets=["b"])
        await eventually(lambda: provider.events("hang"))
        if at:
            await eventually(lambda: _has_text(queue, job, f"t{at - 1} "))
        assert (await ledger.budget("b")).reserved
        assert await job.cancel() == "requested"
        await check_one_end(server, queue, job)
        await eventually(
            lambda: [call.outcome for call in provider.calls()] == ["caller left"], BEAT
        )

    state = await ledger.budget("b")
    assert not any(state.reserved.values())
    billed = provider.calls()[0]
    booked = (await job.snapshot()).usage
    assert len(booked.calls) == 1
    assert booked.calls[0]["status"] != "complete"  # an estimate, and says so
    assert booked.total_tokens >= billed.input + billed.output


async def _has_text(queue: Queue, job: Any, text: str) -> bool:
    return text in "".join(chunk.content for chunk in await queue.read_stream(job.id))


async def test_job_cancelled_while_its_handler_finishes_has_no_result(
    server: ValkeyServer, queue: Queue
):
    about_to_end, go = asyncio.Event(), asyncio.Event()

    async def handler(job):
        about_to_end.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            return "a result all the same"

    async with Worker(queue.name, handler, connection=server.url):
        job = await queue.add("n")
        await about_to_end.wait()
        assert await job.cancel() == "requested"
        await check_one_end(server, queue, job)
        assert (await job.snapshot()).result is None


async def test_claimed_job_that_has_not_started_is_cancelled_unrun(
    server: ValkeyServer, queue: Queue
):
    """Short jobs are claimed ahead of their slot; those that are cancelled meanwhile never start."""
    ran: list[str] = []

    async def handler(job):
        ran.append(job.id)

    async with Worker(queue.name, handler, connection=server.url, concurrency=4):
        for _ in range(20):
            jobs = [await queue.add("n") for _ in range(10)]
            said = await asyncio.gather(*(job.cancel() for job in jobs))
            for job, how in zip(jobs, said, strict=True):
                if how == "cancelled":
                    assert job.id not in ran
                if how == "ended":
                    await job.result(timeout=30)
                else:
                    with pytest.raises(JobCancelled):
                        await job.result(timeout=30)
    counts = await queue.counts()
    assert counts["completed"] + counts["cancelled"] == sum(counts.values()) == 200
    assert fsck(server, queue.name) == []


async def test_cancel_signal_and_outcome_in_any_order_leave_one_end(
    server: ValkeyServer, queue: Queue
):
    """A job is signalled and cancelled while it parks: whatever comes first, it ends cancelled or as signalled."""

    async def handler(job):
        return (await job.wait_for_signal("go")).data

    async with Worker(queue.name, handler, connection=server.url, concurrency=20):
        jobs = [await queue.add("n") for _ in range(100)]
        calls = []
        for i, job in enumerate(jobs):
            first, second = (job.cancel(), job.signal("go", i))[:: 1 if i % 2 else -1]
            calls += [first, second]
        await asyncio.gather(*calls, return_exceptions=True)
        ends = await asyncio.gather(
            *(job.result(timeout=30) for job in jobs), return_exceptions=True
        )
    for i, end in enumerate(ends):
        assert end == i or isinstance(end, JobCancelled)
    assert fsck(server, queue.name) == []
