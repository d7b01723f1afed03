"""What is particular to LiteLLM: functions, the module, the Router, other vendors behind it, and its made-up endings."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import importlib.util
import json

import pytest

from glidemq_core import Budget, Ledger
from glidemq_core.errors import InvalidOption
from glidemq_llm import chat_handler, responses_handler, wrap
from tests.harness.provider import Behaviour, ended_call

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


# -- the Responses API -----------------------------------------------------------
#
# "openai/..." is sent to /v1/responses, the others are turned into chat completions or messages and back.


@pytest.fixture(params=["native", "chat", "messages"])
def respond(request, litellm, provider, model):
    """Arguments of `responses` for a vendor that has it, and for two that it is turned into something else for."""
    name, url = {
        "native": (f"openai/{model}", provider.openai_url),
        "chat": (f"openai/chat_completions/{model}", provider.openai_url),
        "messages": (f"anthropic/{model}", provider.url),
    }[request.param]
    if request.param == "native":  # or its streams would be told from whole answers
        facts = {"litellm_provider": "openai", "supports_native_streaming": True}
        litellm.register_model({model: facts, name: facts})
    return {"model": name, "api_base": url, "api_key": "k"}


def said(events):
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def test_responses_are_booked_once_whatever_they_are_turned_into(
    litellm, respond, provider, model, plan, run
):
    plan(*[Behaviour(tokens=5, input=20)] * 2)
    aresponses = wrap(litellm.aresponses)

    async def handler(_job):
        whole = await aresponses("say it", **respond)
        stream = await aresponses(input="say it", stream=True, **respond)
        return [whole.output[-1].content[0].text, said([event async for event in stream])]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert ended.text == FIVE + FIVE
    assert [call.is_stream for call in provider.calls(model=model)] == [False, True]
    assert len(ended.job.usage.calls) == 2
    assert ended.tokens == provider.billed(model=model) == {"input": 40, "output": 10}
    assert ended.statuses == ["complete", "complete"]
    assert [chunk.content for chunk in ended.of("done")] == ["stop", "stop"]


async def test_sync_responses_in_a_thread(litellm, respond, provider, model, plan, run):
    plan(*[Behaviour(tokens=5, input=20)] * 2)
    wrapped = wrap(litellm)

    def handler(_job):
        whole = wrapped.responses("say it", **respond)
        return [
            whole.output[-1].content[0].text,
            said(wrapped.responses("say it", stream=True, **respond)),
        ]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert ended.text == FIVE + FIVE
    assert ended.tokens == provider.billed(model=model) == {"input": 40, "output": 10}


async def test_responses_of_a_router(litellm, respond, provider, model, plan, run):
    plan(Behaviour(tokens=5), Behaviour(status=500), Behaviour(tokens=5))
    models = [{"model_name": "mine", "litellm_params": respond}]
    wrapped = wrap(litellm.Router(model_list=models, num_retries=3))

    async def handler(_job):
        stream = await wrapped.aresponses(model="mine", input="say it", stream=True)
        return said([event async for event in stream])

    first = await run(handler)
    second = await run(handler, attempts=2)

    assert first.job.result == second.job.result == FIVE
    assert len(first.job.usage.calls) == len(second.job.usage.calls) == 1
    assert second.job.attempt == 2
    assert len(provider.calls(model=model)) == 3


async def test_completion_that_is_turned_into_responses_is_booked_once(
    litellm, at, provider, model, plan, run
):
    plan(*[Behaviour(tokens=5, input=20)] * 2)
    acompletion = wrap(litellm).acompletion
    asked = {"model": f"openai/responses/{model}", "messages": ASK, **at}

    async def handler(_job):
        whole = await acompletion(**asked)
        stream = await acompletion(**asked, stream=True)
        text = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return [whole.choices[0].message.content, "".join(text)]

    ended = await run(handler)

    assert ended.job.result == [FIVE, FIVE]
    assert {call.path for call in provider.calls(model=model)} == {"/v1/responses"}
    assert len(ended.job.usage.calls) == len(provider.calls(model=model)) == 2
    assert ended.tokens == provider.billed(model=model)


@pytest.mark.parametrize("status", [429, 503])
async def test_refused_responses_cost_one_call_an_attempt(
    litellm, respond, provider, model, plan, run, status
):
    plan(Behaviour(status=status), Behaviour(tokens=5))
    aresponses = wrap(litellm.aresponses)

    async def handler(_job):
        return (await aresponses(input="say it", **respond)).output[-1].content[0].text

    ended = await run(handler, attempts=2)

    assert ended.job.result == FIVE
    assert ended.job.attempt == len(provider.calls(model=model)) == 2
    assert ended.tokens == provider.billed(model=model)


@pytest.mark.parametrize("fault", ["disconnect", "error", "end"])
async def test_broken_stream_of_responses_is_tried_again(
    litellm, respond, provider, model, plan, run, fault
):
    plan(Behaviour(tokens=9, input=20, faults={3: fault}), Behaviour(tokens=5, input=20))
    aresponses = wrap(litellm.aresponses)

    async def handler(_job):
        stream = await aresponses(input="say it", stream=True, **respond)
        return said([event async for event in stream])

    ended = await run(handler, attempts=2)

    assert ended.job.result == ended.text == FIVE
    assert ended.job.attempt == len(provider.calls(model=model)) == 2
    assert ended.statuses[0] == "complete"
    assert ended.statuses[1] in ("missing", "partial")


async def test_stopped_responses_are_stopped_at_the_provider(
    litellm, respond, provider, model, plan, spend
):
    plan(Behaviour(tokens=20, input=20, faults={10: f"gate:{model}"}))
    aresponses = wrap(litellm.aresponses)

    async def handler(_job):
        async for _ in await aresponses(input="say it", stream=True, **respond):
            pass

    async def cancel(job):
        async for chunk in job.stream():
            if "t8" in chunk.content:  # a bridge holds the newest back
                break
        await job.cancel()

    ended = await spend(handler, beside=cancel)

    assert ended.job.state == "cancelled"
    assert (await ended_call(provider, model)).outcome == "caller left"
    assert ended.tokens["output"] > 5
    assert ended.statuses != ["complete"]


async def test_budget_without_room_for_them_sends_no_responses(
    litellm, respond, provider, model, run, url
):
    aresponses = wrap(litellm.aresponses)
    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("small", Budget(max_total_tokens=100))

        async def handler(_job):
            await aresponses(input="say it", max_output_tokens=500, **respond)

        ended = await run(handler, budgets=["small"])

    assert (ended.job.state, ended.job.reason) == ("failed", "budget")
    assert provider.calls(model=model) == []


async def test_responses_job_falls_back(litellm, provider, model, run):
    provider.plan(f"{model}-1", Behaviour(status=529))
    provider.plan(f"{model}-2", Behaviour(tokens=5, input=20))
    handler = responses_handler({"litellm": litellm})
    data = {"input": "say it", "model": f"anthropic/{model}-1", "api_key": "k"}

    ended = await run(
        handler,
        {**data, "api_base": provider.url},
        fallbacks=[
            {"model": f"openai/{model}-2", "params": {"api_base": provider.openai_url}},
        ],
    )

    assert ended.job.result["text"] == ended.text == FIVE
    assert ended.job.result["response_id"]
    assert ended.job.hops[0]["category"] == "overloaded"
    assert ended.tokens == provider.billed(model=f"{model}-2") == {"input": 20, "output": 5}


def test_handlers_are_given_the_function_of_their_api(litellm):
    with pytest.raises(InvalidOption, match="no Responses API"):
        responses_handler({"litellm": litellm.acompletion})


def test_function_that_is_not_metered_is_refused(litellm):
    with pytest.raises(InvalidOption, match="of LiteLLM are completion, acompletion"):
        wrap(litellm.image_variation)


# -- others ----------------------------------------------------------------------


async def test_compacting_is_booked_and_not_streamed(litellm, run, mocked):
    body = {
        "id": "c1",
        "object": "response.compaction",
        "created_at": 1,
        "output": [],
        "usage": {"input_tokens": 30, "output_tokens": 4, "total_tokens": 34},
    }
    wrapped = wrap(litellm)
    asked = {"model": "openai/m", "api_base": "https://x.test/v1", "api_key": "k"}

    async def handler(_job):
        await wrapped.acompact_responses(input="a long talk", **asked)

    with mocked("openai") as router:
        route = router.post("https://x.test/v1/responses/compact").respond(json=body)
        ended = await run(handler)

    assert route.call_count == 1
    assert ended.tokens == {"input": 30, "output": 4}
    assert [chunk.type for chunk in ended.chunks] == ["end"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_old_completions(litellm, run, mocked, is_stream):
    choice = {"index": 0, "text": "hello", "finish_reason": "stop", "logprobs": None}
    body = {"id": "x", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    events = [body, {**body, "choices": [], "usage": usage}]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    wrapped = wrap(litellm)
    asked = {"api_base": "https://x.test/v1", "api_key": "k", "stream": is_stream}

    async def handler(_job):
        answer = await wrapped.atext_completion(
            model="text-completion-openai/m", prompt="x", **asked
        )
        if is_stream:
            return "".join([chunk.choices[0].text or "" async for chunk in answer])
        return answer.choices[0].text

    with mocked("openai") as router:
        router.post("https://x.test/v1/completions").respond(
            **(
                {"text": "".join([*lines, "data: [DONE]\n\n"]), "content_type": "text/event-stream"}
                if is_stream
                else {"json": {**body, "usage": usage}}
            )
        )
        ended = await run(handler)

    assert ended.job.result == ended.text == "hello"
    assert ended.tokens == {"input": 3, "output": 1}
    assert len(ended.job.usage.calls) == 1
