"""What is particular to the anthropic package: its stream helper, its beta resource, thinking and tools."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import json

import anthropic
import pytest

from glidemq_llm import wrap
from tests.harness.provider import Behaviour, ended_call

ASK = {"max_tokens": 1000, "messages": [{"role": "user", "content": "say it"}]}
FIVE = "t0 t1 t2 t3 t4 "
SSE = {"content-type": "text/event-stream"}


@pytest.fixture
async def client(provider):
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k") as made:
        yield made


@pytest.fixture
def sync_client(provider):
    with anthropic.Anthropic(base_url=provider.url, api_key="k") as made:
        yield made


@pytest.mark.parametrize("resource", ["messages", "beta.messages"])
async def test_stream_helper(client, provider, model, plan, run, resource):
    plan(Behaviour(tokens=5, input=20, cached=8))
    wrapped = wrap(client)

    async def handler(_job):
        holder = wrapped.beta.messages if resource.startswith("beta") else wrapped.messages
        async with holder.stream(model=model, **ASK) as stream:
            texts = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
        return ["".join(texts), final.content[0].text, final.usage.output_tokens]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE, 5]
    assert ended.text == FIVE
    assert ended.tokens == provider.billed(model=model)
    assert len(ended.job.usage.calls) == len(provider.calls(model=model)) == 1


async def test_stream_helper_does_not_retry_inside_a_job(client, provider, model, plan, run):
    plan(Behaviour(status=529), Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        async with wrapped.messages.stream(model=model, **ASK) as stream:
            return await stream.get_final_text()

    ended = await run(handler, attempts=2)

    assert ended.job.result == FIVE
    assert (ended.job.attempt, len(provider.calls(model=model))) == (2, 2)


@pytest.mark.parametrize("fault", ["disconnect", "error", "end"])
async def test_stream_helper_reports_a_broken_stream(client, provider, model, plan, run, fault):
    plan(Behaviour(tokens=9, faults={3: fault}), Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        async with wrapped.messages.stream(model=model, **ASK) as stream:
            return await stream.get_final_text()

    ended = await run(handler, attempts=2)

    assert ended.job.result == ended.text == FIVE
    assert ended.job.attempt == 2


async def test_stream_helper_left_early(client, provider, model, plan, run):
    plan(Behaviour(tokens=20, faults={10: f"gate:{model}"}))
    wrapped = wrap(client)

    async def handler(_job):
        async with wrapped.messages.stream(model=model, **ASK) as stream:
            async for text in stream.text_stream:
                if text.startswith("t4"):
                    break

    ended = await run(handler)

    assert (await ended_call(provider, model)).outcome == "caller left"
    assert ended.statuses == ["partial"]
    assert ended.text == FIVE


async def test_stream_helper_outside_of_a_job(client, provider, model, plan):
    plan(Behaviour(tokens=5))

    async with wrap(client).messages.stream(model=model, **ASK) as stream:
        assert await stream.get_final_text() == FIVE


async def test_raw_responses(client, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(tokens=5))
    wrapped = wrap(client)

    async def handler(_job):
        raw = await wrapped.messages.with_raw_response.create(model=model, **ASK)
        streaming = wrapped.messages.with_streaming_response
        async with streaming.create(model=model, **ASK) as second:
            body = json.loads(await second.text())
        parsed = await raw.parse()
        return [parsed.content[0].text, body["content"][0]["text"]]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert ended.tokens == provider.billed(model=model)


async def test_counting_tokens_costs_nothing(client, provider, run, mocked):
    wrapped = wrap(client)

    async def handler(_job):
        counted = await wrapped.messages.count_tokens(model="m", messages=ASK["messages"])
        return counted.input_tokens

    with mocked("anthropic") as router:
        router.post(f"{provider.url}/v1/messages/count_tokens").respond(json={"input_tokens": 7})
        ended = await run(handler)

    assert ended.job.result == 7
    assert ended.tokens == {}


def events(*body):
    start = {
        "type": "message_start",
        "message": {
            "id": "x",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
    }
    delta = {"stop_reason": "tool_use", "stop_sequence": None}
    end = [
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    ]
    lines = [start, *body, *end]
    return "".join(f"event: {line['type']}\ndata: {json.dumps(line)}\n\n" for line in lines)


async def test_thinking_and_tools_are_streamed(client, provider, run, mocked):
    tool = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
    partial = {"type": "input_json_delta", "partial_json": '{"at":"Oslo"}'}
    body = events(
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "thinking_delta", "thinking": "hmm"},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": tool},
        {"type": "content_block_delta", "index": 1, "delta": partial},
        {"type": "content_block_stop", "index": 1},
    )
    wrapped = wrap(client)

    async def handler(_job):
        async with wrapped.messages.stream(model="claude-x", **ASK) as stream:
            return (await stream.get_final_message()).content[1].input

    with mocked("anthropic") as router:
        router.post(f"{provider.url}/v1/messages").respond(text=body, headers=SSE)
        ended = await run(handler)

    assert ended.job.result == {"at": "Oslo"}
    assert [chunk.content for chunk in ended.of("reasoning")] == ["hmm"]
    assert "".join(chunk.content for chunk in ended.of("tool_call")) == '{"at":"Oslo"}'
    assert ended.of("done")[0].content == "tool_calls"
    assert ended.tokens == {"input": 9, "output": 12}


async def test_whole_answer_with_thinking_and_tools(client, provider, run, mocked):
    body = {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [
            {"type": "thinking", "thinking": "hmm", "signature": "s"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"at": "Oslo"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 12},
    }
    wrapped = wrap(client)

    async def handler(_job):
        await wrapped.messages.create(model="claude-x", **ASK)

    with mocked("anthropic") as router:
        router.post(f"{provider.url}/v1/messages").respond(json=body)
        ended = await run(handler)

    shown = [(chunk.type, chunk.content) for chunk in ended.chunks[1:4]]
    assert shown == [
        ("reasoning", "hmm"),
        ("content", "Let me see."),
        ("tool_call", '{"at": "Oslo"}'),
    ]
    assert ended.of("done")[0].content == "tool_calls"


def test_given_client_is_left_as_it_was(client):
    before = dict(vars(client.messages))

    wrapped = wrap(client)

    assert type(wrapped) is type(client)
    assert vars(client.messages) == before
    assert wrapped._client is client._client


# -- sync clients in thread handlers -----------------------------------------


async def test_sync_client(sync_client, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(tokens=5), Behaviour(tokens=5))
    wrapped = wrap(sync_client)

    def handler(_job):
        whole = wrapped.messages.create(model=model, **ASK)
        streamed = wrapped.messages.create(model=model, stream=True, **ASK)
        text = [event.delta.text for event in streamed if event.type == "content_block_delta"]
        with wrapped.messages.stream(model=model, **ASK) as stream:
            helped = stream.get_final_text()
        return [whole.content[0].text, "".join(text), helped]

    ended = await run(handler)

    assert ended.job.result == [FIVE] * 3
    assert ended.text == FIVE * 3
    assert ended.tokens == provider.billed(model=model)


@pytest.mark.parametrize("fault", ["disconnect", "malformed", "error", "end"])
async def test_broken_sync_stream_is_tried_again(sync_client, provider, model, plan, run, fault):
    plan(Behaviour(tokens=9, faults={3: fault}), Behaviour(tokens=5))
    wrapped = wrap(sync_client)

    def handler(_job):
        with wrapped.messages.stream(model=model, **ASK) as stream:
            return stream.get_final_text()

    ended = await run(handler, attempts=2)

    assert ended.job.result == ended.text == FIVE
    assert len(provider.calls(model=model)) == 2


@pytest.mark.parametrize("resource", ["messages", "beta.messages"])
@pytest.mark.parametrize("method", ["create", "parse"])
async def test_every_way_to_ask_is_metered(client, provider, model, plan, run, resource, method):
    holder = client
    for name in resource.split("."):
        holder = getattr(holder, name)
    if not hasattr(holder, method):
        pytest.skip("not in this version")
    plan(Behaviour(tokens=5, input=20))
    wrapped = wrap(client)

    async def handler(_job):
        held = wrapped
        for name in resource.split("."):
            held = getattr(held, name)
        answer = await getattr(held, method)(model=model, max_tokens=50, messages=ASK["messages"])
        return answer.content[0].text

    ended = await run(handler)

    assert ended.job.result == ended.text == FIVE
    assert ended.tokens == provider.billed(model=model)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_every_turn_of_the_tool_runner_is_booked(
    client, provider, model, plan, run, is_stream
):
    plan(
        Behaviour(tokens=2, input=9, tools=[{"name": "add", "arguments": {"a": 1}}]),
        Behaviour(tokens=5, input=20),
    )
    wrapped = wrap(client)

    @anthropic.beta_async_tool
    async def add(a: int) -> str:
        """Add one."""
        return str(a + 1)

    async def handler(_job):
        asked = {"model": model, "max_tokens": 99, "messages": ASK["messages"]}
        runner = wrapped.beta.messages.tool_runner(tools=[add], stream=is_stream, **asked)
        return (await runner.until_done()).content[0].text

    ended = await run(handler)

    assert ended.job.result == FIVE
    assert len(ended.job.usage.calls) == 2
    assert ended.tokens == provider.billed(model=model) == {"input": 29, "output": 7}
