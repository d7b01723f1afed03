"""The fake provider, seen through the real clients."""

import asyncio
import json

import anthropic
import httpx
import openai
import pytest

from glidemq_llm.testing import Behaviour, FakeProvider


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with FakeProvider(tmp_path_factory.mktemp("provider") / "log.jsonl") as provider:
        yield provider


@pytest.fixture
def provider(running):
    """The module's provider, with an empty log."""
    running.log.write_text("")
    yield running
    running.wait("end", count=len(running.events("start")))  # or they would be in the next one's


@pytest.fixture
async def chat(provider):
    async with openai.AsyncOpenAI(
        base_url=provider.openai_url, api_key="-", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def claude(provider):
    async with anthropic.AsyncAnthropic(
        base_url=provider.url, api_key="-", max_retries=0
    ) as client:
        yield client


def ask(behaviour: Behaviour, model: str = "m", **options) -> dict:
    return {
        "model": model,
        "messages": [{"role": "user", "content": behaviour.as_prompt()}],
        **options,
    }


def stream(behaviour: Behaviour, **options) -> dict:
    return ask(behaviour, stream=True, stream_options={"include_usage": True}, **options)


async def read(answer) -> str:
    return "".join(
        [chunk.choices[0].delta.content or "" async for chunk in await answer if chunk.choices]
    )


async def test_chat_streams_its_text_and_the_usage_it_bills(chat, provider):
    behaviour = Behaviour(tokens=3, input=7, cached=2, reasoning=4, tag="a")

    chunks = [chunk async for chunk in await chat.chat.completions.create(**stream(behaviour))]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    assert (text, chunks[-2].choices[0].finish_reason) == ("t0 t1 t2 ", "stop")
    assert (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens_details.cached_tokens,
    ) == (7, 7, 2)
    assert provider.billed(tag="a") == {"input": 5, "cached_input": 2, "output": 7}


async def test_chat_answers_in_one_piece_within_the_limit_of_tokens(chat, provider):
    answer = await chat.chat.completions.create(
        **ask(Behaviour(text="one two three"), max_tokens=2)
    )

    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (
        "one two ",
        "length",
    )
    assert answer.usage.completion_tokens == 2


async def test_responses_stream_text_and_usage(chat):
    prompt = Behaviour(tokens=2, input=3).as_prompt()

    events = [
        event async for event in await chat.responses.create(model="m", input=prompt, stream=True)
    ]

    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    usage = events[-1].response.usage
    assert (text, events[-1].type, usage.input_tokens, usage.output_tokens) == (
        "t0 t1 ",
        "response.completed",
        3,
        2,
    )


@pytest.mark.parametrize("wrong", [{"max_tokens": "7"}, {"messages": [1]}], ids=str)
async def test_request_that_can_not_be_read_is_refused_and_bills_nothing(chat, provider, wrong):
    said = {"model": "odd", "messages": [{"role": "user", "content": "hi"}], **wrong}

    with pytest.raises(openai.BadRequestError, match="the request is invalid"):
        await chat.chat.completions.create(**said)

    assert provider.calls(model="odd") == []


async def test_embeddings_bill_input_alone(chat, provider):
    answer = await chat.embeddings.create(
        model="e", input=["one two", "three"], encoding_format="float"
    )

    assert ([item.index for item in answer.data], answer.usage.prompt_tokens) == ([0, 1], 3)
    assert provider.billed(model="e") == {"input": 3}


async def test_embeddings_fail_as_planned(chat, provider):
    provider.plan("e", Behaviour(status=503))

    with pytest.raises(openai.InternalServerError):
        await chat.embeddings.create(model="e", input="one two")

    assert provider.billed() == {}


async def test_messages_stream_text_and_usage(claude, provider):
    request = ask(Behaviour(tokens=3, input=9, cached=4), max_tokens=50)

    async with claude.messages.stream(**request) as events:
        message = await events.get_final_message()

    assert (message.content[0].text, message.stop_reason) == ("t0 t1 t2 ", "end_turn")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (5, 4, 3)


async def test_refused_call_bills_nothing_and_carries_headers(chat, provider):
    provider.plan("m", Behaviour(status=429, headers={"retry-after": "2"}))

    with pytest.raises(openai.RateLimitError) as caught:
        await chat.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

    assert caught.value.response.headers["retry-after"] == "2"
    assert (provider.events("end")[0]["status"], provider.billed()) == (429, {})


async def test_overload_after_status_200_is_an_error_event(claude, provider):
    request = ask(Behaviour(tokens=5, input=2, faults={2: "error"}), max_tokens=50)

    with pytest.raises(anthropic.APIStatusError) as caught:
        async with claude.messages.stream(**request) as events:
            await events.get_final_message()

    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (
        200,
        "overloaded_error",
    )
    assert provider.billed() == {"input": 2, "output": 2}


@pytest.mark.parametrize("fault", ["disconnect", "reset"])
async def test_broken_connection_bills_what_was_generated(chat, provider, fault):
    # openai 2 lets the errors of its HTTP library through.
    with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
        await read(chat.chat.completions.create(**stream(Behaviour(input=1, faults={4: fault}))))

    assert (provider.events("end")[0]["outcome"], provider.billed()) == (
        fault,
        {"input": 1, "output": 4},
    )


async def test_malformed_event_is_not_json(chat):
    with pytest.raises(json.JSONDecodeError):
        await read(chat.chat.completions.create(**stream(Behaviour(faults={4: "malformed"}))))


async def test_early_end_has_no_finish_reason(chat):
    answer = await chat.chat.completions.create(**stream(Behaviour(faults={2: "end"})))

    chunks = [chunk async for chunk in answer]

    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None]


