"""A stop reaches a sync client that waits in silence: its connection is shut down, and its job ends."""

# ruff: noqa: PLR0917 a test's arguments are its fixtures

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from glidemq_core import Worker
from glidemq_llm import wrap
from glidemq_llm._stuck_reads import _socket_in, end_read
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
)
from tests.harness.processes import eventually
from tests.harness.provider import Behaviour
from tests.harness.tls import Authority, TLSFront

FIVE = "t0 t1 t2 t3 t4 "
HANGS = Behaviour(tokens=20, input=20, faults={10: "hang"})
BEGINS_NOT = Behaviour(tokens=20, input=20, faults={-1: "hang"})
ANSWERS = Behaviour(tokens=5, input=20)
SOON = 1  # seconds, as is promised

# Some of these SDKs leave their connections to the garbage collector.
pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore")]


class AnthropicHelper(Anthropic):
    """`messages.stream()`, which sends when it is entered."""

    name = "anthropic.helper"

    def stream_now(self, client, model):
        turn = [{"role": "user", "content": "say it"}]
        with client.messages.stream(model=model, messages=turn, max_tokens=1000) as stream:
            yield from stream


KINDS = (
    OpenAIChat,
    OpenAIResponses,
    Anthropic,
    AnthropicHelper,
    LiteLLM,
    Gemini,
    Mistral,
    Cohere,
    Ollama,
    Bedrock,
)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def sync_api(request):
    pytest.importorskip(request.param.sdk)
    return request.param()


@pytest.fixture
def sync_client(sync_api, provider):
    made = sync_api.make_now(provider)
    yield made
    sync_api.close_now(made)


@pytest.fixture
def over_tls(provider, tmp_path, monkeypatch):
    """The provider, as its clients see it that speak TLS."""
    authority = Authority(tmp_path / "tls")
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(authority.ca))
    with TLSFront(provider.port, authority.server()) as front:
        url = f"https://localhost:{front.port}"
        yield SimpleNamespace(url=url, openai_url=f"{url}/v1", front=front)


@pytest.fixture
def openai_client(provider):
    with OpenAIChat().make_now(provider) as made:
        yield made


def streaming(api, client, model, **options):
    """A handler that reads a stream to its end and answers its text."""
    wrapped = wrap(client, **options)
    return lambda _job: "".join(api.text(event) for event in api.stream_now(wrapped, model))


def asking(api, client, model, **options):
    """The same for an answer in one piece."""
    wrapped = wrap(client, **options)
    return lambda _job: api.whole_now(wrapped, model)


class Stop:
    """Stops a job whose provider has fallen silent, and looks when the provider saw it."""

    def __init__(self, provider, model):
        self._provider = provider
        self._model = model
        self.at = 0.0

    async def __call__(self, job):
        await self.silence(job)
        await self.now(job)

    async def now(self, job):
        """Stop it whatever the provider does."""
        self.at = time.monotonic()
        await job.cancel()

    @property
    def call(self):
        """The test's newest call, as the provider's log has it."""
        return self._provider.calls(model=self._model)[-1]

    async def silence(self, job):
        """Wait until the provider hangs, and all that it has said before was read."""
        await self._until(lambda: self.call.number in {e["call"] for e in self._hangs()})
        if self.call.is_stream:
            async for chunk in job.stream():
                if "t9" in chunk.content:
                    break

    async def seconds(self):
        """How long after the stop the provider saw the end of its connection."""
        return (await self._closed()).ended - self.at

    async def open_for(self):
        """How long its connection was open."""
        call = await self._closed()
        return call.ended - call.started

    async def _closed(self):
        await self._until(lambda: self.call.ended is not None)
        assert self.call.outcome == "caller left"
        return self.call

    def _hangs(self):
        return self._provider.events("hang")

    async def _until(self, is_true):
        await eventually(lambda: self._provider.calls(model=self._model) and is_true(), 20)


@pytest.fixture
def stop(provider, model):
    return Stop(provider, model)


async def test_cancel_ends_a_stream_that_is_silent(
    sync_api, sync_client, provider, model, plan, run, stop
):
    plan(HANGS, ANSWERS)
    handler = streaming(sync_api, sync_client, model)

    ended = await run(handler, attempts=3, beside=stop)

    assert await stop.seconds() < SOON
    assert ended.job.state == "cancelled"
    assert ended.text.startswith("t0 ")
    assert ended.tokens["output"] > 5
    assert ended.statuses in (["partial"], ["missing"])
    assert ended.of("done")[0].content == "cancelled"
    assert not ended.of("error")
    assert (await run(handler)).job.result == FIVE
    assert len(provider.calls(model=model)) == 2


async def test_cancel_ends_the_wait_for_a_whole_answer(
    sync_api, sync_client, provider, model, plan, run, stop
):
    plan(ANSWERS, BEGINS_NOT, ANSWERS)
    handler = asking(sync_api, sync_client, model)
    assert (await run(handler)).job.result == FIVE  # the next call is made over its connection

    ended = await run(handler, attempts=3, beside=stop)

    assert await stop.seconds() < SOON
    assert ended.job.state == "cancelled"
    assert ended.tokens["input"] > 0
    assert ended.statuses == ["missing"]
    assert (await run(handler)).job.result == FIVE
    assert len(provider.calls(model=model)) == 3


