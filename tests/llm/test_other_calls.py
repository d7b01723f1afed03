"""Calls beside chats: images and transcripts are metered; what costs money and is not metered says so."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import importlib.util
import io
import json
import logging
import re

import anthropic
import openai
import pytest

from glidemq_llm import Pricing, wrap
from glidemq_llm.providers import _hooks
from tests.harness.processes import ROOT

BASE = "https://x.test/v1"
IMAGES = {
    "created": 1,
    "data": [{"b64_json": "aGk="}],
    "usage": {
        "input_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
        "output_tokens": 1056,
        "output_tokens_details": {"image_tokens": 1056, "text_tokens": 0},
        "total_tokens": 1106,
    },
}
IMAGE_TOKENS = {"input": 10, "image_input": 40, "image_output": 1056}
HEARD = {
    "text": "hello",
    "usage": {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"audio_tokens": 12, "text_tokens": 2},
        "output_tokens": 3,
        "total_tokens": 17,
    },
}
HEARD_TOKENS = {"input": 2, "audio_input": 12, "output": 3}
PRICING = Pricing(overrides={"*": {"input": 1, "output": 10}})


def sound():
    return ("a.wav", io.BytesIO(b"RIFF"))


@pytest.fixture
async def client():
    async with openai.AsyncOpenAI(base_url=BASE, api_key="k", max_retries=0) as made:
        yield made


@pytest.fixture
def router(mocked):
    with mocked("openai") as router:
        yield router


def answers(router, path, body):
    """Have a path answer with a body: JSON, text, or the events of a stream."""
    if isinstance(body, dict):
        answer = {"json": body}
    elif isinstance(body, str):
        answer = {"text": body}
    else:
        lines = [f"data: {json.dumps(event)}\n\n" for event in body]
        answer = {"text": "".join(lines), "content_type": "text/event-stream"}
    return router.post(f"{BASE}/{path}").respond(**answer)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("images/generations", lambda c: c.images.generate(model="m", prompt="a cat")),
        (
            "images/edits",
            lambda c: c.images.edit(model="m", prompt="a cat", image=("a.png", b"\x89PNG")),
        ),
    ],
    ids=["generate", "edit"],
)
async def test_images_are_booked_as_the_provider_says_and_not_streamed(
    client, router, run, path, asked
):
    answers(router, path, IMAGES)
    wrapped = wrap(client, pricing=PRICING)

    async def handler(_job):
        return (await asked(wrapped)).data[0].b64_json

    ended = await run(handler)

    assert ended.job.result == "aGk="
    assert ended.tokens == IMAGE_TOKENS
    assert ended.statuses == ["complete"]
    assert [chunk.type for chunk in ended.chunks] == ["end"]


async def test_streamed_image_is_booked_at_its_end(client, router, run):
    events = [
        {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": "aA=="},
        {"type": "image_generation.completed", "b64_json": "aGk=", "usage": IMAGES["usage"]},
    ]
    answers(router, "images/generations", events)
    wrapped = wrap(client)

    async def handler(_job):
        stream = await wrapped.images.generate(model="m", prompt="a cat", stream=True)
        return [event.type async for event in stream]

    ended = await run(handler)

    assert ended.job.result == [event["type"] for event in events]
    assert ended.tokens == IMAGE_TOKENS
    assert ended.statuses == ["complete"]


async def test_streamed_image_that_does_not_come_is_no_success(client, router, run):
    partial = {"type": "image_generation.partial_image", "b64_json": "aA=="}
    answers(router, "images/generations", [partial])
    wrapped = wrap(client)

    async def handler(_job):
        async for _ in await wrapped.images.generate(model="m", prompt="a cat", stream=True):
            pass

    ended = await run(handler)

    assert ended.job.error.error_class.endswith("StreamInterrupted")
    assert ended.statuses == ["missing"]


async def test_budget_without_room_for_an_image_buys_none(client, router, run, url):
    from glidemq_core import Budget, Ledger

    route = answers(router, "images/generations", IMAGES)
    wrapped = wrap(client)

    async def handler(_job):
        await wrapped.images.generate(model="m", prompt="a cat")

    async with Ledger(connection=url) as ledger:
        await ledger.open_budget("small", Budget(max_total_tokens=100))
        ended = await run(handler, budgets=["small"])

    assert (ended.job.state, ended.job.reason) == ("failed", "budget")
    assert route.call_count == 0


@pytest.mark.parametrize(
    ("body", "tokens", "status"),
    [
        (HEARD, HEARD_TOKENS, "complete"),
        ({"text": "hello", "usage": {"type": "duration", "seconds": 27}}, {}, "complete"),
        ("hello", None, "missing"),
    ],
    ids=["tokens", "seconds", "text"],
)
async def test_transcripts_are_booked_by_tokens_or_seconds(
    client, router, run, body, tokens, status
):
    answers(router, "audio/transcriptions", body)
    wrapped = wrap(client)
    form = "text" if isinstance(body, str) else "json"

    async def handler(_job):
        answer = await wrapped.audio.transcriptions.create(
            model="m", file=sound(), response_format=form
        )
        return answer if isinstance(answer, str) else answer.text

    ended = await run(handler)

    assert ended.job.result == "hello"
    assert ended.statuses == [status]
    assert tokens is None or ended.tokens == tokens
    if tokens == {}:
        assert ended.job.usage.calls[0]["details"]["counts"] == {"audio_seconds": 27}


async def test_streamed_transcript_is_booked_at_its_end(client, router, run):
    events = [
        {"type": "transcript.text.delta", "delta": "hel"},
        {"type": "transcript.text.done", **HEARD},
    ]
    answers(router, "audio/transcriptions", events)
    wrapped = wrap(client)

    async def handler(_job):
        stream = await wrapped.audio.transcriptions.create(model="m", file=sound(), stream=True)
        return [event.type async for event in stream]

    ended = await run(handler)

    assert ended.job.result == [event["type"] for event in events]
    assert ended.tokens == HEARD_TOKENS
    assert [chunk.type for chunk in ended.chunks] == ["end"]


async def test_mistrals_agents_code_and_pages_are_booked(mocked, run):
    mistralai = pytest.importorskip("mistralai.client")
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    body |= {"choices": [{**choice, "finish_reason": "stop"}]}
    body |= {"usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}
    page = {"index": 0, "markdown": "hello", "images": [], "dimensions": None}
    read = {"pages": [page], "model": "m", "usage_info": {"pages_processed": 3}}
    wrapped = wrap(mistralai.Mistral(api_key="k"))

    async def handler(_job):
        await wrapped.fim.complete_async(model="m", prompt="def f(")
        await wrapped.agents.complete_async(
            agent_id="a", messages=[{"role": "user", "content": "x"}]
        )
        document = {"type": "document_url", "document_url": "https://x.test/a.pdf"}
        await wrapped.ocr.process_async(model="m", document=document)

    with mocked("") as router:
        for path, answer in (
            ("fim/completions", body),
            ("agents/completions", body),
            ("ocr", read),
        ):
            router.post(f"https://api.mistral.ai/v1/{path}").respond(json=answer)
        ended = await run(handler)

    assert ended.job.state == "completed", ended.job.error
    assert ended.text == "hellohello"
    assert ended.tokens == {"input": 6, "output": 2}
    counts = [call["details"].get("counts") for call in ended.job.usage.calls]
    assert sorted(counts, key=bool) == [None, None, {"pages": 3}]


# -- what is not metered ---------------------------------------------------------


def told(caplog):
    """What was logged of calls that are not metered, by its first words."""
    lines = [line.getMessage() for line in caplog.records if line.name == "glidemq_llm"]
    return [line.partition(" of a wrapped client")[0] for line in lines if "NOT metered" in line]


async def test_what_costs_money_and_is_not_metered_says_so_once(client, router, run, caplog):
    answers(router, "audio/speech", "sound")
    answers(router, "batches", {"id": "b"})
    answers(router, "threads/t1/runs", {"id": "r"})
    answers(router, "threads/t2/runs", {"id": "r"})
    answers(router, "moderations", {"id": "free", "model": "m", "results": []})
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    answers(
        router, "embeddings", {"data": [vector], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    )
    wrapped = wrap(client)

    async def handler(_job):
        for one in (wrapped, wrapped.with_options(timeout=20)):
            await one.moderations.create(input="x")
            await one.embeddings.create(model="m", input="x", encoding_format="float")
        for thread in ("t1", "t2"):
            await wrapped.audio.speech.create(model="m", voice="v", input="x")
            await wrapped.batches.create(
                input_file_id="f", endpoint="/v1/responses", completion_window="24h"
            )
            await wrapped.post(f"/threads/{thread}/runs", cast_to=object, body={})

    await handler(None)
    assert told(caplog) == []
    ended = await run(handler)

    assert ended.job.state == "completed"
    assert told(caplog) == ["POST /audio/speech", "POST /batches", "POST /threads/*/runs"]
    assert ended.tokens == {"input": 6}


@pytest.mark.parametrize("resource", ["responses", "realtime"])
async def test_web_sockets_are_not_metered_and_say_so(client, run, caplog, resource):
    wrapped = wrap(client)

    async def handler(_job):
        holder = getattr(wrapped, resource)
        holder.connect(**({"model": "m"} if resource == "realtime" else {}))
        return type(holder).__name__

    await handler(None)
    assert told(caplog) == []
    ended = await run(handler)

    assert ended.job.state == "completed", ended.job.error
    assert told(caplog) == [f"{resource}.connect"]


async def test_batches_of_anthropic_are_not_metered_and_say_so(provider, model, plan, run, caplog):
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k", max_retries=0) as one:
        wrapped = wrap(one)

        async def handler(_job):
            for resource in (wrapped.messages, wrapped.beta.messages):
                with pytest.raises(anthropic.NotFoundError):  # the fake provider has none
                    await resource.batches.create(requests=[])
            turn = [{"role": "user", "content": "say it"}]
            await wrapped.messages.create(model=model, messages=turn, max_tokens=9)

        ended = await run(handler)

    assert told(caplog) == ["POST /v1/messages/batches"]
    assert ended.tokens == provider.billed(model=model)


async def test_other_vendors_say_so_too(provider, run, caplog):
    genai, boto3 = pytest.importorskip("google.genai"), pytest.importorskip("boto3")
    http = {"base_url": provider.url, "api_version": "v1beta"}
    google = genai.Client(api_key="k", http_options=http)
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    bedrock = boto3.client("bedrock-runtime", endpoint_url=provider.url, **keys)
    filming, invoking = wrap(google).aio.models, wrap(bedrock)

    async def handler(_job):
        # Only some platforms have them, and the fake provider has none.
        with pytest.raises((ValueError, genai.errors.ClientError)):
            await filming.generate_videos(model="m", source={"prompt": "a cat"})

    def in_thread(_job):
        with pytest.raises(invoking.exceptions.ClientError):
            invoking.invoke_model(modelId="m", body=b"{}")

    ended = [await run(one) for one in (handler, in_thread)]

    assert [one.job.state for one in ended] == ["completed"] * 2, [one.job.error for one in ended]
    assert told(caplog) == ["generate_videos", "invoke_model"]
    await google.aio.aclose()
    google.close()
    bedrock.close()


@pytest.mark.skipif(not importlib.util.find_spec("litellm"), reason="litellm: make litellm")
@pytest.mark.filterwarnings("ignore")
class TestLiteLLM:
    """Its functions of the same kinds."""

    async def test_images_and_transcripts_are_booked_as_the_provider_says(self, router, run):
        import litellm

        answers(router, "images/generations", IMAGES)
        answers(router, "images/edits", IMAGES)
        answers(router, "audio/transcriptions", HEARD)
        wrapped = wrap(litellm)
        at = {"api_base": BASE, "api_key": "k"}

        async def handler(_job):
            await wrapped.aimage_generation(prompt="a cat", model="openai/gpt-image-1", **at)
            await wrapped.aimage_edit(
                image=b"\x89PNG", prompt="a cat", model="openai/gpt-image-1", **at
            )
            heard = await wrapped.atranscription(
                model="openai/gpt-4o-transcribe", file=("a.wav", b"RIFF"), **at
            )
            return heard.text

        ended = await run(handler)

        assert ended.job.result == "hello"
        booked = [dict(call["tokens"]) for call in ended.job.usage.calls]
        for tokens in (IMAGE_TOKENS, IMAGE_TOKENS, HEARD_TOKENS):
            booked.remove(tokens)
        assert booked == []
        assert [chunk.type for chunk in ended.chunks] == ["end"]

    async def test_ranking_is_booked_by_its_searches(self, router, run):
        import litellm

        ranked = {
            "id": "x",
            "results": [{"index": 0, "relevance_score": 0.5}],
            "meta": {"billed_units": {"search_units": 1}},
        }
        router.post("https://x.test/v2/rerank").respond(json=ranked)
        wrapped = wrap(litellm)

        async def handler(_job):
            await wrapped.arerank(
                model="cohere/rerank-v3.5",
                query="x",
                documents=["a"],
                api_base="https://x.test",
                api_key="k",
            )

        ended = await run(handler)

        assert ended.job.usage.calls[0]["details"]["counts"] == {"search_units": 1}

    @pytest.mark.parametrize("kind", ["module", "router"])
    async def test_what_costs_money_and_is_not_metered_says_so_once(
        self, router, run, caplog, kind
    ):
        import litellm

        answers(router, "audio/speech", "sound")
        at = {"model": "openai/tts-1", "api_base": BASE, "api_key": "k"}
        models = [{"model_name": "openai/tts-1", "litellm_params": at}]
        wrapped = wrap(litellm if kind == "module" else litellm.Router(model_list=models))
        asked = at if kind == "module" else {"model": "openai/tts-1"}

        async def handler(_job):
            for _ in range(2):
                await wrapped.aspeech(input="x", voice="v", **asked)

        caplog.set_level(logging.WARNING, "glidemq_llm")
        ended = await run(handler)

        assert ended.job.state == "completed", ended.job.error
        assert told(caplog) == ["aspeech"]

    def test_every_function_that_is_named_exists(self):
        import litellm

        from glidemq_llm.providers import litellm as adapter

        for name in adapter._METHODS:
            assert hasattr(litellm, name), name
        for name in adapter._SYNC_PAID:
            places = [
                hasattr(o, f"{a}{name}") for o in (litellm, litellm.Router) for a in ("", "a")
            ]
            assert any(places), name


def documented(client):
    """The calls that docs/metering.md names for a client."""
    rows = (ROOT / "docs" / "metering.md").read_text("utf-8").splitlines()
    (row,) = (row for row in rows if row.startswith(f"| {client}"))
    return set(re.findall("`([^`]+)`", row.split("|")[2]))


def test_what_is_said_to_be_metered_is():
    from glidemq_llm.providers import litellm, openai

    hooks = {f"{hook.path}.{hook.method}" for hook in openai._HOOKS if "beta" not in hook.path}
    helpers = {"chat.completions.stream", "responses.stream"}  # they call the others

    assert documented("openai") == hooks | helpers | {"beta"}
    assert documented("litellm") == {hook.method for hook in litellm._PLACED} | {"a"}


def test_hooks_name_methods_that_exist():
    from glidemq_llm.providers import openai as adapter

    client = openai.AsyncOpenAI(base_url=BASE, api_key="k")
    for hook in adapter._HOOKS:
        holder = _hooks.resource(client, hook.path)
        assert holder is None or hasattr(holder, hook.method), hook
