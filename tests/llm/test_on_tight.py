"""A call that its budget has no room for is made smaller, if it is told to, and says so."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import json
import uuid

import openai
import pytest

from glidemq_core import Budget, Ledger
from glidemq_core._units import from_nano
from glidemq_core.errors import BudgetExceeded
from glidemq_llm import MeterSettings, Pricing, chat_handler, wrap
from glidemq_llm._shrink import limited_to, output_that_fits
from tests.harness.llm_clients import OpenAIChat
from tests.harness.provider import Behaviour

PRICING = Pricing(overrides={"*": {"input": 1, "output": 10}})
ENDLESS = Behaviour(tokens=2000, input=5)  # less than is estimated
TURNS = [{"role": "user", "content": [{"text": "say it"}]}]

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
async def open_budget(url):
    """Opens a budget; answers its id and how to look at it."""
    async with Ledger(connection=url) as ledger:

        async def made(**caps):
            id = f"b-{uuid.uuid4().hex[:8]}"
            await ledger.open_budget(id, Budget(**caps))
            return id, lambda: ledger.budget(id)

        yield made


async def shrunk(run, provider, model, open_budget, ask, **caps):
    """Run a job that asks for more than its budget leaves; answers its end, and what the budget then says."""
    provider.plan(model, ENDLESS)
    budget, look = await open_budget(**caps)
    ended = await run(ask, budgets=[budget])
    (call,) = provider.calls(model=model)
    assert ended.job.state == "completed"
    assert call.output == call.limit == int(ended.of("start")[0].fields["max_tokens"])
    assert ended.of("done")[0].content == "length"
    (booked,) = ended.job.usage.calls
    assert booked["details"]["shrunk"]["to"] == call.limit < booked["details"]["shrunk"]["from"]
    return call, await look()


async def test_answer_is_limited_to_what_the_budget_leaves(
    api, client, provider, model, run, open_budget
):
    wrapped = wrap(client, on_tight="shrink")

    async def ask(_job):
        return len(await api.whole(wrapped, model))

    call, state = await shrunk(run, provider, model, open_budget, ask, max_total_tokens=300)

    assert 250 < call.limit < 300
    assert state.total_tokens <= 300


async def test_other_vendors_are_told_in_their_own_words(vendor, provider, model, run, open_budget):
    client = vendor.make(provider)
    wrapped = wrap(client, on_tight="shrink")

    async def ask(_job):
        return len(await vendor.whole(wrapped, model))

    call, _ = await shrunk(run, provider, model, open_budget, ask, max_total_tokens=300)

    assert 250 < call.limit < 300
    await vendor.close(client)


async def test_sync_clients_too(provider, model, run, open_budget):
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    client = boto3.client("bedrock-runtime", endpoint_url=provider.url, **keys)
    wrapped = wrap(client, on_tight="shrink")
    asked = {"maxTokens": 1500, "temperature": 0.5}

    def ask(_job):
        return wrapped.converse(modelId=model, messages=TURNS, inferenceConfig=asked)["stopReason"]

    call, _ = await shrunk(run, provider, model, open_budget, ask, max_total_tokens=300)

    assert 250 < call.limit < 300
    assert asked == {"maxTokens": 1500, "temperature": 0.5}
    client.close()


async def test_stream_helper_of_anthropic(provider, model, run, open_budget):
    import anthropic

    turn = [{"role": "user", "content": "say it"}]
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k") as client:
        wrapped = wrap(client, on_tight="shrink")

        async def ask(_job):
            async with wrapped.messages.stream(
                model=model, max_tokens=1500, messages=turn
            ) as events:
                return len([event async for event in events])

        call, _ = await shrunk(run, provider, model, open_budget, ask, max_total_tokens=300)

    assert 250 < call.limit < 300


@pytest.mark.parametrize(
    ("caps", "at_most"),
    [
        ({"max_total_cost": "0.0020"}, 200),
        ({"max_costs": {"output": "0.0020"}}, 200),
        ({"max_tokens": {"output": 150}}, 150),
        ({"max_total_tokens": 900, "token_weights": {"output": 4.5}}, 200),
        ({"max_total_tokens": 300, "on_exceeded": "pause"}, 300),
    ],
    ids=["money", "kind of money", "category", "weighted", "pausing"],
)
async def test_every_kind_of_cap(provider, model, run, open_budget, caps, at_most):
    api = OpenAIChat()
    client = api.make(provider)
    settings = MeterSettings(pricing=PRICING, on_tight="shrink")
    handler = chat_handler({"openai": client}, settings=settings)
    provider.plan(model, ENDLESS)
    budget, look = await open_budget(**caps)
    data = {"messages": [{"role": "user", "content": "say it"}], "model": model, "max_tokens": 1500}
    ended = await run(handler, data, budgets=[budget])

    (call,) = provider.calls(model=model)
    assert ended.job.state == "completed"
    assert at_most * 0.8 < call.limit <= at_most
    assert all(cap.remaining is None or cap.remaining >= 0 for cap in (await look()).caps.values())
    await api.close(client)


@pytest.mark.parametrize("on_tight", ["shrink", "refuse"])
async def test_too_little_is_refused(provider, model, run, open_budget, on_tight):
    budget, _ = await open_budget(max_total_tokens=60 if on_tight == "shrink" else 300)
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
        wrapped = wrap(client, on_tight=on_tight)

        async def ask(_job):
            await OpenAIChat().whole(wrapped, model)

        ended = await run(ask, budgets=[budget])

    assert (ended.job.state, ended.job.reason) == ("failed", "budget")
    assert provider.calls(model=model) == []


async def test_what_fits_is_left_alone(provider, model, plan, run, open_budget):
    plan(Behaviour(tokens=5))
    budget, _ = await open_budget(max_total_tokens=5000)
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
        wrapped = wrap(client, on_tight="shrink")

        async def ask(_job):
            await OpenAIChat().whole(wrapped, model)

        ended = await run(ask, budgets=[budget])

    assert provider.calls(model=model)[0].limit is None
    assert "max_tokens" not in ended.of("start")[0].fields
    assert "shrunk" not in json.dumps(ended.job.usage.calls)


def refusal(cap, asked):
    figure = from_nano if cap.startswith("cost.") else int
    limit, used, reserved, asked = map(figure, (1000, 700, 100, asked))
    return BudgetExceeded("b", cap=cap, limit=limit, used=used, reserved=reserved, asked=asked)


def test_how_much_fits():
    assert output_that_fits(refusal("total_tokens", 500), 400, weight=1, price=0) == 100
    assert output_that_fits(refusal("total_tokens", 900), 400, weight=2, price=0) == 50
    assert output_that_fits(refusal("cost.total", 500), 40, weight=1, price=10.5) == 11
    assert output_that_fits(refusal("cost.output", 500), 40, weight=1, price=10.5) == 11
    # Refused though it seems to fit: it has to become smaller, or it would be asked for ever.
    assert output_that_fits(refusal("total_tokens", 200), 100, weight=1, price=0) == 99
    assert output_that_fits(refusal("tokens.input", 500), 400, weight=1, price=0) == 0
    assert output_that_fits(refusal("cost.search", 500), 400, weight=1, price=10) == 0


@pytest.mark.parametrize(
    ("api", "provider", "request_", "changed"),
    [
        ("openai.chat", "openai", {}, {"max_completion_tokens": 9}),
        ("openai.chat", "openai", {"max_tokens": 50}, {"max_tokens": 9}),
        ("openai.chat", "groq", {}, {"max_tokens": 9}),
        ("openai.chat", "groq", {"max_completion_tokens": 50}, {"max_completion_tokens": 9}),
        ("openai.responses", "openai", {}, {"max_output_tokens": 9}),
        ("anthropic.messages", "anthropic", {"max_tokens": 50}, {"max_tokens": 9}),
        (
            "gemini",
            "google",
            {"config": {"seed": 1}},
            {"config": {"seed": 1, "max_output_tokens": 9}},
        ),
        ("ollama", "ollama", {}, {"options": {"num_predict": 9}}),
        ("bedrock", "bedrock", {}, {"inferenceConfig": {"maxTokens": 9}}),
    ],
)
def test_limit_has_the_name_that_the_request_or_its_api_uses(api, provider, request_, changed):
    assert limited_to(request_, 9, api=api, provider=provider) == changed
