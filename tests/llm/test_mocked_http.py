"""Every adapter with mocked HTTP (respx; botocore's own hook for boto3): errors, faults of streams and of the transport,
inside of real jobs with a budget.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from glidemq_core import Worker, sse
from glidemq_llm import wrap
from tests.harness.llm_clients import (
    Anthropic,
    Bedrock,
    Cohere,
    Gemini,
    LiteLLM,
    Mistral,
    Ollama,
    OpenAIChat,
    OpenAIResponses,
    asking,
)
from tests.harness.mocked_http import INPUT, TEXT, URL, WORDS, Answer, Fault, Mocked, Wire
from tests.harness.processes import eventually

# Some of these SDKs leave their connections to the garbage collector.
pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]

KINDS = [
    *(OpenAIChat, OpenAIResponses, Anthropic, Gemini, Mistral, Cohere, Ollama, Bedrock),
    *(
        # Its own code warns of deprecations.
        [pytest.param(LiteLLM, marks=pytest.mark.filterwarnings("ignore"), id="litellm")]
        if importlib.util.find_spec("litellm")
        else ()
    ),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def api(request):
    pytest.importorskip(request.param.sdk)
    return request.param()


@pytest.fixture
def wire(api, model) -> Wire:
    return Wire(api, model)


@pytest.fixture
def http():
    with Mocked() as mocked:
        yield mocked


@pytest.fixture
async def client(api, http) -> AsyncIterator[object]:
    made = api.make(SimpleNamespace(url=URL, openai_url=f"{URL}/v1"))
    if not api.is_async:
        http.watch_boto(made)
    yield made
    await api.close(made)


@pytest.fixture
def ask(api, client, model, spend):
    """Run a job that asks for an answer."""
    wrapped = wrap(client)

    async def run(*, is_stream=True, attempts=2, **options):
        handler = asking(api, lambda _job: wrapped, model, is_stream=is_stream)
        return await spend(handler, attempts=attempts, backoff=0.01, **options)

    return run


@pytest.fixture
def good(wire):
    """A stream that ends well."""
    return lambda: Answer(*wire.begun(), *wire.finish(), type=wire.type)


async def closed(http: Mocked, count: int) -> None:
    """Of so many calls each is closed: after its job's end, where an SDK leaves that to the garbage collector."""
    assert http.calls == count
    await eventually(lambda: http.closed == count)


async def test_stream(http, ask, good):
    http.answer(good())

    ended = await ask()

    assert ended.job.result == ended.text == TEXT
    assert ended.tokens == {"input": INPUT, "output": len(WORDS)}
    assert ended.statuses == ["complete"]
    await closed(http, 1)


async def test_whole_answer(http, ask, wire):
    http.answer(Answer(wire.whole()))

    ended = await ask(is_stream=False)

    assert ended.job.result == ended.text == TEXT
    assert ended.tokens == {"input": INPUT, "output": len(WORDS)}
    assert ended.statuses == ["complete"]
    assert http.calls == 1


@pytest.mark.parametrize("status", [408, 429, 503, 529])
async def test_passing_refusal_is_one_call_an_attempt_and_costs_nothing(
    http, ask, wire, good, status
):
    if (wire.name, status) == ("bedrock", 408):
        pytest.skip("there it is the model that has taken too long")
    http.answer(Answer(wire.error(status), status=status), good())

    ended = await ask()

    assert ended.job.result == TEXT
    assert ended.job.attempt == http.calls == 2
    assert ended.statuses == ["complete"]


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_final_refusal_is_sent_once_and_costs_nothing(http, ask, wire, status):
    http.answer(Answer(wire.error(status), status=status))

    ended = await ask(attempts=3)

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")
    assert http.calls == 1
    assert ended.tokens == {}


