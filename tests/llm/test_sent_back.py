"""What vendors want to see again beside the calls of tools: an agent sends thinking and signatures back, each to its own.

The provider refuses a request if anything of what it has signed is missing or changed, or another model's is there.
"""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import importlib.util

import anthropic
import openai
import pytest

from glidemq_core import Worker
from glidemq_llm import agent_handler
from glidemq_llm._sent_back import Memory, said_to
from tests.harness.agents import ASK, add, calls, says, told
from tests.harness.llm_clients import Gemini
from tests.harness.processes import eventually
from tests.harness.provider import Behaviour

VENDORS = ["anthropic", "google", "deepseek", "openrouter"]
HAS_GOOGLE = importlib.util.find_spec("google") and importlib.util.find_spec("google.genai")
THINKS = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}


@pytest.fixture
async def clients(provider):
    found = {
        "anthropic": anthropic.AsyncAnthropic(base_url=provider.url, api_key="k"),
        **{
            name: openai.AsyncOpenAI(base_url=provider.base_url(name), api_key="k")
            for name in ("deepseek", "openrouter")
        },
    }
    google = {"google": Gemini().make(provider)} if HAS_GOOGLE else {}
    yield found | google
    for client in found.values():
        await client.close()
    for client in google.values():
        await Gemini().close(client)


@pytest.fixture(autouse=True)
def _skips(request):
    if "google" in request.node.name and not HAS_GOOGLE:
        pytest.skip("google-genai is not installed")


def thinking(provider, messages, params):
    """Have Anthropic think; a job's own parameters go to all its models."""
    return messages, {**params, **(THINKS if provider == "anthropic" else {})}


def signed_turns(messages):
    """How many of a request's messages have what their vendor has signed."""
    said = [message for message in messages if message["role"] == "assistant"]
    parts = [part for one in said for part in one["content"] if isinstance(part, dict)]
    named = ("signature", "thought_signature")
    beside = ("reasoning_content", "reasoning_details")
    in_parts = sum(any(name in part for name in named) for part in parts)
    return in_parts + sum(any(one.get(name, " ") != " " for name in beside) for one in said)


def thinks(*tools, **more):
    return calls(*tools, signed=True, **more)


@pytest.fixture
def model(model):
    return f"gemini-3-{model}"