@pytest.mark.parametrize("plans", [(HANGS,), (BEGINS_NOT,)], ids=["stream", "whole"])
async def test_cancel_ends_the_wait_over_tls(
    sync_api, over_tls, provider, model, plan, run, stop, plans
):
    plan(*plans, ANSWERS)
    client = sync_api.make_now(over_tls)
    handler = (streaming if plans == (HANGS,) else asking)(sync_api, client, model)

    ended = await run(handler, attempts=3, beside=stop)

    assert await stop.seconds() < SOON
    assert ended.job.state == "cancelled"
    assert (await run(handler)).job.result == FIVE
    assert over_tls.front.connections
    assert len(provider.calls(model=model)) == 2
    sync_api.close_now(client)


async def test_cancel_ends_a_stream_that_moves(
    sync_api, sync_client, provider, model, plan, run, stop
):
    plan(Behaviour(tokens=400, pace=0.02, input=20, faults={3: f"gate:{model}"}))

    async def cancel(job):
        async for chunk in job.stream():
            if "t2" in chunk.content:
                break
        provider.open(model)
        await stop.now(job)

    ended = await run(streaming(sync_api, sync_client, model), beside=cancel)

    assert await stop.seconds() < SOON
    assert ended.job.state == "cancelled"
    assert 2 < ended.tokens["output"] < 200
    assert ended.of("done")[0].content == "cancelled"


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_time_that_runs_out_ends_the_wait(openai_client, model, plan, run, stop, is_stream):
    plan(ANSWERS, HANGS)
    handler = (streaming if is_stream else asking)(OpenAIChat(), openai_client, model)
    await run(handler)  # what the SDK does at its first call takes time, too

    ended = await run(handler, timeout=1)

    assert await stop.open_for() < 1 + SOON
    assert ended.job.error.error_class.endswith("JobTimeout")
    assert sum(ended.tokens.values()) > 0


async def test_worker_that_stops_does_not_wait_for_a_silent_provider(
    openai_client, provider, model, plan, queue, url, stop
):
    plan(HANGS)
    handler = streaming(OpenAIChat(), openai_client, model)

    async with Worker(queue.name, handler, connection=url) as worker:
        job = await queue.add("job", None)
        await stop.silence(job)
        stop.at = time.monotonic()
        await worker.stop(grace=0)
        assert await stop.seconds() < SOON

    found = await job.snapshot()
    assert (found.state, found.attempt) == ("waiting", 1)
    assert found.usage.tokens["output"] > 5


async def test_stop_that_comes_before_the_silence_ends_it(openai_client, model, plan, run, stop):
    plan(HANGS)
    wrapped = wrap(openai_client)
    api = OpenAIChat()

    def handler(job):
        stream = api.stream_now(wrapped, model)
        for event in stream:
            if api.text(event) == "t9 ":
                while not job.cancelled:
                    time.sleep(0.005)

    ended = await run(handler, beside=stop)

    assert await stop.seconds() < SOON
    assert ended.job.state == "cancelled"


async def test_stopped_run_sends_nothing_more(openai_client, provider, model, plan, run, stop):
    plan(HANGS, ANSWERS)
    wrapped = wrap(openai_client)
    api = OpenAIChat()

    def handler(_job):
        try:
            list(api.stream_now(wrapped, model))
        finally:
            api.whole_now(wrapped, model)

    ended = await run(handler, beside=stop)

    assert ended.job.state == "cancelled"
    assert len(provider.calls(model=model)) == 1


async def test_other_calls_of_the_client_go_on(
    openai_client, provider, model, plan, queue, url, stop
):
    provider.plan(f"{model}-other", Behaviour(tokens=5, faults={3: f"gate:{model}"}))
    plan(HANGS)
    wrapped = wrap(openai_client)
    api = OpenAIChat()

    def handler(job):
        return "".join(api.text(event) for event in api.stream_now(wrapped, job.data))

    async with Worker(queue.name, handler, connection=url, concurrency=2):
        other = await queue.add("job", f"{model}-other")
        job = await queue.add("job", model)
        await stop(job)
        assert await stop.seconds() < SOON
        provider.open(model)
        assert await other.result() == FIVE

    assert (await job.snapshot()).state == "cancelled"


async def test_draining_in_silence_is_bounded(openai_client, model, plan, run, stop):
    plan(HANGS)
    handler = streaming(OpenAIChat(), openai_client, model, on_cancel="drain", drain_timeout=0.5)

    ended = await run(handler, beside=stop)

    assert 0.4 < await stop.seconds() < 5
    assert ended.job.state == "cancelled"
    assert ended.tokens["output"] > 5


async def test_read_of_somebody_else_is_left_alone():
    ours, theirs = socket.socketpair()
    got = []
    reader = threading.Thread(target=lambda: got.append(SyncStream(ours).read()))
    reader.start()
    try:
        while not any(_socket_in(frame) is ours for frame in sys._current_frames().values()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        end_read(object())
        theirs.sendall(b"word")
    finally:
        reader.join()
        ours.close()
        theirs.close()

    assert got == [b"word"]


class SyncStream:
    """As an HTTP library waits."""

    def __init__(self, sock):
        self._sock = sock

    def read(self):
        return self._sock.recv(10)
