"""Answers that an SDK parses into a class: reserved, booked, and asked for again where they do not parse."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import anthropic
import openai
import pytest
from pydantic import BaseModel

from glidemq_llm import wrap
from tests.harness.provider import Behaviour

ASK = [{"role": "user", "content": "say it"}]


class City(BaseModel):
    name: str


@pytest.fixture
async def client(provider):
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as made:
        yield made


@pytest.fixture
async def claude(provider):
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k") as made:
        yield made


@pytest.mark.parametrize("name", ["chat", "beta", "responses"])
async def test_parsed_answers(client, provider, model, plan, spend, name):
    plan(Behaviour(text='{"name": "Oslo"}'))
    wrapped = wrap(client)

    async def handler(_job):
        if name == "responses":
            parsed = await wrapped.responses.parse(model=model, input="x", text_format=City)
            return parsed.output_parsed.name
        chat = wrapped.beta.chat if name == "beta" else wrapped.chat
        parsed = await chat.completions.parse(model=model, messages=ASK, response_format=City)
        return parsed.choices[0].message.parsed.name

    ended = await spend(handler)

    assert ended.job.result == "Oslo"
    assert ended.tokens == provider.billed(model=model)
    assert len(provider.calls(model=model)) == len(ended.job.usage.calls) == 1


async def test_answer_that_does_not_parse_is_booked_and_asked_for_again(
    client, provider, model, plan, spend
):
    plan(Behaviour(text="Oslo, I think", input=20), Behaviour(text='{"name": "Oslo"}', input=20))
    wrapped = wrap(client)

    async def handler(_job):
        parsed = await wrapped.chat.completions.parse(
            model=model, messages=ASK, response_format=City
        )
        return parsed.choices[0].message.parsed.name

    ended = await spend(handler, attempts=2)

    assert ended.job.result == "Oslo"
    assert ended.job.errors[0].error_class.endswith("ValidationError")
    assert ended.statuses == ["complete", "missing"]
    assert ended.tokens["input"] > 20


async def test_answer_in_a_given_format_is_reserved_and_booked(
    claude, provider, model, plan, spend
):
    if not hasattr(claude.messages, "parse"):
        pytest.skip("not in this version")
    plan(Behaviour(text='{"name": "Oslo"}', input=20))
    wrapped = wrap(claude)

    async def handler(_job):
        answer = await wrapped.messages.parse(
            model=model, output_format=City, max_tokens=1000, messages=ASK
        )
        return answer.parsed_output.name

    ended = await spend(handler)

    assert ended.job.result == "Oslo"
    assert ended.tokens == provider.billed(model=model)
