"""The ready-made handlers: whole jobs, fallbacks from one model to the next, and what they leave on the job."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import importlib.util
from decimal import Decimal

import pytest

from glidemq_core import Budget, Ledger
from glidemq_core.errors import InvalidOption
from glidemq_llm import (
    MeterSettings,
    Pricing,
    chat_handler,
    embeddings_handler,
    responses_handler,
    wrap,
)
from tests.harness.provider import Behaviour

ASK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "say it"}]
PRICING = Pricing(overrides={"*": {"input": 1, "output": 10}})
FIVE = "t0 t1 t2 t3 t4 "


@pytest.fixture
def models(provider, model):
    """Two models of the test's own, and a function that plans their calls."""

    def plan(first=(), second=()):
        provider.plan(f"{model}-1", *first)
        provider.plan(f"{model}-2", *second)

    plan.first, plan.second = f"openai/{model}-1", f"anthropic/{model}-2"
    return plan


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
async def test_chat_job(clients, provider, model, plan, run, vendor):
    plan(Behaviour(tokens=5, input=20))
    handler = chat_handler(clients, pricing=PRICING)

    ended = await run(handler, {"model": f"{vendor}/{model}", "messages": ASK, "max_tokens": 50})

    assert ended.job.result == {
        "text": FIVE,
        "tool_calls": [],
        "finish_reason": "stop",
        "usage": {
            "tokens": {"input": 20, "output": 5},
            "total_tokens": 25,
            "cost": "0.00007",
            "status": "complete",
        },
        "model": model,
        "provider": vendor,
        "fallback_index": 0,
    }
    assert ended.text == FIVE
    assert ended.tokens == provider.billed(model=model)
    assert provider.calls(model=model)[0].limit == 50
    assert ended.job.hops == ()


async def test_wrapped_clients_are_not_metered_twice(clients, provider, model, plan, run):
    plan(Behaviour(tokens=5))
    handler = chat_handler({"openai": wrap(clients["openai"])})

    ended = await run(handler, {"model": f"openai/{model}", "messages": ASK})

    assert ended.tokens == provider.billed(model=model)
    assert len(ended.job.usage.calls) == len(ended.of("start")) == 1


async def test_limit_of_tokens_ends_the_answer_with_length(clients, provider, model, plan, run):
    plan(Behaviour(tokens=50))
    handler = chat_handler(clients, model=f"openai/{model}")

    ended = await run(handler, {"messages": ASK, "params": {"max_completion_tokens": 5}})

    assert ended.job.result["finish_reason"] == "length"
    assert ended.job.result["text"] == FIVE


