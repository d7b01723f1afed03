"""Every adapter against providers that others have written, inside of real jobs with a budget: how the job ends, what its
reader keeps, what is booked, and how many calls the server has seen.

What a server lacks is in `_LACKS`, with the reason; the project's own fake provider does everything for all APIs
(test_wrap_life.py, test_wrap_vendors.py).
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from glidemq_core import Chunk, Job, kept_text
from glidemq_llm import wrap
from tests.harness.llm_clients import (
    Anthropic,
    Api,
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
from tests.harness.mock_servers import TEXT, AIMock, LLMock, MockLLM, MockServer

# Some of these SDKs leave their connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

# Where an API is on a server, by the server's address.
_AT = {
    (LLMock, Anthropic): "/anthropic",
    (LLMock, Gemini): "/gemini",
    (LLMock, Cohere): "/cohere",
}
_CHAT = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}
_SIDES = {"input_tokens": 20, "output_tokens": 9}
# Usage as aimock's fixtures name it; without, it makes figures up, and some are 0.
_USAGE = {
    OpenAIResponses: {**_SIDES, "total_tokens": 29},
    Anthropic: _SIDES,
    Gemini: {"promptTokenCount": 20, "candidatesTokenCount": 9, "totalTokenCount": 29},
}
_PAIRS = (
    *((LLMock, kind) for kind in (OpenAIChat, OpenAIResponses, Anthropic)),
    *((LLMock, kind) for kind in (Gemini, Mistral, Cohere)),
    *((AIMock, kind) for kind in (OpenAIChat, OpenAIResponses, Anthropic)),
    *((AIMock, kind) for kind in (Gemini, Cohere, Ollama, Bedrock)),
)
_LACKS: dict[tuple[object, str], str] = {
    (LLMock, "overload"): "llmock's errors have an error's status",
    (AIMock, "truncate"): "aimock ends a stream early only by breaking its connection",
    (Cohere, "malformed"): "the SDK leaves out events that it can't read, and only logs it",
}
# Without usage, or with zeros for it: what is booked is an estimate, and says so. (In a stream, in one piece.)
_UNSTATED = {
    *((LLMock, Mistral, True), (MockLLM, OpenAIChat, True)),
    *((AIMock, Ollama, True), (AIMock, Ollama, False)),
}
# botocore refuses how aimock begins a block of text in a stream; tool calls are as they should be.
_TOOLS_ONLY = {(AIMock, Bedrock)}
_HAS_LITELLM = importlib.util.find_spec("litellm") is not None


def _pair(server: type[MockServer], kind: type[Api], *marks: pytest.MarkDecorator):
    return pytest.param((server, kind), id=f"{server.name}-{kind.name}", marks=marks)


PAIRS = [
    *(_pair(server, kind, pytest.mark.vendors) for server, kind in _PAIRS),
    # litellm has an environment of its own, in whose tier these run.
    *(
        _pair(server, LiteLLM, pytest.mark.filterwarnings("ignore"))
        for server in (LLMock, AIMock)
        if _HAS_LITELLM
    ),
]


# An error as the event of a stream is mock-llm's alone. What it streams else is OpenAI's chats.
EVENTS = [
    _pair(MockLLM, OpenAIChat, pytest.mark.vendors),
    *([_pair(MockLLM, LiteLLM, pytest.mark.filterwarnings("ignore"))] if _HAS_LITELLM else ()),
]
OTHER_EVENTS = [_pair(MockLLM, kind, pytest.mark.vendors) for kind in (OpenAIResponses, Gemini)]


class Spent(NamedTuple):
    """How a job ended, with the calls that the server has seen, and what it holds against them."""

    job: Job
    chunks: list[Chunk]
    calls: int
    faults: list[str]
    status: str  # of the usage of an answer, as this server states it for this API

    @property
    def is_answered(self) -> bool:
        """Is the whole answer, and nothing else, the job's result and what a reader is left with, and is it booked?"""
        kept: list[Chunk] = []
        for chunk in self.chunks:
            kept = [] if chunk.type == "reset" else [*kept, chunk]
        arguments = "".join(chunk.content for chunk in kept if chunk.type == "tool_call")
        assert self.job.result == (kept_text(self.chunks) or arguments)
        assert self.statuses[-1] == self.status
        return self.job.result == TEXT or json.loads(self.job.result) == {"text": TEXT}

    @property
    def statuses(self) -> list[str]:
        """How sure the figures of each attempt are, in order."""
        return [call["status"] for call in self.job.usage.calls]

    def count(self, type: str) -> int:
        """How many chunks of a type there are."""
        return sum(chunk.type == type for chunk in self.chunks)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[type[MockServer], MockServer]]:
    """Those that a test has asked for."""
    running: dict[type[MockServer], MockServer] = {}
    yield running
    for server in running.values():
        server.__exit__()


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[type[MockServer], Api]:
    server, kind = request.param
    pytest.importorskip(kind.sdk)
    if server.command() is None:
        pytest.skip(f"{server.name} is not installed (make vendors)")
    return server, kind()


@pytest.fixture
def mock(pair, servers) -> MockServer:
    kind = pair[0]
    if kind not in servers:
        servers[kind] = kind().__enter__()
    return servers[kind]


@pytest.fixture
def plan(pair, mock, model):
    """Say how the next calls of the test's model go."""
    kind, api = pair

    def tell(*steps: str) -> None:
        for reason in (_LACKS.get((one, step)) for one in (kind, type(api)) for step in steps):
            if reason is not None:
                pytest.skip(reason)
        usage = _USAGE.get(type(api), _CHAT)
        mock.plan(model, *steps, usage=usage, tools=(kind, type(api)) in _TOOLS_ONLY)

    return tell


