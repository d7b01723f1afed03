"""A cancelled call whose answer is drained is booked as the provider bills it."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import asyncio
import uuid

import openai
import pytest

from glidemq_core import Budget, Ledger, Worker
from glidemq_llm import AnswerUnreadable, MeterSettings, wrap
from glidemq_llm._drivers import Kept, readable
from glidemq_llm.metering import MeteredCall
from tests.harness.llm_clients import OpenAIChat
from tests.harness.processes import eventually
from tests.harness.provider import Behaviour, ended_call

TURN = [{"role": "user", "content": "say it"}]


@pytest.fixture
async def ledger(url):
    async with Ledger(connection=url) as opened:
        yield opened


async def reads(job, word):
    """Wait until a reader of the job has seen a word."""
    async for chunk in job.stream():
        if word in chunk.content:
            return


async def booked(job):
    """The job once its call is booked."""
    async with asyncio.timeout(20):
        while not (found := await job.snapshot()).usage.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


async def test_cancelled_stream_is_booked_as_billed(
    api, client, provider, model, plan, queue, url, ledger
):
    plan(Behaviour(tokens=20, input=20, cached=5, faults={10: f"gate:{model}"}))
    budget = f"b-{uuid.uuid4().hex[:8]}"
    await ledger.open_budget(budget, Budget(max_total_tokens=100_000))
    wrapped = wrap(client, on_cancel="drain")

    async def handler(_job):
        async for _ in await api.stream(wrapped, model):
            pass

    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("job", None, budgets=[budget])
        await reads(job, "t9")
        await job.cancel()
        chunks = [
            chunk async for chunk in job.stream()
        ]  # to its end, which does not wait for the provider
        assert not (await job.snapshot()).usage.calls
        provider.open(model)
        found = await booked(job)
        billed = provider.billed(model=model)

        async def is_settled():  # it is booked on the job first
            return (await ledger.budget(budget)).total_tokens == sum(billed.values())

        await eventually(is_settled)
        state = await ledger.budget(budget)

    (call,) = provider.calls(model=model)
    assert found.state == "cancelled"
    assert call.outcome == "complete"
    assert dict(found.usage.tokens) == billed
    assert found.usage.calls[0]["status"] == "complete"
    assert [chunk.type for chunk in chunks][-2:] == ["done", "end"]
    assert state.reserved == {}
    assert (await ledger.audit(budget)).problems == ()


async def test_reader_who_leaves_early_is_not_held(provider, model, plan, queue, url):
    plan(Behaviour(tokens=20, input=20, faults={10: f"gate:{model}"}))
    api = OpenAIChat()
    client = api.make(provider)
    wrapped = wrap(client, on_cancel="drain")

    async def handler(_job):
        stream = await api.stream(wrapped, model)
        async for event in stream:
            if api.text(event).startswith("t4"):
                break
        await stream.close()
        return "left"

    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("job")
        assert await job.result(timeout=20) == "left"
        provider.open(model)
        found = await booked(job)

    assert dict(found.usage.tokens) == provider.billed(model=model) == {"input": 20, "output": 20}
    await client.close()


async def test_cancelled_whole_answer_is_booked_as_billed(
    api, client, provider, model, plan, queue, url
):
    plan(Behaviour(tokens=20, input=20, faults={0: f"gate:{model}"}))
    wrapped = wrap(client, on_cancel="drain")

    async def handler(_job):
        await api.whole(wrapped, model)

    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("job")
        await eventually(lambda: model in {event["gate"] for event in provider.events("gate")})
        await job.cancel()
        [chunk async for chunk in job.stream()]
        provider.open(model)
        found = await booked(job)

    assert found.state == "cancelled"
    assert dict(found.usage.tokens) == provider.billed(model=model)


async def test_draining_is_bounded(provider, model, plan, queue, url):
    plan(Behaviour(tokens=20, input=20, faults={10: "hang"}))
    api = OpenAIChat()
    client = api.make(provider)
    wrapped = wrap(client, on_cancel="drain", drain_timeout=0.2)

    async def handler(_job):
        async for _ in await api.stream(wrapped, model):
            pass

    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("job")
        await reads(job, "t9")
        await job.cancel()
        found = await booked(job)

    assert (await ended_call(provider, model)).outcome == "caller left"
    assert found.usage.calls[0]["status"] != "complete"
    assert found.usage.tokens["output"] >= 10
    await client.close()


async def test_sync_client_reads_on_before_its_thread_ends(provider, model, plan, run):
    plan(Behaviour(tokens=60, input=20, faults={10: f"gate:{model}"}))
    client = openai.OpenAI(base_url=provider.openai_url, api_key="k")
    wrapped = wrap(client, on_cancel="drain")
    running = []

    def handler(job):
        running.append(job)
        for _ in wrapped.chat.completions.create(model=model, messages=TURN, stream=True):
            pass

    async def cancel(job):
        await reads(job, "t9")
        await job.cancel()
        await eventually(lambda: running[0].cancelled)
        provider.open(model)

    ended = await run(handler, beside=cancel)

    assert ended.job.state == "cancelled"
    assert provider.calls(model=model)[0].outcome == "complete"
    assert ended.tokens == provider.billed(model=model)
    assert ended.statuses == ["complete"]
    client.close()


async def test_draining_changes_nothing_for_streams_that_break(api, client, model, plan, run):
    plan(Behaviour(tokens=9, faults={3: "end"}), Behaviour(tokens=5))
    wrapped = wrap(client, on_cancel="drain")

    async def handler(_job):
        return "".join([api.text(event) async for event in await api.stream(wrapped, model)])

    ended = await run(handler, attempts=2)

    assert ended.job.result == ended.text == "t0 t1 t2 t3 t4 "


async def test_sdk_that_stumbles_over_an_event_is_told_from_a_bug_of_ours():
    async def stream():
        yield 1
        raise KeyError("delta")

    call = MeteredCall(
        "j/1/1", api="openai.chat", provider="p", request={}, settings=MeterSettings()
    )
    kept = Kept(stream())
    await anext(kept)
    with pytest.raises(KeyError) as caught:
        await anext(kept)

    assert isinstance(readable(call, caught.value), AnswerUnreadable)
