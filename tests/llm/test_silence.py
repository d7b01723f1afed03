"""What counts as silence: keep-alives don't, a call that is answered in one piece is bounded, and long waits hold nothing."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import asyncio

import openai
import pytest

from glidemq_core import Worker
from glidemq_llm import MeterSettings, chat_handler, wrap
from tests.harness.provider import Behaviour

FIVE = "t0 t1 t2 t3 t4 "
TURN = [{"role": "user", "content": "say it"}]


async def keeps_silent(job, provider, gate, seconds):
    """Let a provider send nothing but comments for a while."""
    async for chunk in job.stream():
        if "t2" in chunk.content:
            break
    await asyncio.sleep(seconds)
    provider.open(gate)


async def test_comments_are_signs_of_life(api, client, provider, model, plan, run):
    plan(Behaviour(tokens=5, faults={3: f"alive:{model}"}))
    wrapped = wrap(client, idle_timeout=0.8, first_event_timeout=0.8)

    async def handler(_job):
        return "".join([api.text(event) async for event in await api.stream(wrapped, model)])

    ended = await run(
        handler, idle_timeout=0.8, beside=lambda job: keeps_silent(job, provider, model, 1.3)
    )

    assert ended.job.result == FIVE


@pytest.mark.parametrize("how", ["async", "thread"])
async def test_comments_renew_a_jobs_idle_timeout(provider, model, plan, run, how):
    plan(Behaviour(tokens=5, faults={3: f"alive:{model}"}))
    kind = openai.AsyncOpenAI if how == "async" else openai.OpenAI
    client = kind(base_url=provider.openai_url, api_key="k")
    wrapped = wrap(client)

    def in_thread(_job):
        stream = wrapped.chat.completions.create(model=model, messages=TURN, stream=True)
        return "".join(event.choices[0].delta.content or "" for event in stream)

    handler = chat_handler({"openai": client}) if how == "async" else in_thread
    data = {"messages": TURN, "model": model}
    ended = await run(
        handler, data, idle_timeout=0.8, beside=lambda job: keeps_silent(job, provider, model, 1.3)
    )

    assert ended.text == FIVE
    assert ended.job.state == "completed"
    if how == "thread":
        client.close()
    else:
        await client.close()


async def test_call_without_an_answer_is_given_up_and_its_input_booked(
    api, client, provider, model, plan, run
):
    plan(Behaviour(faults={-1: "hang"}))
    wrapped = wrap(client, call_timeout=0.3)
    seen = len(provider.events("end"))

    async def handler(_job):
        await api.whole(wrapped, model)

    ended = await run(handler)

    assert ended.job.error.error_class.endswith("StreamStalled")
    assert ended.tokens["input"] > 0
    await asyncio.to_thread(provider.wait, "end", count=seen + 1)
    assert provider.calls(model=model)[0].outcome == "caller left"


# -- long waits -------------------------------------------------------------------


@pytest.fixture
async def openai_client(provider):
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
        yield client


async def delayed(queue, job):
    """Wait until a job is parked; answers it."""
    async with asyncio.timeout(20):
        while (found := await job.snapshot()).state != "delayed":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


LATER = Behaviour(status=429, headers={"retry-after": "600"})


@pytest.mark.parametrize("fallbacks", [0, 1])
async def test_long_wait_for_a_provider_parks_the_job_and_uses_no_attempt(
    openai_client, provider, model, queue, url, fallbacks
):
    for name in (f"{model}-0", f"{model}-1"):
        provider.plan(name, LATER, Behaviour(tokens=5))
    more = [{"model": f"{model}-1"}] * fallbacks

    async with Worker(queue.name, chat_handler({"openai": openai_client}), connection=url):
        data = {"messages": TURN, "model": f"{model}-0"}
        job = await queue.add("job", data, attempts=1, fallbacks=more)
        parked = await delayed(queue, job)
        await queue.promote(job.id)
        result = await job.result(timeout=20)
        found = await job.snapshot()

    assert parked.reason == "throttled"
    assert parked.attempt == found.attempt == 1
    assert result["text"] == FIVE
    assert len(provider.calls(model=f"{model}-0")) == 2


async def test_fallback_that_is_left_is_asked_instead_of_waiting(
    openai_client, provider, model, run
):
    provider.plan(f"{model}-0", LATER)
    provider.plan(f"{model}-1", Behaviour(tokens=5))

    ended = await run(
        chat_handler({"openai": openai_client}),
        {"messages": TURN, "model": f"{model}-0"},
        fallbacks=[{"model": f"{model}-1"}],
    )

    assert ended.job.result["text"] == FIVE
    assert ended.job.run == 1


async def test_no_long_wait_where_another_model_may_be_back_sooner(
    openai_client, provider, model, run
):
    provider.plan(f"{model}-0", LATER, Behaviour(tokens=5))
    provider.plan(f"{model}-1", Behaviour(status=500))

    ended = await run(
        chat_handler({"openai": openai_client}, settings=MeterSettings()),
        {"messages": TURN, "model": f"{model}-0"},
        fallbacks=[{"model": f"{model}-1"}],
        attempts=1,
    )

    assert ended.job.error.error_class.endswith("FallbacksExhausted")
