"""google-genai, mistralai, cohere, ollama and boto3, wrapped: what is streamed, booked, counted and closed."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import gc
import time

import pytest

from glidemq_core.errors import InvalidOption
from glidemq_llm import chat_handler, wrap
from tests.harness.provider import Behaviour, ended_call

FIVE = "t0 t1 t2 t3 t4 "
ASK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "say it"}]

# Some of these SDKs leave their connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
async def client(vendor, provider):
    made = vendor.make(provider)
    yield made
    await vendor.close(made)


@pytest.fixture
def client_now(vendor, provider):
    yield vendor.make_now(provider)
    gc.collect()


def streaming(vendor, client, model, **options):
    """A handler that reads a stream to its end and answers its text."""
    wrapped = wrap(client, **options)

    async def handler(_job):
        stream = await vendor.stream(wrapped, model)
        return "".join([vendor.text(event) async for event in stream])

    return handler


async def test_streamed_answer(vendor, client, provider, model, plan, run):
    plan(Behaviour(tokens=5, input=20))

    ended = await run(streaming(vendor, client, model))

    assert ended.job.result == ended.text == FIVE
    assert [chunk.type for chunk in ended.chunks] == [
        "start",
        *["content"] * 5,
        "usage",
        "done",
        "end",
    ]
    assert ended.tokens == provider.billed(model=model)
    assert ended.statuses == ["complete"]
    (call,) = ended.job.usage.calls
    assert (call["provider"], call["model"]) == (ended.of("start")[0].fields["provider"], model)
    assert ended.of("done")[0].content == "stop"


async def test_whole_answer(vendor, client, provider, model, plan, run):
    plan(Behaviour(tokens=5, input=20))
    wrapped = wrap(client)

    async def handler(_job):
        return await vendor.whole(wrapped, model)

    ended = await run(handler)

    assert ended.job.result == ended.text == FIVE
    assert [chunk.type for chunk in ended.chunks] == ["start", "content", "usage", "done", "end"]
    assert ended.tokens == provider.billed(model=model)


async def test_sync_client_in_a_thread(vendor, client_now, provider, model, plan, run):
    plan(Behaviour(tokens=5, input=20), Behaviour(tokens=5, input=20))
    wrapped = wrap(client_now)

    def handler(_job):
        whole = vendor.whole_now(wrapped, model)
        stream = vendor.stream_now(wrapped, model)
        return [whole, "".join(vendor.text(event) for event in stream)]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert ended.text == FIVE + FIVE
    assert ended.tokens == provider.billed(model=model)
    assert len(ended.job.usage.calls) == 2


async def test_outside_of_a_job(vendor, client, provider, model, plan):
    plan(Behaviour(tokens=5), Behaviour(tokens=5))
    wrapped = wrap(client)

    stream = await vendor.stream(wrapped, model)

    assert "".join([vendor.text(event) async for event in stream]) == FIVE
    assert await vendor.whole(wrapped, model) == FIVE
    assert isinstance(wrapped, type(client))


async def test_given_client_is_left_as_it_was(vendor, client, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(tokens=5))
    wrapped = wrap(wrap(client))

    async def handler(_job):
        return [await vendor.whole(client, model), await vendor.whole(wrapped, model)]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert len(ended.job.usage.calls) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_passing_refusal_costs_one_call_an_attempt(
    vendor, client, provider, model, plan, run, status
):
    plan(Behaviour(status=status), Behaviour(tokens=5))

    ended = await run(streaming(vendor, client, model), attempts=2)

    assert ended.job.result == FIVE
    assert ended.job.attempt == len(provider.calls(model=model)) == 2
    assert ended.tokens == provider.billed(model=model)


async def test_final_refusal_is_not_repeated(vendor, client, provider, model, plan, run):
    plan(Behaviour(status=400, message="no such option"), Behaviour())

    ended = await run(streaming(vendor, client, model), attempts=3)

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")
    assert len(provider.calls(model=model)) == 1


@pytest.mark.parametrize("fault", ["disconnect", "error", "end"])
async def test_broken_stream_is_tried_again(vendor, client, provider, model, plan, run, fault):
    if (vendor.name, fault) == ("mistral", "error"):
        pytest.skip("Mistral has no error events")
    plan(Behaviour(tokens=9, input=20, faults={3: fault}), Behaviour(tokens=5, input=20))

    ended = await run(streaming(vendor, client, model), attempts=2)

    assert ended.job.result == ended.text == FIVE
    assert ended.job.attempt == len(provider.calls(model=model)) == 2
    assert len(ended.of("reset")) == 1
    assert ended.statuses[0] == "complete"
    assert ended.statuses[1] in ("missing", "partial")


async def test_silence_ends_the_call(vendor, client, provider, model, plan, run):
    plan(Behaviour(tokens=9, faults={3: "hang"}))

    ended = await run(streaming(vendor, client, model, idle_timeout=0.3))

    assert ended.job.error.error_class.endswith("StreamStalled")
    assert (await ended_call(provider, model)).outcome == "caller left"


async def test_silence_ends_the_call_of_a_thread(vendor, client_now, provider, model, plan, run):
    if vendor.name == "gemini":
        pytest.skip("the SDK's timeout bounds the whole answer: it is the client's to set")
    plan(Behaviour(tokens=9, input=20, faults={3: "hang"}))
    wrapped = wrap(client_now, idle_timeout=1, first_event_timeout=1)

    def handler(_job):
        return [vendor.text(event) for event in vendor.stream_now(wrapped, model)]

    ended = await run(handler)

    assert ended.job.error.error_class.endswith("StreamStalled")
    assert ended.tokens["output"] > 0
    assert (await ended_call(provider, model)).outcome == "caller left"


async def test_cancel_closes_the_connection(vendor, client, provider, model, plan, spend):
    plan(Behaviour(tokens=20, input=20, faults={10: f"gate:{model}"}))
    cancelled_at = 0.0

    async def cancel(job):
        nonlocal cancelled_at
        async for chunk in job.stream():
            if "t9" in chunk.content:
                break
        cancelled_at = time.monotonic()
        await job.cancel()

    ended = await spend(streaming(vendor, client, model), beside=cancel)

    call = await ended_call(provider, model)
    assert ended.job.state == "cancelled"
    assert call.outcome == "caller left"
    assert call.ended - cancelled_at < 1
    assert ended.tokens["output"] > 5
    assert ended.statuses != ["complete"]


async def test_leaving_early_closes_the_connection(vendor, client, provider, model, plan, run):
    plan(Behaviour(tokens=20, input=20, faults={10: f"gate:{model}"}))
    wrapped = wrap(client)
    kept = []

    async def handler(_job):
        kept.append(await vendor.stream(wrapped, model))
        async for event in kept[0]:
            if vendor.text(event).startswith("t4"):
                return "enough"
        return None

    ended = await run(handler)

    assert ended.job.result == "enough"
    assert (await ended_call(provider, model)).outcome == "caller left"
    assert ended.tokens["output"] > 2
    assert ended.of("done")[0].content == "cancelled"


async def test_chat_job(vendor, client, provider, model, plan, run):
    plan(Behaviour(tokens=9))
    handler = chat_handler({"mine": client})

    ended = await run(
        handler, {"messages": ASK, "model": f"mine/{model}", "max_tokens": 5, "temperature": 0.5}
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.result["finish_reason"] in ("length", "stop")
    assert ended.job.result["model"] == model
    assert provider.calls(model=model)[0].limit == 5
    assert ended.tokens == provider.billed(model=model)


async def test_chat_job_falls_back(vendor, client, provider, model, run):
    provider.plan(f"{model}-1", Behaviour(tokens=9, faults={3: "disconnect"}))
    provider.plan(f"{model}-2", Behaviour(tokens=5))
    handler = chat_handler({"mine": client})

    ended = await run(
        handler,
        {"messages": ASK, "model": f"{model}-1"},
        fallbacks=[{"model": f"{model}-2"}],
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.hops[0]["category"] == "stream_interrupted"


# -- google's chats ---------------------------------------------------------------


async def test_chats_of_google_are_metered(provider, model, plan, run):
    pytest.importorskip("google.genai")
    from tests.harness.llm_clients import Gemini

    plan(*[Behaviour(tokens=5, input=20)] * 3)
    vendor = Gemini()
    client = vendor.make(provider)
    wrapped = wrap(client)

    async def handler(_job):
        chat = wrapped.aio.chats.create(model=model)
        first = (await chat.send_message("say it")).text
        return first + "".join(
            [part.text or "" async for part in await chat.send_message_stream("again")]
        )

    def in_thread(_job):
        return wrapped.chats.create(model=model).send_message("say it").text

    ended, sync = await run(handler), await run(in_thread)

    assert (ended.job.result, sync.job.result) == (FIVE + FIVE, FIVE)
    assert ended.tokens == {"input": 40, "output": 10}
    assert sync.tokens == {"input": 20, "output": 5}
    await vendor.close(client)


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_googles_own_retries_are_off_inside_of_a_job(provider, model, plan, run, is_stream):
    genai = pytest.importorskip("google.genai")
    plan(Behaviour(status=503), Behaviour(status=503), Behaviour(tokens=5))
    http = {
        "base_url": provider.url,
        "api_version": "v1beta",
        "retry_options": {"attempts": 4, "initial_delay": 0.01},
    }
    client, config = genai.Client(api_key="k", http_options=http), {"temperature": 0.5}
    models = wrap(client).aio.models

    async def handler(_job):
        if not is_stream:
            return (await models.generate_content(model=model, contents="x", config=config)).text
        stream = await models.generate_content_stream(model=model, contents="x")
        return "".join([part.text or "" async for part in stream])

    ended = await run(handler, attempts=3, backoff=0.01)

    assert ended.job.result == FIVE
    assert ended.job.attempt == len(provider.calls(model=model)) == 3
    plan(Behaviour(status=503), Behaviour(tokens=5))
    assert await handler(None) == FIVE  # outside of a job they are as they were
    assert len(provider.calls(model=model)) == 5
    await client.aio.aclose()
    client.close()


async def test_googles_own_retries_are_off_in_a_chat_handler(provider, model, plan, run):
    genai = pytest.importorskip("google.genai")
    plan(Behaviour(status=503), Behaviour(tokens=5))
    http = {
        "base_url": provider.url,
        "api_version": "v1beta",
        "retry_options": {"attempts": 4, "initial_delay": 0.01},
    }
    client = genai.Client(api_key="k", http_options=http)
    data = {"model": f"google/{model}", "messages": [{"role": "user", "content": "x"}]}

    ended = await run(chat_handler({"google": client}), data, attempts=2, backoff=0.01)

    assert ended.job.result["text"] == FIVE
    assert ended.job.attempt == len(provider.calls(model=model)) == 2
    await client.aio.aclose()
    client.close()


# -- boto3: sync only ------------------------------------------------------------


@pytest.fixture
def bedrock(provider):
    boto3 = pytest.importorskip("boto3")
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=provider.url,
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    yield client
    client.close()


TURNS = [{"role": "user", "content": [{"text": "say it"}]}]


async def test_converse(bedrock, provider, model, plan, run):
    plan(Behaviour(tokens=5, input=20, cached=8), Behaviour(tokens=5, input=20))
    wrapped = wrap(bedrock)

    def handler(_job):
        whole = wrapped.converse(modelId=model, messages=TURNS)
        streamed = wrapped.converse_stream(modelId=model, messages=TURNS)
        text = [
            event["contentBlockDelta"]["delta"]["text"]
            for event in streamed["stream"]
            if "contentBlockDelta" in event
        ]
        return [whole["output"]["message"]["content"][0]["text"], "".join(text)]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert ended.text == FIVE + FIVE
    assert ended.tokens == provider.billed(model=model)
    assert {call["model"] for call in ended.job.usage.calls} == {model}


async def test_converse_is_sent_once_inside_a_job(bedrock, provider, model, plan, run):
    plan(Behaviour(status=429), Behaviour(tokens=5))
    wrapped = wrap(bedrock)

    def handler(_job):
        return wrapped.converse(modelId=model, messages=TURNS)["stopReason"]

    ended = await run(handler, attempts=2)

    assert ended.job.result == "end_turn"
    assert ended.job.attempt == len(provider.calls(model=model)) == 2


def test_converse_is_retried_outside_of_a_job(bedrock, provider, model, plan):
    plan(Behaviour(status=500), Behaviour(tokens=5))

    answer = wrap(bedrock).converse(modelId=model, messages=TURNS)

    assert answer["stopReason"] == "end_turn"
    assert len(provider.calls(model=model)) == 2


@pytest.mark.parametrize("fault", ["error", "end"])
async def test_broken_converse_stream_is_tried_again(bedrock, provider, model, plan, run, fault):
    plan(Behaviour(tokens=9, faults={3: fault}), Behaviour(tokens=5))
    wrapped = wrap(bedrock)

    def handler(_job):
        streamed = wrapped.converse_stream(modelId=model, messages=TURNS)
        return len(list(streamed["stream"]))

    ended = await run(handler, attempts=2)

    assert ended.text == FIVE
    assert ended.job.attempt == len(provider.calls(model=model)) == 2


def test_async_handlers_refuse_boto3(bedrock):
    with pytest.raises(InvalidOption, match="blocks"):
        chat_handler({"bedrock": bedrock})
