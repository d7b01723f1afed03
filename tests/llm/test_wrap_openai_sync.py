"""The blocking OpenAI client in the handlers of threads."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import openai
import pytest
from pydantic import BaseModel

from glidemq_llm import wrap
from tests.harness.provider import Behaviour, ended_call

ASK = [{"role": "user", "content": "say it"}]
FIVE = "t0 t1 t2 t3 t4 "


class City(BaseModel):
    name: str


@pytest.fixture
def sync_client(provider):
    with openai.OpenAI(base_url=provider.openai_url, api_key="k") as made:
        yield made


async def test_sync_client_streams_from_a_thread(sync_client, provider, model, plan, run):
    plan(Behaviour(tokens=5, input=20, cached=8))
    wrapped = wrap(sync_client)

    def handler(_job):
        stream = wrapped.chat.completions.create(model=model, messages=ASK, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    ended = await run(handler)

    assert isinstance(wrapped, openai.OpenAI)
    assert ended.job.result == ended.text == FIVE
    assert [chunk.type for chunk in ended.chunks] == [
        "start",
        *["content"] * 5,
        "usage",
        "done",
        "end",
    ]
    assert ended.tokens == provider.billed(model=model)


async def test_sync_helpers(sync_client, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(text='{"name": "Oslo"}'), Behaviour(tokens=5))
    wrapped = wrap(sync_client)

    def handler(_job):
        completions = wrapped.chat.completions
        raw = completions.with_raw_response.create(model=model, messages=ASK)
        parsed = completions.parse(model=model, messages=ASK, response_format=City)
        with completions.stream(model=model, messages=ASK) as stream:
            final = stream.get_final_completion()
        return [
            raw.parse().choices[0].message.content,
            parsed.choices[0].message.parsed.name,
            final.choices[0].message.content,
        ]

    ended = await run(handler)

    assert ended.job.result == [FIVE, "Oslo", FIVE]
    assert ended.tokens == provider.billed(model=model)
    assert len(provider.calls(model=model)) == 3


@pytest.mark.parametrize("fault", ["disconnect", "reset", "malformed", "error", "end"])
async def test_broken_sync_stream_is_tried_again(sync_client, provider, model, plan, run, fault):
    plan(Behaviour(tokens=9, faults={3: fault}), Behaviour(tokens=5))
    wrapped = wrap(sync_client)

    def handler(_job):
        stream = wrapped.chat.completions.create(model=model, messages=ASK, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    ended = await run(handler, attempts=2)

    assert ended.job.result == ended.text == FIVE
    assert len(provider.calls(model=model)) == 2
    assert ended.statuses == ["complete", "missing"]


async def test_stalled_sync_stream_ends(sync_client, provider, model, plan, run):
    plan(Behaviour(tokens=9, faults={3: "hang"}))
    wrapped = wrap(sync_client, first_event_timeout=1, idle_timeout=1)

    def handler(_job):
        stream = wrapped.chat.completions.create(model=model, messages=ASK, stream=True)
        return [chunk.id for chunk in stream]

    ended = await run(handler)

    assert ended.job.error.error_class.endswith("StreamStalled")
    assert ended.tokens["output"] > 0


async def test_sync_stream_left_early(sync_client, provider, model, plan, run):
    plan(Behaviour(tokens=20, faults={10: f"gate:{model}"}))
    wrapped = wrap(sync_client)
    kept = []

    def handler(_job):
        kept.append(wrapped.chat.completions.create(model=model, messages=ASK, stream=True))
        for chunk in kept[0]:
            if (chunk.choices[0].delta.content or "").startswith("t4"):
                return "enough"
        return None

    ended = await run(handler)

    assert (await ended_call(provider, model)).outcome == "caller left"
    assert ended.tokens["output"] > 2
    assert ended.of("done")[0].content == "cancelled"


async def test_own_timeout_of_a_sync_client_stays(provider, model):
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", timeout=5) as client:
        from glidemq_llm import MeterSettings
        from glidemq_llm.providers._hooks import sync_timeout

        assert sync_timeout(client, MeterSettings()) is None
        assert sync_timeout(client.with_options(timeout=600), MeterSettings()) == 120
    with openai.OpenAI(api_key="k") as client:
        assert sync_timeout(client, MeterSettings()).read == 120
        assert sync_timeout(client, MeterSettings()).connect == client.timeout.connect