async def test_wait_that_was_asked_for_is_kept(http, ask, wire, good):
    late = Answer(wire.error(429), status=429, retry_after="1")
    http.answer(late, good())
    begun = time.monotonic()

    ended = await ask()

    assert ended.job.result == TEXT
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_page_in_html_is_an_error_and_asked_for_again(http, ask, wire, status, is_stream):
    page = b"<html><head><title>Bad gateway</title></head><body>" + b"<p>no</p>" * 500 + b"</body>"
    http.answer(
        Answer(page, status=status, type="text/html"),
        Answer(*wire.begun(), *wire.finish(), type=wire.type)
        if is_stream
        else Answer(wire.whole()),
    )

    ended = await ask(is_stream=is_stream)

    assert ended.job.result == TEXT
    assert ended.job.attempt == http.calls == 2


@pytest.mark.parametrize("end", ["overload", "eof", Fault.CUT, Fault.TIMEOUT])
async def test_broken_stream_is_withdrawn_flagged_and_asked_for_again(http, ask, wire, good, end):
    if (end, wire.name) == ("overload", "mistral"):
        pytest.skip("Mistral has no error events")
    parts = {"overload": [wire.overload()], "eof": []}.get(end, [end])
    http.answer(Answer(*wire.begun(3), *parts, type=wire.type), good())

    ended = await ask()

    assert ended.job.result == ended.text == TEXT
    assert ended.job.attempt == http.calls == 2
    assert len(ended.of("reset")) == 1
    flagged, whole = sorted(ended.job.usage.calls, key=lambda call: call["status"] == "complete")
    assert whole["status"] == "complete"
    assert flagged["status"] in ("partial", "missing")
    assert flagged["details"]["source"] in ("estimated", "mixed")
    assert flagged["tokens"]["input"] > 0
    assert 0 < flagged["tokens"]["output"] < 20
    await closed(http, 2)


async def test_overload_under_status_200_is_told_as_an_overload(api, http, ask, wire):
    if api.name == "mistral":
        pytest.skip("Mistral has no error events")
    http.answer(Answer(*wire.begun(3), wire.overload(), type=wire.type))

    ended = await ask(attempts=1)

    own = {"bedrock": "rate_limit", "gemini": "unavailable"}  # their words for it
    assert ended.of("error")[0].fields["category"] == own.get(api.name, "overloaded")
    assert ended.of("error")[0].fields["retryable"] == "true"


async def test_call_that_never_connected_costs_nothing(http, ask, good):
    http.answer(Fault.REFUSED, good())

    ended = await ask()

    assert ended.job.result == TEXT
    assert ended.job.attempt == http.calls == 2
    assert ended.statuses == ["complete"]


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.CUT])
async def test_answer_that_never_came_may_have_cost_its_input(http, ask, wire, good, fault):
    http.answer(fault, good())

    ended = await ask()

    assert ended.job.result == TEXT
    assert ended.job.attempt == http.calls == 2
    assert ended.statuses == ["complete", "missing"]


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
async def test_boto3s_own_retries_are_off_inside_of_a_job(http, model, spend, mode):
    pytest.importorskip("boto3")
    api = Bedrock()
    client = api.make(SimpleNamespace(url=URL), retries={"mode": mode, "max_attempts": 5})
    http.watch_boto(client)
    wire, wrapped = Wire(api, model), wrap(client)
    good = Answer(*wire.begun(), *wire.finish(), type=wire.type)
    http.answer(Answer(wire.error(503), status=503), Answer(wire.error(429), status=429), good)

    ended = await spend(asking(api, lambda _job: wrapped, model), attempts=3, backoff=0.01)

    client.close()
    assert ended.job.result == TEXT
    assert ended.job.attempt == http.calls == 3


# -- what no provider should send ----------------------------------------------


@pytest.mark.faults  # some SDKs take seconds for it
async def test_ten_megabytes_in_one_event_are_taken_in_and_booked(measured, http, wire, queue, url):
    huge = "x" * 10_000_000  # more than a job's stream keeps
    http.answer(Answer(*wire.begun(0), wire.token(huge), *wire.finish(), type=wire.type))

    async with Worker(queue.name, measured, connection=url):
        job = await queue.add("job")
        assert await job.result(timeout=40) == len(huge)

    found = await job.snapshot()
    assert [call["status"] for call in found.usage.calls] == ["complete"]