async def test_next_model_is_asked_when_the_first_refuses(clients, provider, models, run):
    models([Behaviour(status=529)], [Behaviour(tokens=5, input=9)])
    handler = chat_handler(clients, pricing=PRICING)

    ended = await run(
        handler,
        {"model": models.first, "messages": ASK},
        fallbacks=[{"model": models.second, "params": {"max_tokens": 7}}],
        attempts=3,
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.result["fallback_index"] == 1
    assert (ended.job.result["provider"], ended.job.attempt) == ("anthropic", 1)
    assert provider.calls(model=models.second.split("/")[1])[0].limit == 7
    assert [hop["model"] for hop in ended.job.hops] == [models.first, models.second]
    assert ended.job.hops[0]["category"] == "overloaded"
    assert ended.job.hops[0]["tokens"] == 0
    assert ended.job.hops[1]["tokens"] == 14
    assert Decimal(ended.job.hops[1]["cost"]) == Decimal("0.000059")
    assert not ended.of("reset")


@pytest.mark.parametrize("fault", ["disconnect", "malformed", "error", "end"])
async def test_next_answer_replaces_the_part_that_was_shown(clients, provider, models, run, fault):
    models([Behaviour(tokens=9, input=9, faults={4: fault})], [Behaviour(tokens=5, input=9)])
    handler = chat_handler(clients)

    ended = await run(
        handler, {"model": models.first, "messages": ASK}, fallbacks=[{"model": models.second}]
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert "".join(chunk.content for chunk in ended.of("content")) == "t0 t1 t2 t3 " + FIVE
    assert [chunk.content for chunk in ended.of("reset")] == ["fallback"]
    assert len(ended.job.usage.calls) == 2
    assert ended.job.hops[0]["tokens"] > 0
    assert ended.statuses[0] == "complete"
    assert ended.statuses[1] != "complete"


@pytest.mark.parametrize("fault", ["refused", "cut"])
async def test_each_call_is_settled_before_the_next_reserves(
    clients, provider, models, run, url, fault
):
    """The budget has room for one call at a time, and for what a cut one has used beside it."""
    first = Behaviour(status=529) if fault == "refused" else Behaviour(faults={4: "disconnect"})
    models([first], [Behaviour(tokens=5, input=9)])
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("b", Budget(max_total_tokens=1200, on_exceeded="fail"))

        ended = await run(
            chat_handler(clients),
            {"model": models.first, "messages": ASK, "max_tokens": 1000},
            fallbacks=[{"model": models.second}],
            budgets=["b"],
        )

        budget = await ledger.budget("b")
    assert ended.job.result["text"] == FIVE
    assert budget.reserved == {}
    assert budget.total_tokens == sum(ended.tokens.values())


async def test_stalled_model_is_left_for_the_next(clients, provider, models, run):
    models([Behaviour(faults={2: "hang"})], [Behaviour(tokens=5)])
    handler = chat_handler(clients, settings=MeterSettings(idle_timeout=1))

    ended = await run(
        handler, {"model": models.first, "messages": ASK}, fallbacks=[{"model": models.second}]
    )

    assert ended.text == FIVE
    assert ended.job.hops[0]["category"] == "stream_interrupted"
    assert ended.job.hops[0]["seconds"] >= 1


async def test_all_models_fail_and_the_next_attempt_starts_over(clients, provider, models, run):
    models(
        [Behaviour(status=503), Behaviour(tokens=5)],
        [Behaviour(tokens=5, faults={2: "disconnect"})],
    )
    handler = chat_handler(clients)

    ended = await run(
        handler,
        {"model": models.first, "messages": ASK},
        fallbacks=[{"model": models.second}],
        attempts=2,
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.result["fallback_index"] == 0
    assert ended.job.attempt == 2
    assert ended.job.errors[0].error_class.endswith("FallbacksExhausted")
    assert ended.job.hops == () or ended.job.hops[0]["model"] == models.first


async def test_all_models_limited_waits_for_the_first_that_is_free(clients, provider, models, run):
    models(
        [Behaviour(status=429, headers={"retry-after": "0.5"}), Behaviour(tokens=5)],
        [Behaviour(status=429, headers={"retry-after": "60"})],
    )
    handler = chat_handler(clients)

    ended = await run(
        handler,
        {"model": models.first, "messages": ASK},
        fallbacks=[{"model": models.second}],
        attempts=2,
    )

    first, second = provider.calls(model=models.first.split("/")[1])
    assert ended.job.state == "completed"
    assert 0.5 <= second.started - first.ended < 20


async def test_invalid_request_is_not_passed_on(clients, provider, models, run):
    models([Behaviour(status=400, message="temperature is too high")], [Behaviour()])
    handler = chat_handler(clients)

    ended = await run(
        handler,
        {"model": models.first, "messages": ASK},
        fallbacks=[{"model": models.second}],
        attempts=3,
    )

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")
    assert provider.calls(model=models.second.split("/")[1]) == []


async def test_which_errors_go_to_the_next_model_can_be_said(clients, provider, models, run):
    models([Behaviour(status=400, message="temperature is too high")], [Behaviour(tokens=5)])
    handler = chat_handler(clients, fallback_on={"invalid_request"})

    ended = await run(
        handler, {"model": models.first, "messages": ASK}, fallbacks=[{"model": models.second}]
    )

    assert ended.text == FIVE


async def test_handler_that_does_not_go_on_has_no_attempt_go_on_either(
    clients, provider, models, run
):
    models([Behaviour(status=401, message="no such key")], [Behaviour(tokens=5)])
    handler = chat_handler(clients, fallback_on=())

    ended = await run(
        handler,
        {"model": models.first, "messages": ASK},
        fallbacks=[{"model": models.second}],
        attempts=3,
    )

    assert (ended.job.state, ended.job.reason, ended.job.attempt) == ("failed", "unrecoverable", 1)
    assert provider.calls(model=models.second.split("/")[1]) == []


async def test_prompt_that_is_too_long_goes_to_larger_windows_only(clients, provider, run):
    small, same, large = "gpt-4", "gpt-4-0613", "gpt-4.1"
    provider.plan(small, Behaviour(status=400, error_code="context_length_exceeded"))
    provider.plan(large, Behaviour(tokens=5))
    handler = chat_handler(clients)

    ended = await run(
        handler,
        {"model": f"openai/{small}", "messages": ASK},
        fallbacks=[{"model": f"openai/{same}"}, {"model": f"openai/{large}"}],
    )

    assert ended.text == FIVE
    assert provider.calls(model=same) == []
    assert [hop["category"] for hop in ended.job.hops[:2]] == ["context_window"] * 2
    assert "not asked" in ended.job.hops[1]["error"]


async def test_prompt_that_fits_no_window_fails_at_once(clients, provider, run):
    provider.plan("gpt-4", Behaviour(status=400, error_code="context_length_exceeded"))
    handler = chat_handler(clients)

    ended = await run(
        handler,
        {"model": "openai/gpt-4", "messages": ASK},
        fallbacks=[{"model": "openai/gpt-4-0613"}],
        attempts=3,
    )

    assert (ended.job.state, ended.job.reason, ended.job.attempt) == ("failed", "unrecoverable", 1)


async def test_mistake_in_a_fallback_shows_before_money_is_spent(clients, provider, model, run):
    handler = chat_handler(clients)

    ended = await run(
        handler,
        {"model": f"openai/{model}", "messages": ASK},
        fallbacks=[{"model": "nobody/knows", "provider": "nobody"}],
        attempts=3,
    )

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")
    assert "no client for model 'nobody/knows' of provider 'nobody'" in ended.job.error.message
    assert provider.calls(model=model) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"params": ["temperature"]}, '"params" of a job are a mapping'),
        ({"provider": ["openai"]}, "not a name: ['openai']"),
    ],
    ids=["params", "provider"],
)
async def test_data_of_the_wrong_kind_is_named_and_not_tried_again(
    clients, provider, model, run, wrong, said
):
    data = {"model": f"openai/{model}", "messages": ASK, **wrong}

    ended = await run(chat_handler(clients), data, attempts=3)

    assert (ended.job.reason, ended.job.attempt) == ("unrecoverable", 1)
    assert said in ended.job.error.message
    assert provider.calls(model=model) == []