@pytest.mark.parametrize(
    ("at", "billed"), [(-1, {}), (0, {"input": 1}), (2, {"input": 1, "output": 2})]
)
async def test_hanging_call_ends_when_its_caller_leaves(chat, provider, at, billed):
    call = asyncio.create_task(
        read(chat.chat.completions.create(**stream(Behaviour(input=1, faults={at: "hang"}))))
    )
    await asyncio.to_thread(provider.wait, "hang")

    call.cancel()
    ended = await asyncio.to_thread(provider.wait, "end")

    assert (ended[0]["outcome"], provider.billed()) == ("caller left", billed)


async def test_gate_holds_a_call_between_two_tokens(chat, provider):
    behaviour = Behaviour(tokens=4, faults={2: "gate:half"})
    call = asyncio.create_task(read(chat.chat.completions.create(**stream(behaviour))))
    await asyncio.to_thread(provider.wait, "gate")
    assert not call.done()

    provider.open("half")

    assert await call == "t0 t1 t2 t3 "


async def test_plan_is_followed_in_order_and_then_the_usual(chat, provider):
    provider.plan("planned", Behaviour(text="first"), Behaviour(text="second"))
    provider.usually(Behaviour(text="usual"), model="planned")

    said = [
        (await chat.chat.completions.create(model="planned", messages=[]))
        .choices[0]
        .message.content
        for _ in range(3)
    ]

    assert said == ["first", "second", "usual"]


async def test_behaviour_may_stand_in_the_name_of_the_model(chat):
    answer = await chat.chat.completions.create(model='m{"fake": {"text": "named"}}', messages=[])

    assert answer.choices[0].message.content == "named"


async def test_limit_admits_so_many_and_tells_the_others_when(chat, provider):
    provider.limit(2, seconds=30)
    request = ask(Behaviour(tokens=1))
    await asyncio.gather(*(chat.chat.completions.create(**request) for _ in range(2)))

    with pytest.raises(openai.RateLimitError) as caught:
        await chat.chat.completions.create(**request)

    provider.limit(None)
    assert 0 < float(caught.value.response.headers["retry-after"]) <= 30
    assert (provider.busiest(30), len(provider.calls())) == (2, 3)


async def test_log_knows_how_many_calls_were_open_at_once(chat, provider):
    behaviour = Behaviour(tokens=1, faults={0: "gate:together"})
    calls = [
        asyncio.create_task(read(chat.chat.completions.create(**stream(behaviour))))
        for _ in range(3)
    ]
    await asyncio.to_thread(provider.wait, "gate", count=3)

    provider.open("together")
    await asyncio.gather(*calls)

    assert provider.most_at_once() == 3


def test_log_without_a_path_is_gone_afterwards():
    with FakeProvider() as provider:
        with openai.OpenAI(base_url=provider.openai_url, api_key="-") as client:
            client.embeddings.create(model="e", input="one", encoding_format="float")
        assert provider.log.exists()

    assert not provider.log.exists()


TOOLS = [{"name": "add", "arguments": {"a": 1}}]


async def test_chat_calls_tools_streamed_or_not(chat):
    behaviour = Behaviour(tokens=1, tools=TOOLS)

    whole = await chat.chat.completions.create(**ask(behaviour))
    deltas = [
        chunk.choices[0].delta.tool_calls[0].function
        async for chunk in await chat.chat.completions.create(**stream(behaviour))
        if chunk.choices and chunk.choices[0].delta.tool_calls
    ]

    (called,) = whole.choices[0].message.tool_calls
    assert (called.function.name, called.function.arguments) == ("add", '{"a": 1}')
    assert whole.choices[0].finish_reason == "tool_calls"
    assert [delta.name for delta in deltas] == ["add", None]
    assert "".join(delta.arguments for delta in deltas) == '{"a": 1}'


async def test_messages_call_tools_streamed_or_not(claude):
    request = ask(Behaviour(tokens=1, tools=TOOLS), max_tokens=50)

    whole = await claude.messages.create(**request)
    async with claude.messages.stream(**request) as events:
        streamed = await events.get_final_message()

    for message in (whole, streamed):
        text, called = message.content
        assert (text.text, called.name, called.input) == ("t0 ", "add", {"a": 1})
        assert message.stop_reason == "tool_use"


async def test_answers_to_tools_are_logged_and_must_fit_the_calls(chat, claude, provider):
    provider.plan("m", *[Behaviour(tokens=1)] * 4)
    called = [{"id": "x", "type": "function", "function": {"name": "raw", "arguments": "{}"}}]
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "tool_calls": called},
        {"role": "tool", "tool_call_id": "x", "content": "fine"},
    ]
    block = {"type": "tool_use", "id": "x", "name": "raw", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "x", "content": "fine"}
    turns = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [block]},
        {"role": "user", "content": [result]},
    ]

    await chat.chat.completions.create(model="m", messages=messages)
    await claude.messages.create(model="m", messages=turns, max_tokens=9)
    with pytest.raises(openai.BadRequestError, match="called as"):
        await chat.chat.completions.create(model="m", messages=[*messages, messages[2]])
    turns[2] = {"role": "user", "content": "never mind"}
    with pytest.raises(anthropic.BadRequestError, match="called as"):
        await claude.messages.create(model="m", messages=turns, max_tokens=9)

    found = [call.tool_results for call in provider.calls()]
    assert found == [["fine"], ["fine"], ["fine", "fine"], []]
