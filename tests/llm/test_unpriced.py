"""A cap on money lets no call pass whose price nobody knows, unless it is told to."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import uuid
from decimal import Decimal

import openai
import pytest

from glidemq_core import Budget, Ledger
from glidemq_llm import Pricing, chat_handler, embeddings_handler, wrap
from tests.harness.llm_clients import OpenAIChat, asking
from tests.harness.provider import Behaviour

FIVE = "t0 t1 t2 t3 t4 "
ASK = [{"role": "user", "content": "say it"}]
MONEY = Budget(max_total_tokens=100_000, max_total_cost=1)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
async def budget(url):
    """Opens a budget; answers its id and how to look at it."""
    async with Ledger(connection=url) as ledger:

        async def made(budget=MONEY):
            id = f"b-{uuid.uuid4().hex[:8]}"
            await ledger.open_budget(id, budget)
            return id, lambda: ledger.budget(id)

        yield made


def is_refused(ended, provider, model, id):
    """Has the job failed as by a budget, before anything was sent?"""
    assert (ended.job.state, ended.job.reason, ended.job.attempt) == ("failed", "budget", 1)
    assert ended.job.error.error_class == "glidemq_llm.errors.UnpricedModel"
    for word in (repr(id), "cost.total", model, "overrides", "on_unpriced='allow'"):
        assert word in ended.job.error.message
    assert provider.calls(model=model) == []
    assert ended.tokens == {}
    return True


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_call_without_a_price_is_not_sent_under_a_cap_on_money(
    api, client, provider, model, run, budget, is_stream
):
    id, look = await budget()
    wrapped = wrap(client)

    ended = await run(
        asking(api, lambda _job: wrapped, model, is_stream=is_stream), budgets=[id], attempts=3
    )

    assert is_refused(ended, provider, model, id)
    state = await look()
    assert (state.total_tokens, state.total_cost, state.reserved) == (0, 0, {})


async def test_sync_clients_are_refused_too(provider, model, run, budget):
    api = OpenAIChat()
    id, _ = await budget()
    client = api.make_now(provider)
    wrapped = wrap(client, on_tight="shrink")

    ended = await run(lambda _job: api.whole_now(wrapped, model), budgets=[id], attempts=3)

    assert is_refused(ended, provider, model, id)
    client.close()


async def test_budget_that_pauses_does_not_wait_for_a_price(clients, provider, model, run, budget):
    id, _ = await budget(Budget(max_total_cost=1, on_exceeded="pause"))

    ended = await run(
        chat_handler(clients), {"model": f"openai/{model}", "messages": ASK}, budgets=[id]
    )

    assert is_refused(ended, provider, model, id)


async def test_budgets_without_caps_on_money_need_no_price(clients, plan, model, run, budget):
    plan(Behaviour(tokens=5))
    id, look = await budget(Budget(max_total_tokens=100_000))

    ended = await run(
        chat_handler(clients), {"model": f"openai/{model}", "messages": ASK}, budgets=[id]
    )

    assert ended.job.result["text"] == FIVE
    assert (await look()).total_tokens == sum(ended.tokens.values()) > 0


async def test_call_without_a_price_may_be_allowed(clients, plan, model, run, budget):
    plan(Behaviour(tokens=5))
    id, look = await budget()
    handler = chat_handler(clients, pricing=Pricing(on_unpriced="allow"))

    ended = await run(handler, {"model": f"openai/{model}", "messages": ASK}, budgets=[id])

    assert (ended.job.result["text"], ended.job.usage.unpriced) == (FIVE, 1)
    state = await look()
    assert (state.total_tokens, state.total_cost) == (sum(ended.tokens.values()), 0)


async def test_vendors_own_figure_counts_where_the_call_was_allowed(
    provider, plan, model, run, budget
):
    plan(Behaviour(tokens=5), Behaviour(tokens=5))
    client = openai.AsyncOpenAI(base_url=provider.base_url("openrouter"), api_key="k")
    id, look = await budget()

    async def ended(**settings):
        handler = chat_handler({"openrouter": client}, **settings)
        return await run(handler, {"model": model, "messages": ASK}, budgets=[id])

    assert is_refused(await ended(), provider, model, id)
    allowed = await ended(pricing=Pricing(on_unpriced="allow"))

    assert (await look()).total_cost == allowed.job.usage.total_cost > 0
    await client.close()


@pytest.mark.parametrize("vendor", ["vllm", "llama.cpp"])
async def test_server_of_ones_own_sends_no_bill(provider, plan, model, run, budget, vendor):
    plan(Behaviour(tokens=5))
    client = openai.AsyncOpenAI(base_url=provider.base_url(vendor), api_key="k")
    id, look = await budget()

    ended = await run(
        chat_handler({vendor: client}), {"model": model, "messages": ASK}, budgets=[id]
    )

    assert ended.job.result["text"] == FIVE
    assert (await look()).total_cost == 0
    await client.close()


async def test_name_of_a_local_server_in_a_model_is_no_price(clients, provider, model, run, budget):
    id, _ = await budget()
    name = f"ollama/{model}"

    ended = await run(
        chat_handler({"openai": clients["openai"]}),
        {"model": name, "provider": "openai", "messages": ASK},
        budgets=[id],
    )

    assert is_refused(ended, provider, name, id)


async def test_next_model_is_asked_if_it_has_a_price(clients, provider, plan, model, run, budget):
    plan(Behaviour(tokens=5, input=9))
    id, look = await budget()
    pricing = Pricing(overrides={model: {"input": 1, "output": 10}})

    ended = await run(
        chat_handler(clients, pricing=pricing),
        {"model": "openai/nobody-knows", "messages": ASK},
        budgets=[id],
        fallbacks=[{"model": f"openai/{model}"}],
    )

    assert (ended.job.result["text"], ended.job.attempt) == (FIVE, 1)
    first, second = ended.job.hops
    assert (first["model"], first["category"], first["tokens"]) == (
        "openai/nobody-knows",
        "budget",
        0,
    )
    assert "no price is known" in first["error"]
    assert (await look()).total_cost == Decimal(second["cost"]) == Decimal("0.000059")
    assert provider.calls(model="nobody-knows") == []


async def test_job_none_of_whose_models_has_a_price_ends_as_by_a_budget(
    clients, provider, model, run, budget
):
    id, _ = await budget()

    ended = await run(
        chat_handler(clients),
        {"model": "openai/nobody-knows", "messages": ASK},
        budgets=[id],
        fallbacks=[{"model": f"openai/{model}"}],
        attempts=3,
    )

    assert is_refused(ended, provider, model, id)
    assert len(ended.job.hops) == 2


async def test_price_of_the_input_is_all_that_embeddings_need(clients, model, run, budget):
    id, look = await budget()
    handler = embeddings_handler(
        {"openai": clients["openai"]}, pricing=Pricing(overrides={model: {"input": 1000}})
    )

    ended = await run(handler, {"model": model, "input": ["a", "b"]}, budgets=[id])

    assert ended.job.state == "completed", ended.job.error
    assert (await look()).total_cost == ended.job.usage.total_cost > 0


async def test_embeddings_that_cost_too_much_are_not_sent(clients, provider, model, run, budget):
    id, _ = await budget(Budget(max_total_cost="0.000001"))
    handler = embeddings_handler(
        {"openai": clients["openai"]}, pricing=Pricing(overrides={model: {"input": 1000}})
    )

    ended = await run(handler, {"model": model, "input": ["a", "b"]}, budgets=[id])

    assert (ended.job.state, ended.job.reason) == ("failed", "budget")
    assert ended.job.error.error_class.endswith("BudgetExceeded")
    assert provider.calls(model=model) == []


async def test_cap_on_one_kind_of_cost_holds_before_the_call(clients, provider, model, run, budget):
    id, _ = await budget(Budget(max_costs={"output": "0.001"}))
    handler = chat_handler(clients, pricing=Pricing(overrides={"*": {"input": 1, "output": 10}}))

    ended = await run(
        handler, {"model": f"openai/{model}", "messages": ASK, "max_tokens": 101}, budgets=[id]
    )

    assert (ended.job.state, ended.job.reason) == ("failed", "budget")
    assert "cost.output" in ended.job.error.message
    assert provider.calls(model=model) == []