@pytest.fixture
def measured(api, client, model):
    """A handler that returns the length of the answer: a result has a limit."""
    handler = asking(api, lambda _job: wrap(client), model)

    async def on_loop(job):
        return len(await handler(job))

    return on_loop if api.is_async else lambda job: len(handler(job))


@pytest.fixture
async def warm(measured, http, good, run):
    """What an SDK does at its first call takes time."""
    http.answer(good())
    await run(measured)


@pytest.mark.usefixtures("warm")
async def test_endless_answer_ends_with_the_jobs_time_and_is_booked(http, ask, wire):
    endless = Answer(type=wire.type)
    tokens = (wire.token(f"more{number} ") for number in itertools.count())
    endless.body = itertools.chain(wire.begun(0), tokens)
    http.answer(endless)

    ended = await ask(attempts=1, timeout=1)

    assert ended.job.error.error_class.endswith("JobTimeout")
    assert ended.tokens["output"] > 10
    assert ended.statuses != ["complete"]
    await closed(http, 2)


async def test_bytes_that_are_no_text_are_replaced_or_asked_for_again(http, ask, wire, good):
    token = wire.token("bad")
    if wire.name == "bedrock":
        pytest.skip("its events have checksums: none arrives changed")
    odd = token.replace(b"bad", b"\xff\xfe\xc3")
    http.answer(Answer(*wire.begun(), odd, *wire.finish(), type=wire.type), good())

    ended = await ask()

    assert ended.job.result == ended.text
    assert ended.job.result.startswith(TEXT)
    assert set(ended.job.result.removeprefix(TEXT)) <= {"\ufffd"}
    assert ended.job.attempt == http.calls


FIGURES = ["-5", "NaN", "1e999", str(10**30), "{}"]


@pytest.mark.parametrize("figure", FIGURES)
async def test_figures_that_are_none_are_never_booked(http, ask, wire, good, figure):
    if wire.name == "bedrock":
        pytest.skip("its events have checksums: see test_odd_events.py")
    finish = [
        re.sub(rb'(?<="): ?(?:5|25)(?=[,}])', b": " + figure.encode(), event)
        for event in wire.finish()
    ]
    assert finish != wire.finish()
    http.answer(Answer(*wire.begun(), *finish, type=wire.type), good())

    ended = await ask()

    assert ended.job.result == ended.text == TEXT
    for call in ended.job.usage.calls:
        assert all(0 <= count < 1000 for count in call["tokens"].values())
        assert call["tokens"].get("output", 0) > 0


async def test_text_that_looks_like_events_stays_text(http, ask, wire):
    odd = 'a\r\n\r\nevent: end\r\ndata: {"type": "end"}\r\n\r\nid: 0\n\n\x00\u2028b'
    http.answer(Answer(*wire.begun(), wire.token(odd), *wire.finish(), type=wire.type))

    ended = await ask(attempts=1)

    assert ended.job.result == ended.text == TEXT + odd
    sent = b"".join(sse.encode(chunk) for chunk in ended.chunks).decode()
    assert sent.count("\n\n") == len(ended.chunks)
    assert [line for line in sent.splitlines() if line.startswith("event: end")] == ["event: end"]


@pytest.mark.faults  # so many chunks take seconds
async def test_ten_thousand_choices_in_one_event_are_ten_thousand_chunks(http, ask, wire, good):
    if wire.name not in ("openai.chat", "mistral"):
        pytest.skip("it has no choices" if wire.name != "litellm" else "litellm takes minutes")
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    many = [{**choice, "index": index} for index in range(10_000)]
    event = b"data: %s\n\n" % json.dumps({**chunk, "choices": many}).encode()
    http.answer(Answer(event, *wire.begun(), *wire.finish(), type=wire.type))

    ended = await ask(attempts=1)

    assert ended.job.state == "completed"
    assert len(ended.of("content")) in (len(WORDS) + 1, len(WORDS) + 10_000)
    assert ended.statuses == ["complete"]
