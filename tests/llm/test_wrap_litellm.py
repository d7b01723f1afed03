"""What is particular to LiteLLM: functions, the module, the Router, other vendors behind it, and its made-up endings."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import importlib.util

import pytest

from glidemq_llm import chat_handler, wrap
from tests.harness.provider import Behaviour

if importlib.util.find_spec("litellm") is None:
    pytest.skip(
        "litellm is not installed (it is tested with the older majors: make litellm)",
        allow_module_level=True,
    )

pytestmark = pytest.mark.filterwarnings("ignore")  # its own code warns of deprecations

ASK = [{"role": "user", "content": "say it"}]
FIVE = "t0 t1 t2 t3 t4 "


@pytest.fixture
def litellm():
    import litellm

    litellm.suppress_debug_info = True
    return litellm


@pytest.fixture
def at(provider):
    """The address of the provider, as LiteLLM's arguments."""
    return {"api_base": provider.openai_url, "api_key": "k"}


async def test_sync_function_in_a_thread(litellm, at, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(tokens=5))
    completion = wrap(litellm.completion)

    def handler(_job):
        whole = completion(f"openai/{model}", ASK, **at)
        stream = completion(model=f"openai/{model}", messages=ASK, stream=True, **at)
        text = [chunk.choices[0].delta.content or "" for chunk in stream]
        return [whole.choices[0].message.content, "".join(text)]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert ended.tokens == provider.billed(model=model)


async def test_module(litellm, at, provider, model, plan, run):
    plan(Behaviour(tokens=5))
    wrapped = wrap(litellm)

    async def handler(_job):
        answer = await wrapped.acompletion(model=f"openai/{model}", messages=ASK, **at)
        return answer.choices[0].message.content

    ended = await run(handler)

    assert ended.job.result == FIVE
    assert ended.tokens == provider.billed(model=model)
    assert wrapped.RateLimitError is litellm.RateLimitError
    assert wrapped.acompletion is not litellm.acompletion


async def test_router(litellm, at, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(status=500), Behaviour(tokens=5))
    parameters = {"model": f"openai/{model}", **at}
    router = litellm.Router(
        model_list=[{"model_name": "mine", "litellm_params": parameters}], num_retries=3
    )
    wrapped = wrap(router)

    async def handler(_job):
        answer = await wrapped.acompletion(model="mine", messages=ASK)
        return answer.choices[0].message.content

    first = await run(handler)
    second = await run(handler, attempts=2)

    assert type(wrapped) is litellm.Router
    assert first.job.result == second.job.result == FIVE
    assert len(first.job.usage.calls) == 1
    assert len(provider.calls(model=model)) == 3
    assert second.job.attempt == 2


async def test_anthropic_behind_it(litellm, provider, model, plan, run):
    plan(Behaviour(tokens=5, input=20, cached=8))
    acompletion = wrap(litellm.acompletion)

    async def handler(_job):
        stream = await acompletion(
            model=f"anthropic/{model}",
            messages=ASK,
            stream=True,
            api_base=provider.url,
            api_key="k",
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    ended = await run(handler)

    assert ended.job.result == ended.text == FIVE
    assert ended.tokens == provider.billed(model=model)
    assert ended.job.usage.calls[0]["provider"] == "anthropic"


async def test_chat_job(litellm, provider, model, plan, run):
    plan(Behaviour(tokens=9, faults={3: "end"}), Behaviour(tokens=5))
    handler = chat_handler({"litellm": litellm.acompletion})

    ended = await run(
        handler,
        {
            "model": f"openai/{model}",
            "messages": ASK,
            "api_base": provider.openai_url,
            "api_key": "k",
        },
        attempts=2,
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.attempt == 2


async def test_mocked_http(litellm, run, mocked):
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    acompletion = wrap(litellm.acompletion)

    async def handler(_job):
        await acompletion(model="openai/m", messages=ASK, api_base="https://x.test/v1", api_key="k")

    with mocked("openai") as router:
        route = router.post("https://x.test/v1/chat/completions").respond(json=body)
        ended = await run(handler)

    assert route.call_count == 1
    assert ended.tokens == {"input": 3, "output": 1}


def test_wrapping_twice_wraps_once(litellm):
    once = wrap(litellm.acompletion)

    assert wrap(once).__wrapped__ is litellm.acompletion


async def test_embeddings_are_booked_and_not_streamed(litellm, at, run):
    wrapped = wrap(litellm)

    async def handler(_job):
        answer = await wrapped.aembedding(
            model="openai/text-embedding-x", input=["two words"], **at
        )
        return len(answer.data)

    def in_thread(_job):
        answer = wrap(litellm.embedding)("openai/text-embedding-x", ["two words"], **at)
        return len(answer.data)

    for one in (handler, in_thread):
        ended = await run(one)
        assert ended.job.result == 1
        assert [chunk.type for chunk in ended.chunks] == ["end"]
        assert ended.tokens["input"] > 0
        assert "output" not in ended.tokens
