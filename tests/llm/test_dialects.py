"""What each server that is compatible with OpenAI bills, in its own words, is booked right: nothing twice, nothing lost."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import json

import anthropic
import openai
import pytest

from glidemq_core.errors import InvalidOption
from glidemq_llm import parse_rate_limits, wrap
from tests.harness.provider import Behaviour

# 30 tokens of input, 12 of them cached; 5 words and 6 tokens of reasoning.
BILLED = Behaviour(tokens=5, input=30, cached=12, reasoning=6)
SPLIT = {"input": 18, "cached_input": 12, "output": 5, "reasoning": 6}
LUMPED = {"input": 18, "cached_input": 12, "output": 11}
DIALECTS = {
    "openai": SPLIT,
    "azure": SPLIT,
    "groq": SPLIT,
    "deepseek": SPLIT,
    "xai": SPLIT,
    "openrouter": SPLIT,
    # It tells of no cache.
    "perplexity": {"input": 30, "output": 5, "reasoning": 6},
    "together": LUMPED,
    "fireworks": LUMPED,
    "vllm": LUMPED,
    "llama.cpp": LUMPED,
}
# They state their price.
PRICED = {"xai", "openrouter", "perplexity"}
# They stream their reasoning.
THOUGHT = set(DIALECTS) - {"openai", "azure", "perplexity"}


@pytest.fixture
async def client(dialect, provider):
    base_url = provider.base_url(dialect)
    made = (
        openai.AsyncAzureOpenAI(azure_endpoint=base_url, api_key="k", api_version="2025-01-01")
        if dialect == "azure"
        else openai.AsyncOpenAI(base_url=base_url, api_key="k")
    )
    async with made:
        yield made


def asking(client, dialect, model, *, stream):
    """A handler that asks for an answer and gives its text back."""
    wrapped = wrap(client, provider=dialect)

    async def handler(_job):
        messages = [{"role": "user", "content": "say it"}]
        answer = await wrapped.chat.completions.create(
            model=model, messages=messages, stream=stream
        )
        if not stream:
            return answer.choices[0].message.content
        deltas = [chunk.choices[0].delta.content async for chunk in answer if chunk.choices]
        return "".join(text or "" for text in deltas)

    return handler


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_dialect_is_booked_as_it_was_billed(
    dialect, stream, client, provider, model, plan, run
):
    plan(BILLED)

    ended = await run(asking(client, dialect, model, stream=stream))

    assert ended.job.result == ended.text == "t0 t1 t2 t3 t4 "
    assert (ended.tokens, ended.statuses) == (DIALECTS[dialect], ["complete"])
    assert sum(ended.tokens.values()) == sum(provider.billed(model=model).values())
    if dialect in THOUGHT:
        assert "".join(chunk.content for chunk in ended.of("reasoning")) == "hm " * 6
    stated = {"total": "0.000041"} if dialect in PRICED else {}
    assert {name: format(cost, "f") for name, cost in ended.job.usage.costs.items()} == stated


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("dialect", ["perplexity"])
async def test_sources_are_cited_once_and_billed(dialect, stream, client, model, plan, run):
    plan(Behaviour(tokens=5, input=30, citation=40))

    ended = await run(asking(client, dialect, model, stream=stream))

    assert ended.tokens == {"input": 30, "output": 5, "citation": 40}
    (cited,) = ended.of("citation")
    assert json.loads(cited.content) == {"url": "https://tides.example/moon"}


@pytest.mark.parametrize("dialect", ["groq"])
async def test_limits_stand_in_the_headers_of_an_answer(dialect, client, model, plan, run):
    wrapped = wrap(client, provider=dialect)
    plan(BILLED)

    async def handler(_job):
        raw = await wrapped.chat.completions.with_raw_response.create(model=model, messages=[])
        return parse_rate_limits(raw.headers, "groq").axes["requests"].remaining

    assert (await run(handler)).job.result == 14399


@pytest.mark.parametrize("dialect", ["openrouter"])
async def test_error_of_an_upstream_is_told_by_its_number(dialect, client, model, plan, run):
    plan(Behaviour(status=429))

    ended = await run(asking(client, dialect, model, stream=True))

    assert ended.job.state == "failed"
    assert "RateLimitError" in str(ended.job.error)


@pytest.mark.parametrize("dialect", ["groq", "vllm"])
async def test_only_a_hosted_model_has_a_price(dialect, client, run):
    """The same weights on a server of one's own: the price would be made up."""
    ended = await run(asking(client, dialect, "openai/gpt-oss-120b", stream=True))

    assert ended.tokens["output"] == 10
    assert ("total" in ended.job.usage.costs) is (dialect == "groq")


@pytest.mark.parametrize("dialect", ["azure"])
async def test_azure_is_told_by_its_client_whatever_its_address(dialect, client, model, plan, run):
    plan(BILLED)

    ended = await run(asking(client, None, model, stream=True))

    assert ended.job.usage.calls[0]["provider"] == "azure"


async def test_claude_on_vertex_is_metered_as_at_its_maker(provider, model, plan, run):
    plan(BILLED)
    client = anthropic.AsyncAnthropicVertex(
        project_id="p", region="r", access_token="t", base_url=provider.base_url("vertex")
    )
    async with client:
        wrapped = wrap(client)

        async def handler(_job):
            messages = [{"role": "user", "content": "say it"}]
            async with wrapped.messages.stream(
                model=model, max_tokens=50, messages=messages
            ) as stream:
                return await stream.get_final_text()

        ended = await run(handler)

    assert ended.job.result == ended.text == "t0 t1 t2 t3 t4 "
    assert (ended.tokens, ended.statuses) == (LUMPED, ["complete"])


def test_unknown_vendor_has_no_address(provider):
    with pytest.raises(InvalidOption, match="known are anthropic, azure"):
        provider.base_url("aleph")