async def test_missing_sdk_is_named_with_the_extra_that_brings_it(clients, model, run, monkeypatch):
    find = importlib.util.find_spec

    def without_cohere(name, *rest):
        return None if name == "cohere" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_cohere)

    ended = await run(chat_handler(clients), {"model": f"cohere/{model}", "messages": ASK})

    assert ended.job.reason == "unrecoverable"
    assert 'pip install "glidemq-llm[cohere]"' in ended.job.error.message


@pytest.mark.parametrize("data", [None, {}, {"messages": "hi"}, {"messages": []}, [1]])
async def test_data_that_is_no_chat_is_refused(clients, run, data):
    ended = await run(chat_handler(clients), data, attempts=3)

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")


def test_clients_are_looked_at_when_the_handler_is_made():
    with pytest.raises(InvalidOption, match="empty"):
        chat_handler({})
    with pytest.raises(InvalidOption, match="no adapter for object"):
        chat_handler({"mine": object()})


async def test_convert_decides_what_is_sent(clients, provider, model, plan, run):
    plan(Behaviour(tokens=5))
    seen = []

    def convert(provider, messages, params):
        seen.append(provider)
        return messages[:1], {**params, "max_tokens": 3}

    handler = chat_handler(clients, convert=convert)

    ended = await run(handler, {"model": f"openai/{model}", "messages": ASK})

    assert seen == ["openai"]
    assert ended.job.result["text"] == "t0 t1 t2 "


# -- the other handlers -----------------------------------------------------


async def test_responses_job(clients, provider, model, plan, run):
    plan(Behaviour(tokens=5, input=20))
    handler = responses_handler({"openai": clients["openai"]}, pricing=PRICING)

    ended = await run(handler, {"model": model, "input": "say it", "instructions": "be brief"})

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.result["response_id"]
    assert ended.job.result["finish_reason"] == "stop"
    assert ended.tokens == provider.billed(model=model)


async def test_responses_job_falls_back(clients, provider, models, model, run):
    models([Behaviour(tokens=9, faults={3: "error"})], [Behaviour(tokens=5)])
    handler = responses_handler({"openai": clients["openai"]})

    ended = await run(
        handler, {"model": models.first, "input": "say it"}, fallbacks=[{"model": f"{model}-2"}]
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.hops[0]["category"] == "overloaded"


def test_responses_need_a_client_that_has_them(clients):
    with pytest.raises(InvalidOption, match="no Responses API"):
        responses_handler(clients)


async def test_embeddings_go_in_batches(clients, provider, model, run):
    handler = embeddings_handler({"openai": clients["openai"]}, batch_size=2, pricing=PRICING)

    ended = await run(handler, {"model": model, "input": ["a", "b", "c d"]})

    assert ended.job.result["count"] == len(ended.job.result["embeddings"]) == 3
    assert ended.job.result["usage"] == {
        "tokens": provider.billed(model=model),
        "total_tokens": 4,
        "calls": 2,
    }
    assert ended.tokens == provider.billed(model=model)
    assert ended.job.progress == {"done": 3, "of": 3}
    assert [chunk.type for chunk in ended.chunks] == ["end"]


async def test_embeddings_can_be_stored_elsewhere(clients, provider, model, run):
    stored = {}

    async def store(_job, start, vectors):
        stored[start] = vectors

    handler = embeddings_handler({"openai": clients["openai"]}, batch_size=2, store=store)

    ended = await run(handler, {"model": model, "input": ["a", "b", "c"]})

    assert "embeddings" not in ended.job.result
    assert {start: len(vectors) for start, vectors in stored.items()} == {0: 2, 2: 1}
