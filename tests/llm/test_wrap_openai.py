"""What is particular to the openai package: its helpers, raw responses, and what stays as it was."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import asyncio
import importlib.util
import json
import tomllib

import openai
import pytest

from glidemq_core import Worker, current_job
from glidemq_core.errors import InvalidOption
from glidemq_llm import Pricing, wrap
from glidemq_llm._wrap import _PROVIDERS
from tests.harness.processes import ROOT
from tests.harness.provider import Behaviour

ASK = [{"role": "user", "content": "say it"}]
FIVE = "t0 t1 t2 t3 t4 "


@pytest.fixture
async def client(provider):
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as made:
        yield made


# -- what the caller sees ----------------------------------------------------


async def test_usage_chunk_is_for_those_who_asked(client, provider, model, plan, run):
    plan(Behaviour(tokens=2), Behaviour(tokens=2))
    wrapped = wrap(client)

    async def handler(_job):
        async def seen(**more):
            stream = await wrapped.chat.completions.create(
                model=model, messages=ASK, stream=True, **more
            )
            return [bool(chunk.choices) async for chunk in stream]

        return [await seen(), await seen(stream_options={"include_usage": True})]

    ended = await run(handler)

    plain, asked = ended.job.result
    assert plain == [True] * 4
    assert asked == [True] * 4 + [False]
    assert ended.statuses == ["complete", "complete"]


async def test_who_refuses_the_usage_chunk_is_heard(client, provider, model, plan, run):
    plan(Behaviour(tokens=2, input=20))
    wrapped = wrap(client)

    async def handler(_job):
        options = {"include_usage": False}
        stream = await wrapped.chat.completions.create(
            model=model, messages=ASK, stream=True, stream_options=options
        )
        return [bool(chunk.choices) async for chunk in stream]

    ended = await run(handler)

    assert ended.job.result == [True] * 4
    assert ended.statuses == ["missing"]
    assert ended.tokens["output"] > 0


async def test_thinking_is_streamed_or_left_out(client, provider, model, run, mocked):
    deltas = [{"reasoning_content": "hmm "}, {"content": "yes"}]
    wrapped, quiet = wrap(client), wrap(client, include_reasoning=False)

    async def handler(_job):
        for one in (wrapped, quiet):
            stream = await one.chat.completions.create(model=model, messages=ASK, stream=True)
            async for _ in stream:
                pass

    with mocked("openai") as router:
        router.post(f"{provider.openai_url}/chat/completions").respond(
            text=sse(deltas), headers={"content-type": "text/event-stream"}
        )
        ended = await run(handler)

    assert [chunk.content for chunk in ended.of("reasoning")] == ["hmm "]
    assert [chunk.content for chunk in ended.of("content")] == ["yes", "yes"]


def sse(deltas, usage=None):
    def line(choices, **more):
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps({**chunk, 'choices': choices, **more})}\n\n"

    choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    end = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    last = [line([], usage=usage)] if usage else []
    return "".join([*map(line, choices), line(end), *last, "data: [DONE]\n\n"])


async def test_tool_calls_are_streamed(client, provider, model, run, mocked):
    call = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}
    deltas = [
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"at":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
    ]
    wrapped = wrap(client)

    async def handler(_job):
        stream = await wrapped.chat.completions.create(model=model, messages=ASK, stream=True)
        return len([chunk async for chunk in stream])

    with mocked("openai") as router:
        router.post(f"{provider.openai_url}/chat/completions").respond(
            text=sse(deltas), headers={"content-type": "text/event-stream"}
        )
        ended = await run(handler)

    assert "".join(chunk.content for chunk in ended.of("tool_call")) == '{"at":"Oslo"}'
    assert ended.of("tool_call")[0].fields["name"] == "weather"
    assert ended.of("tool_call")[-1].fields["done"] == "1"


# -- other ways to call ------------------------------------------------------


async def test_raw_responses(client, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        raw = await wrapped.chat.completions.with_raw_response.create(model=model, messages=ASK)
        streamed = await wrapped.chat.completions.with_raw_response.create(
            model=model, messages=ASK, stream=True
        )
        text = [chunk.choices[0].delta.content or "" async for chunk in streamed.parse()]
        return [
            raw.headers["x-request-id"],
            raw.parse().choices[0].message.content,
            streamed.headers["x-request-id"],
            "".join(text),
        ]

    ended = await run(handler)

    first, second = provider.calls(model=model)
    assert ended.job.result == [f"fake-{first.number}", FIVE, f"fake-{second.number}", FIVE]
    assert ended.tokens == provider.billed(model=model)
    assert ended.text == FIVE + FIVE


async def test_streaming_responses(client, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        with_streaming = wrapped.chat.completions.with_streaming_response
        async with with_streaming.create(model=model, messages=ASK) as raw:
            whole = json.loads(b"".join([part async for part in raw.iter_bytes()]))
        async with with_streaming.create(model=model, messages=ASK, stream=True) as raw:
            stream = await raw.parse()
            text = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return [whole["choices"][0]["message"]["content"], "".join(text)]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert ended.tokens == provider.billed(model=model)


@pytest.mark.parametrize("name", ["chat", "responses"])
async def test_stream_helpers(client, provider, model, plan, run, name):
    plan(Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        if name == "responses":
            async with wrapped.responses.stream(model=model, input="x") as stream:
                return (await stream.get_final_response()).output_text
        async with wrapped.chat.completions.stream(model=model, messages=ASK) as stream:
            return (await stream.get_final_completion()).choices[0].message.content

    ended = await run(handler)

    assert ended.job.result == ended.text == FIVE
    assert ended.tokens == provider.billed(model=model)
    assert len(ended.job.usage.calls) == 1


async def test_embeddings_are_booked_and_not_streamed(client, provider, model, run):
    wrapped = wrap(client, pricing=Pricing(overrides={"*": {"input": 1}}))

    async def handler(_job):
        answer = await wrapped.embeddings.create(model=model, input=["a b", "c"])
        return len(answer.data)

    ended = await run(handler)

    assert ended.job.result == 2
    assert ended.tokens == provider.billed(model=model) == {"input": 3}
    assert [chunk.type for chunk in ended.chunks] == ["end"]


async def test_old_completions(client, provider, run, mocked):
    body = {
        "id": "x",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "text": "hello", "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    wrapped = wrap(client)

    async def handler(_job):
        answer = await wrapped.completions.create(model="m", prompt="x")
        return answer.choices[0].text

    with mocked("openai") as router:
        router.post(f"{provider.openai_url}/completions").respond(json=body)
        ended = await run(handler)

    assert ended.job.result == ended.text == "hello"
    assert ended.tokens == {"input": 3, "output": 1}


# -- retries -----------------------------------------------------------------


async def test_sdk_retries_if_told_to(client, provider, model, plan, run):
    plan(*[Behaviour(status=500, headers={"retry-after-ms": "5"})] * 2, Behaviour(tokens=5))
    wrapped = wrap(client, sdk_retries=2)

    async def handler(_job):
        answer = await wrapped.chat.completions.create(model=model, messages=ASK)
        return answer.choices[0].message.content

    ended = await run(handler)

    assert ended.job.result == FIVE
    assert len(provider.calls(model=model)) == 3
    assert ended.tokens == provider.billed(model=model)


async def test_outside_of_a_job_the_sdk_retries_as_configured(provider, model, plan):
    plan(*[Behaviour(status=500, headers={"retry-after-ms": "5"})] * 3, Behaviour(tokens=5))
    async with openai.AsyncOpenAI(
        base_url=provider.openai_url, api_key="k", max_retries=3
    ) as client:
        answer = await wrap(client).chat.completions.create(model=model, messages=ASK)

    assert answer.choices[0].message.content == FIVE
    assert len(provider.calls(model=model)) == 4


async def test_outside_of_a_job_the_request_is_left_alone(client, provider, mocked):
    wrapped = wrap(client)

    with mocked("openai") as router:
        route = router.post(f"{provider.openai_url}/chat/completions").respond(
            text=sse([{"content": "hi"}]), headers={"content-type": "text/event-stream"}
        )
        stream = await wrapped.chat.completions.create(model="m", messages=ASK, stream=True)
        chunks = [chunk async for chunk in stream]

    assert len(chunks) == 2
    sent = json.loads(route.calls.last.request.content)
    assert sent == {"model": "m", "messages": ASK, "stream": True}


async def test_body_that_is_no_json_is_tried_again(client, provider, model, plan, run):
    plan(Behaviour(tokens=5, faults={2: "malformed"}), Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        answer = await wrapped.chat.completions.create(model=model, messages=ASK)
        return answer.choices[0].message.content

    ended = await run(handler, attempts=2)

    assert ended.job.result == FIVE
    assert len(provider.calls(model=model)) == 2


# -- the client --------------------------------------------------------------


def test_given_client_is_left_as_it_was(client):
    before = dict(vars(client.chat.completions))

    wrapped = wrap(client)

    assert type(wrapped) is type(client)
    assert wrapped is not client
    assert vars(client.chat.completions) == before
    assert client.max_retries == wrapped.max_retries == 2
    assert wrapped._client is client._client
    assert "create" not in vars(client.chat.completions)


async def test_copies_of_a_wrapped_client_are_wrapped(client, provider, model, plan, run):
    plan(Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        copy = wrapped.with_options(timeout=20)
        answer = await copy.chat.completions.create(model=model, messages=ASK)
        return [copy.timeout, answer.choices[0].message.content]

    ended = await run(handler)

    assert ended.job.result == [20, FIVE]
    assert ended.tokens == provider.billed(model=model)


async def test_azure_client(provider, model, run, mocked):
    answer = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    async with openai.AsyncAzureOpenAI(
        azure_endpoint="https://x.openai.azure.com", api_key="k", api_version="2024-10-21"
    ) as client:
        wrapped = wrap(client)

        async def handler(_job):
            await wrapped.chat.completions.create(model="gpt-4o", messages=ASK)

        with mocked("openai") as router:
            route = router.post(
                "https://x.openai.azure.com/openai/deployments/gpt-4o/chat/completions"
            ).respond(json=answer)
            ended = await run(handler)

    assert isinstance(wrapped, openai.AsyncAzureOpenAI)
    assert route.call_count == 1
    (call,) = ended.job.usage.calls
    assert (call["provider"], call["tokens"]) == ("azure", {"input": 3, "output": 1})


async def test_subclass_of_a_client(provider, model, plan, run):
    class Ours(openai.AsyncOpenAI):
        pass

    plan(Behaviour(tokens=5))
    async with Ours(base_url=provider.openai_url, api_key="k") as client:
        wrapped = wrap(client)

        async def handler(_job):
            await wrapped.chat.completions.create(model=model, messages=ASK)

        ended = await run(handler)

    assert type(wrapped) is Ours
    assert ended.tokens == provider.billed(model=model)


def test_unknown_client_is_refused_with_a_way_out():
    with pytest.raises(InvalidOption, match=r"no adapter for dict.*job\.llm_call"):
        wrap({})


@pytest.mark.parametrize("name", sorted({*_PROVIDERS} | {*_PROVIDERS.values()}))
def test_name_in_place_of_a_client_is_refused_with_what_its_sdk_needs(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    extra = _PROVIDERS.get(name, name)

    with pytest.raises(InvalidOption, match=rf'pip install "glidemq-llm\[{extra}\]"'):
        wrap(name)


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert set(_PROVIDERS.values()) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize(
    ("base_url", "vendor"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.x.ai/v1", "xai"),
        ("https://api.perplexity.ai", "perplexity"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://mine.openai.azure.com/openai/v1/", "azure"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "google"),
        ("https://notgroq.com/v1", "openai"),
        ("http://127.0.0.1:8080/v1", "openai"),
    ],
)
def test_vendor_is_told_by_the_address(base_url, vendor):
    from glidemq_llm.providers.openai import vendor_of

    assert vendor_of(base_url) == vendor


# -- the job -----------------------------------------------------------------


async def test_job_can_be_named(client, provider, model, plan, queue, url):
    """A task that outlives the context of its handler names the job itself."""
    plan(Behaviour(tokens=5))
    found = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def handler(job):
        found.set_result(job)
        await done.wait()

    async with Worker(queue.name, handler, connection=url):
        added = await queue.add("job")
        job = await found
        assert current_job() is None
        wrapped = wrap(client, job=job)
        answer = await wrapped.chat.completions.create(model=model, messages=ASK)
        done.set()
        await added.result(timeout=10)
        snapshot = await added.snapshot()

    assert answer.choices[0].message.content == FIVE
    assert dict(snapshot.usage.tokens) == provider.billed(model=model)


async def test_errors_of_the_sdk_arrive_as_they_are(client, provider, model, plan, run):
    plan(Behaviour(status=429, headers={"retry-after": "3"}))
    wrapped = wrap(client)

    async def handler(_job):
        try:
            await wrapped.chat.completions.create(model=model, messages=ASK)
        except openai.RateLimitError as error:
            return [error.status_code, error.retryable, error.retry_after]

    ended = await run(handler)

    assert ended.job.result == [429, True, 3.0]


async def test_no_connection_books_nothing(provider, run, unused_tcp_port):
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{unused_tcp_port}/v1", api_key="k"
    ) as client:
        wrapped = wrap(client)

        async def handler(_job):
            await wrapped.chat.completions.create(model="m", messages=ASK)

        ended = await run(handler)

    assert ended.job.error.error_class.endswith("APIConnectionError")
    assert ended.tokens == {}


async def test_compacting_is_booked_and_not_streamed(client, provider, run, mocked):
    body = {
        "id": "c1",
        "object": "response.compaction",
        "created_at": 1,
        "output": [],
        "usage": {"input_tokens": 30, "output_tokens": 4, "total_tokens": 34},
    }
    wrapped = wrap(client)

    async def handler(_job):
        return (await wrapped.responses.compact(model="m", input="a long talk")).id

    with mocked("openai") as router:
        router.post(f"{provider.openai_url}/responses/compact").respond(json=body)
        ended = await run(handler)

    assert ended.job.result == "c1"
    assert ended.tokens == {"input": 30, "output": 4}
    assert [chunk.type for chunk in ended.chunks] == ["end"]
