"""What a call sets aside of money before it is sent, and what it costs in the end. No server, no SDK."""

from __future__ import annotations

from decimal import Decimal

import pytest

from glidemq_llm import MeterSettings, Pricing
from glidemq_llm.metering import MeteredCall

PRICING = Pricing(overrides={"*": {"input": 1, "output": 10}})
ASK = {"model": "m", "messages": [{"role": "user", "content": "say something nice to me"}]}
ANSWER = {
    "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}],
}


def new_call(request, pricing=PRICING, *, provider="openai", **options):
    settings = MeterSettings(pricing=pricing)
    return MeteredCall(
        "j/1/1", api="openai.chat", provider=provider, request=request, settings=settings, **options
    )


def test_money_is_set_aside_by_kind_and_in_all():
    call = new_call({**ASK, "max_tokens": 100})

    held = call.reservation()["costs"]

    assert Decimal(held["output"]) == Decimal("0.001")
    assert Decimal(held["total"]) == Decimal(held["input"]) + Decimal(held["output"])


@pytest.mark.parametrize(
    ("policy", "provider", "held"),
    [
        ("deny_capped", "openai", None),
        ("allow", "openai", {"total": 0}),
        ("deny_capped", "vllm", {"total": 0}),
    ],
)
def test_unknown_price_sets_nothing_aside_only_where_that_is_safe_or_allowed(
    policy, provider, held
):
    request = {**ASK, "model": "nobody-knows"}
    call = new_call(request, Pricing(on_unpriced=policy), provider=provider)

    assert call.reservation()["costs"] == held


def test_answer_under_a_name_that_no_table_knows_costs_what_was_asked_for():
    pricing = Pricing(overrides={"prod-chat": {"input": 1, "output": 10}})
    call = new_call({**ASK, "model": "prod-chat"}, pricing)
    call.is_sent = True
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    call.take({**ANSWER, "model": "who-knows-2026-01-01", "usage": usage})

    settled = call.settle(None, whole=True)

    assert settled.report["model"] == "who-knows-2026-01-01"
    assert settled.report["costs"]["total"] == "0.000029"


def test_vectors_are_no_answer_to_set_tokens_aside_for():
    call = new_call({"model": "bge-m3", "input": ["a"]}, has_answer=False)

    assert call.reservation()["tokens"]["output"] == 0
