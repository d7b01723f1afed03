"""What a provider's headers say is left bounds what all workers send: others may use the same key."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import uuid

import openai
import pytest

from glidemq_core import Ledger, Throttle, Worker
from glidemq_llm import MeterSettings, chat_handler, parse_rate_limits, wrap
from glidemq_llm.limits import remaining_now
from tests.harness.provider import Behaviour

NOTHING_LEFT = {
    "openai": {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"},
    "anthropic": {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "0",
    },
}
LIMIT = Throttle(rpm=60, burst=0.5)  # 30 at once, then one a second
TURN = [{"role": "user", "content": "say it"}]


@pytest.fixture
async def ledger(url):
    async with Ledger(connection=url) as opened:
        yield opened


@pytest.fixture
def limiter():
    return f"l-{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("how", ["stream", "whole"])
async def test_headers_of_an_answer_bound_the_limiter(
    api, client, provider, model, plan, run, ledger, limiter, how
):
    plan(Behaviour(tokens=5, headers=NOTHING_LEFT[api.vendor]))
    wrapped = wrap(client)

    async def handler(_job):
        if how == "whole":
            return await api.whole(wrapped, model)
        return "".join([api.text(event) async for event in await api.stream(wrapped, model)])

    ended = await run(handler, limits={limiter: LIMIT})

    assert ended.job.result == ended.text == "t0 t1 t2 t3 t4 "
    assert ended.tokens == provider.billed(model=model)
    assert (await ledger.limiter_state(limiter)).axes[
        "rpm"
    ].remaining < 15  # of 29, and one more a second


async def test_another_worker_waits_for_what_the_first_was_told(
    queue, url, provider, model, plan, limiter
):
    plan(Behaviour(tokens=5, headers=NOTHING_LEFT["openai"]), Behaviour(tokens=5))
    settings = MeterSettings(limits={f"openai/{model}": LIMIT})
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
        for _ in range(2):
            async with Worker(
                queue.name, chat_handler({"openai": client}, settings=settings), connection=url
            ):
                job = await queue.add("job", {"messages": TURN, "model": f"openai/{model}"})
                await job.result(timeout=30)

    first, second = provider.calls(model=model)
    assert second.started - first.ended > 0.8


async def test_answer_of_a_limited_call_is_what_the_sdk_gives(provider, model, plan, run, limiter):
    plan(*[Behaviour(tokens=5)] * 3)
    async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
        wrapped = wrap(client)

        async def handler(_job):
            chat = wrapped.chat.completions
            whole = await chat.create(model=model, messages=TURN)
            raw = await chat.with_raw_response.create(model=model, messages=TURN)
            async with chat.with_streaming_response.create(model=model, messages=TURN) as streamed:
                body = await streamed.parse()
            return [type(one).__name__ for one in (whole, raw, raw.parse(), body)]

        ended = await run(handler, limits={limiter: Throttle(rpm=10_000)})

    assert ended.job.result == [
        "ChatCompletion",
        "LegacyAPIResponse",
        "ChatCompletion",
        "ChatCompletion",
    ]
    assert ended.tokens == provider.billed(model=model)


def left(age=0.0, **headers):
    named = {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in headers.items()}
    return remaining_now(parse_rate_limits(named), age)


def test_old_headers_count_for_less():
    told = {"limit_requests": "600", "remaining_requests": "5", "reset_requests": "59s"}

    assert left(0, **told) == {"rpm": 5}
    assert left(10, **told) == {"rpm": 105}
    assert left(60, **told) == {}


def test_limits_of_other_windows_are_not_taken_for_those_of_a_minute():
    assert left(limit_requests="200", remaining_requests="0", reset_requests="7m12s") == {}
    assert left(limit_tokens_day="9", remaining_tokens_day="0") == {}


@pytest.mark.parametrize("odd", ["-1", "1e300", "9" * 400, "1e400", "nan", "\0"])
def test_odd_figure_is_left_out_or_one_that_a_ledger_takes(odd: str):
    told = {"limit_tokens": odd, "remaining_tokens": odd, "reset_tokens": "30s"}

    assert all(0 <= number <= 10**12 for number in left(1.0, **told).values())


def test_axes_have_the_names_of_limiters():
    headers = {f"anthropic-ratelimit-{name}-tokens-remaining": "7" for name in ("input", "output")}

    assert remaining_now(parse_rate_limits(headers), 0) == {"input_tpm": 7, "output_tpm": 7}