@pytest.mark.parametrize("vendor", VENDORS)
async def test_signed_turns_are_sent_back_as_they_were(clients, provider, model, plan, run, vendor):
    plan(thinks(("add", {"a": 1}), ("add", {"a": 2})), thinks(("add", {"a": 3})), says())

    sent = []

    def convert(provider, messages, params):
        sent.append(messages)
        return thinking(provider, messages, params)

    ended = await run(
        agent_handler(clients, [add], convert=convert),
        {"model": f"{vendor}/{model}", "messages": ASK},
    )

    assert ended.job.error is None
    assert told(provider, model) == [[], ["2", "3"], ["4"]]
    assert [call.status for call in provider.calls(model=model)] == [200, 200, 200]
    assert ended.text == "thinking. thinking. done"
    assert [signed_turns(messages) for messages in sent] == [0, 1, 2]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_run_that_resumes_sends_them_back_as_well(
    clients, provider, model, plan, run, queue, url, vendor
):
    """The run that asked has ended for good: what another worker sends back is from the journal."""
    broken = Behaviour(tokens=9, input=10, faults={4: "disconnect"})
    plan(thinks(("add", {"a": 1})), thinks(("pay", {"a": 1})), broken, says())

    async def pay(a: int) -> int:
        return a

    handler = agent_handler(clients, [add, pay], approve=["pay"], convert=thinking)
    async with Worker(queue.name, handler, connection=url):
        job = await queue.add("job", {"model": f"{vendor}/{model}", "messages": ASK}, attempts=2)

        async def waits():
            return len(await queue.suspended()) == 1

        await eventually(waits)
    sent = []

    def convert(provider, messages, params):
        sent.append(messages)
        return thinking(provider, messages, params)

    handler = agent_handler(clients, [add, pay], approve=["pay"], convert=convert)
    async with Worker(queue.name, handler, connection=url):
        await job.signal("approve/pay/2.1", True)
        result = await job.result(timeout=20)

    assert result["text"] == "done"
    assert told(provider, model) == [[], ["2"], ["1"], ["1"]]
    assert [signed_turns(messages) for messages in sent] == [2, 2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("anthropic", "google"),
        ("google", "deepseek"),
        ("deepseek", "openrouter"),
        ("openrouter", "anthropic"),
        ("anthropic", "deepseek"),
        ("google", "openrouter"),
        ("anthropic", "anthropic"),
        ("google", "google"),
    ],
)
async def test_nobody_is_sent_what_another_has_signed(clients, provider, model, run, first, second):
    one, two = f"{model}-1", f"{model}-2"
    provider.plan(one, thinks(("add", {"a": 1})), Behaviour(status=529), says("it is 6"))
    provider.plan(two, thinks(("add", {"a": 5})))

    ended = await run(
        agent_handler(clients, [add], convert=thinking),
        {"model": f"{first}/{one}", "messages": ASK},
        fallbacks=[{"model": f"{second}/{two}"}],
    )

    assert ended.job.error is None
    assert ended.job.result["models"] == [one, two]
    assert told(provider, two) == [["2"]]
    assert told(provider, one) == [[], ["2"], ["6"]]
    assert [call.status for call in provider.calls(model=one)] == [200, 529, 200]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_provider_refuses_a_turn_whose_signatures_are_gone(
    clients, provider, model, plan, run, vendor
):
    """So that the tests above could fail."""
    plan(thinks(("add", {"a": 1})), says())

    def forget(provider, messages, params):
        for message in messages:
            message.pop("reasoning_content", None)
            message.pop("reasoning_details", None)
            if isinstance(message["content"], list):
                message["content"] = [
                    {name: part[name] for name in part if name != "thought_signature"}
                    for part in message["content"]
                    if "thinking" not in part.get("type", "")
                ]
        return thinking(provider, messages, params)

    handler = agent_handler(clients, [add], convert=forget)
    ended = await run(handler, {"model": f"{vendor}/{model}", "messages": ASK})

    assert ended.job.state == "failed"
    assert [call.status for call in provider.calls(model=model)] == [200, 400]


def test_pieces_of_litellms_thinking_are_put_together():
    memory = Memory()
    note = memory.begin("openai.chat", "anthropic", "claude")
    pieces = [
        [{"type": "thinking", "thinking": "Let ", "signature": ""}],
        [{"type": "thinking", "thinking": "me see", "signature": ""}],
        [{"type": "thinking", "thinking": "", "signature": "abc"}],
        [{"type": "redacted_thinking", "data": "xyz"}],
        [{"type": "thinking", "thinking": "More", "signature": "def"}],
    ]
    for blocks in pieces:
        note({"choices": [{"index": 0, "delta": {"thinking_blocks": blocks}}]})
    own = memory.kept()
    called = [{"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    message = {"role": "assistant", "content": "", "tool_calls": called, "own": own}

    assert said_to("openai.chat", "anthropic", "claude", message)["thinking_blocks"] == [
        {"type": "thinking", "thinking": "Let me see", "signature": "abc"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "More", "signature": "def"},
    ]
    plain = {"role": "assistant", "content": "", "tool_calls": called}
    for other in [("anthropic.messages", "anthropic", "claude"), ("openai.chat", "openai", "o")]:
        assert said_to(*other, message) == plain


def test_signature_of_a_call_behind_a_compatible_address_stays_with_its_call():
    memory = Memory()
    note = memory.begin("openai.chat", "google", "gemini-3")
    signed = {"google": {"thought_signature": "abc"}}
    for index, more in enumerate([{"extra_content": signed}, {}]):
        call = {"index": index, "id": f"c{index}", "function": {"name": "add"}, **more}
        note({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    called = [{"id": "c0"}, {"id": "c1"}]
    message = {"role": "assistant", "tool_calls": called, "own": memory.kept()}

    said = said_to("openai.chat", "google", "gemini-3", message)

    assert said["tool_calls"] == [{"id": "c0", "extra_content": signed}, {"id": "c1"}]


def test_turn_without_thinking_leaves_nothing_to_send_back():
    memory = Memory()
    note = memory.begin("anthropic.messages", "anthropic", "claude")
    note({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    note({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}})

    assert memory.kept() is None
    assert Memory().kept() is None
