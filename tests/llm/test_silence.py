"""What counts as silence: keep-alives don't, a call that is answered in one piece is bounded, and long waits hold nothing."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import asyncio
from unittest import mock

import openai
import pytest

from glidemq_core import Worker
from glidemq_llm import MeterSettings, chat_handler, wrap
from glidemq_llm._drivers import _Watch
from glidemq_llm.metering import MeteredCall
from tests.harness.provider import Behaviour, ended_call

FIVE = "t0 t1 t2 t3 t4 "
TURN = [{"role": "user", "content": "say it"}]


async def sees_a_sign(job):
    """Wait until something renews a running job's idle timeout."""
    running = getattr(job, "_job", job)._run
    since = running.touched_at
    async with asyncio.timeout(20):
        while running.touched_at == since:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_comments_are_signs_of_life(api, client, provider, model, plan, run):
    plan(Behaviour(tokens=5, faults={3: f"alive:{model}"}))
    wrapped = wrap(client)

    async def handler(job):
        words = []
        async for event in await api.stream(wrapped, model):
            words.append(api.text(event))
            if words[-1].startswith("t2"):  # from here on there are comments only
                reading = asyncio.ensure_future(sees_a_sign(job))
                reading.add_done_callback(lambda _: provider.open(model))
        await reading
        return "".join(words)

    ended = await run(handler)

    assert ended.job.result == FIVE


async def test_comments_are_signs_of_life_in_threads(provider, model, plan, run):
    plan(Behaviour(tokens=5, faults={3: f"alive:{model}"}))
    with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
        wrapped = wrap(client)
        running = []

        def handler(job):
            running.append(job)
            stream = wrapped.chat.completions.create(model=model, messages=TURN, stream=True)
            return "".join(event.choices[0].delta.content or "" for event in stream)

        async def beside(job):
            async for chunk in job.stream():
                if "t2" in chunk.content:
                    break
            await sees_a_sign(running[0])
            provider.open(model)

        ended = await run(handler, beside=beside)

    assert ended.job.result == FIVE


class Clock:
    """Stands for the loop's."""

    now = 0.0

    def time(self):
        return self.now

    def call_at(self, at, look):
        return self

    def cancel(self):
        """Of the timer."""


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_sign_of_life_puts_off_the_end_of_patience(is_first):
    call = MeteredCall(
        "j/1/1",
        api="openai.chat",
        provider="openai",
        request={},
        settings=MeterSettings(first_event_timeout=10, idle_timeout=10),
    )
    watch, clock, waiter = _Watch(call), Clock(), mock.Mock(**{"cancelling.return_value": 0})
    watch._loop, watch._first_until, watch._is_first = clock, 10.0, is_first
    watch.waits()
    watch._waiter = waiter

    clock.now = 9.0
    watch.has_sign()
    clock.now = 18.0
    watch._look()
    assert not waiter.cancel.called
    clock.now = 19.0
    watch._look()
    assert waiter.cancel.called


async def test_call_without_an_answer_is_given_up_and_its_input_booked(
    api, client, provider, model, plan, run
):
    plan(Behaviour(faults={-1: "hang"}))
    wrapped = wrap(client, call_timeout=0.3)

    async def handler(_job):
        await api.whole(wrapped, model)

    ended = await run(handler)

    assert ended.job.error.error_class.endswith("StreamStalled")
    assert ended.tokens["input"] > 0
    assert (await ended_call(provider, model)).outcome == "caller left"


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