@pytest.fixture
async def clients(pair, mock) -> AsyncIterator[tuple[object, object]]:
    """A patient client, and one that waits for half a second."""
    kind, api = pair
    url = mock.url + _AT.get((kind, type(api)), "")
    address = SimpleNamespace(url=url, openai_url=mock.openai_url)
    patient = api.make(address)
    hasty = patient if api.is_async else api.make(address, read_timeout=0.5)
    yield wrap(patient), wrap(hasty, first_event_timeout=0.5, idle_timeout=0.5)
    await api.close(patient)


@pytest.fixture
def spend(spend, pair, mock, model, clients):
    """Ask for an answer, in a job with a budget."""

    async def to_its_end(
        *, is_stream: bool = True, is_hasty: bool = False, attempts: int = 2
    ) -> Spent:
        # Hasty is only the attempt that meets the silence: under load any other may take its time.
        handler = asking(
            pair[1],
            lambda job: clients[is_hasty and job.attempt == 1],
            model,
            is_stream=is_stream,
        )
        ended = await spend(handler, attempts=attempts, backoff=0.01)
        is_unstated = (pair[0], type(pair[1]), is_stream) in _UNSTATED
        return Spent(
            status="missing" if is_unstated else "complete",
            job=ended.job,
            chunks=ended.chunks,
            calls=await asyncio.to_thread(mock.calls, model),
            faults=await asyncio.to_thread(mock.faults, model),
        )

    return to_its_end


async def test_answer(plan, spend):
    plan()

    ended = await spend()

    assert ended.is_answered
    assert len(ended.statuses) == 1
    assert ended.job.usage.tokens["input"] > 0
    assert ended.job.usage.tokens["output"] > 0
    assert ended.calls == 1


async def test_whole_answer(plan, spend):
    plan()

    ended = await spend(is_stream=False)

    assert ended.is_answered
    assert len(ended.statuses) == 1
    assert ended.calls == 1


@pytest.mark.parametrize(
    ("status", "is_stream"),
    [("429", True), ("429", False), ("500", False), ("503", True), ("529", True)],
    ids=["429-stream", "429-whole", "500-whole", "503-stream", "529-stream"],
)
async def test_passing_refusal_is_one_call_an_attempt_and_costs_nothing(
    plan, spend, status, is_stream
):
    plan(status)

    ended = await spend(is_stream=is_stream)

    assert ended.is_answered
    assert ended.job.attempt == ended.calls == 2
    assert len(ended.statuses) == 1
    assert ended.faults == []


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
async def test_overload_under_status_200_is_asked_for_again(plan, spend, is_stream):
    plan("overload")

    ended = await spend(is_stream=is_stream)

    assert ended.is_answered
    assert ended.job.attempt == ended.calls == 2
    # Not what a handler says that finds no text in an answer.
    assert ended.job.errors[0].error_class not in ("TypeError", "KeyError", "AttributeError")
    assert ended.faults == []


@pytest.mark.parametrize("pair", EVENTS, indirect=True)
async def test_overload_as_an_event_of_a_stream_is_asked_for_again(plan, spend):
    plan("overload", "overload")

    ended = await spend(attempts=3)

    assert ended.is_answered
    assert ended.job.attempt == ended.calls == 3
    assert all("Overloaded" in error.message for error in ended.job.errors)


@pytest.mark.parametrize("pair", OTHER_EVENTS, indirect=True)
async def test_overload_as_an_event_of_a_stream_is_told_by_its_name(plan, spend):
    plan("overload", "overload")

    ended = await spend(attempts=2)

    assert (ended.job.state, ended.job.reason) == ("failed", "error")
    assert ended.job.attempt == ended.calls == 2
    assert all("Overloaded" in error.message for error in ended.job.errors)


@pytest.mark.parametrize("status", ["400", "401"])
async def test_final_refusal_is_sent_once(plan, spend, status):
    plan(status)

    ended = await spend(attempts=3)

    assert (ended.job.state, ended.job.reason) == ("failed", "unrecoverable")
    assert ended.calls == 1
    assert ended.statuses == []
    assert ended.faults == []


@pytest.mark.parametrize("step", ["503", "cut", "truncate"])
async def test_lasting_fault_is_as_many_calls_as_there_are_attempts(plan, spend, step):
    plan(step, step, step)

    ended = await spend(attempts=3)

    assert (ended.job.state, ended.job.reason) == ("failed", "error")
    assert ended.job.attempt == ended.calls == 3
    assert set(ended.statuses) <= {"partial", "missing"}


@pytest.mark.parametrize("step", ["cut", "truncate", "stall", "malformed"])
async def test_broken_stream_is_withdrawn_flagged_and_asked_for_again(plan, spend, step):
    plan(step)

    ended = await spend(is_hasty=step == "stall")

    assert ended.is_answered
    assert ended.job.attempt == ended.calls == 2
    assert all(status in ("partial", "missing") for status in ended.statuses[:-1])
    assert ended.count("reset") == (ended.count("start") > 1)
    assert ended.faults == []


async def test_answer_that_can_not_be_read_is_asked_for_again(pair, plan, spend):
    if pair[0] is LLMock:
        pytest.skip("llmock breaks streams only")
    plan("malformed")

    ended = await spend(is_stream=False)

    assert ended.is_answered
    assert ended.job.attempt == ended.calls == 2


async def test_silence_before_the_first_byte_is_asked_for_again(plan, spend):
    plan("slow")

    ended = await spend(is_hasty=True)

    assert ended.is_answered
    assert ended.job.attempt == ended.calls == 2
    assert ended.faults == []
