"""Real clients, in the handlers of real jobs, against a fake provider in a process of its own.

provider   the provider; its log says what it billed
model      a model's name of the test's own, so that its calls and plans are told from those of others
run        runs a handler as a job to its end; answers the job, its chunks and its result
spend      the same with a budget, which must add up however the job ends
api        each test runs once for each API: how its clients are made and asked
vendor     the same for the other vendors
mocked     respx in front of the HTTP library that an SDK uses
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import anthropic
import openai
import pytest
import respx
import respx.mocks

from glidemq_core import Budget, Chunk, Job, Queue, Worker, kept_text
from glidemq_core.ledger import Ledger
from tests.harness.llm_clients import (
    Anthropic,
    Api,
    Cohere,
    Gemini,
    LiteLLM,
    LiteLLMResponses,
    Mistral,
    Ollama,
    OpenAIChat,
    OpenAIResponses,
)
from tests.harness.provider import Behaviour, Provider

# Before its first import: no price table from the network, and the HTTP library that can be mocked.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("DISABLE_AIOHTTP_TRANSPORT", "True")

HAS_LITELLM = importlib.util.find_spec("litellm") is not None
NO_LITELLM = "litellm is not installed (it is tested with the older majors: make litellm)"

if "httpcore2" not in respx.mocks.Mocker.registry:

    class HTTPCore2Mocker(respx.mocks.HTTPCoreMocker):
        """The HTTP library of anthropic from 1.0 and openai from 3.0."""

        name = "httpcore2"
        targets: ClassVar = [
            target.replace("httpcore.", "httpcore2.", 1)
            for target in respx.mocks.HTTPCoreMocker.targets
        ]


def http_of(sdk: str) -> str:
    """Which HTTP library an SDK uses, as respx names it."""
    is_old = sdk == "openai" and openai.VERSION.startswith("2.")
    return "httpcore" if is_old else "httpcore2"


@pytest.fixture
def mocked() -> Callable[[str], AbstractContextManager[respx.MockRouter]]:
    return lambda sdk: respx.mock(using=http_of(sdk), assert_all_called=False)


@pytest.fixture(scope="session")
def session_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with Provider(tmp_path_factory.mktemp("provider") / "log.jsonl") as provider:
        yield provider


@pytest.fixture
def provider(session_provider: Provider) -> Provider:
    return session_provider


@pytest.fixture
def model() -> str:
    return f"m-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A job that has ended."""

    job: Job
    chunks: list[Chunk]

    @property
    def text(self) -> str:
        """What a reader shows in the end."""
        return kept_text(self.chunks)

    @property
    def tokens(self) -> dict[str, int]:
        """What was booked."""
        return dict(self.job.usage.tokens)

    @property
    def statuses(self) -> list[str]:
        """How sure the figures of each call are."""
        return sorted(call["status"] for call in self.job.usage.calls)

    def of(self, type: str) -> list[Chunk]:
        """The chunks of a type."""
        return [chunk for chunk in self.chunks if chunk.type == type]


@pytest.fixture
async def queue(url: str, queue_name: str) -> AsyncIterator[Queue]:
    async with Queue(queue_name, connection=url) as queue:
        yield queue


@pytest.fixture
async def run(queue: Queue, url: str) -> Callable[..., Awaitable[Ended]]:
    async def to_its_end(
        handler: Any,
        data: Any = None,
        *,
        beside: Callable[[Any], Awaitable[None]] | None = None,
        **options: Any,
    ) -> Ended:
        """Run a job; `beside` is given its handle while it runs."""
        async with Worker(queue.name, handler, connection=url):
            job = await queue.add("job", data, **options)
            if beside is not None:
                await beside(job)
            chunks = [chunk async for chunk in job.stream()]
            found = await job.snapshot()
        assert found is not None
        return Ended(job=found, chunks=chunks)

    return to_its_end


@pytest.fixture
async def spend(
    run: Callable[..., Awaitable[Ended]], url: str
) -> AsyncIterator[Callable[..., Awaitable[Ended]]]:
    async with Ledger(connection=url) as ledger:

        async def to_its_end(handler: Any, data: Any = None, **options: Any) -> Ended:
            await ledger.open_budget("b", Budget(max_total_tokens=100_000))
            ended = await run(handler, data, budgets=["b"], **options)
            budget = await ledger.budget("b")
            assert budget is not None
            assert budget.reserved == {}
            assert budget.total_tokens == sum(ended.tokens.values())
            return ended

        yield to_its_end


APIS = (
    OpenAIChat,
    OpenAIResponses,
    Anthropic,
    # Its own code warns of deprecations.
    pytest.param(LiteLLM, marks=pytest.mark.filterwarnings("ignore")),
    pytest.param(LiteLLMResponses, marks=pytest.mark.filterwarnings("ignore")),
)


@pytest.fixture(params=APIS, ids=lambda kind: kind.name)
def api(request: pytest.FixtureRequest) -> Api:
    if request.param.sdk == "litellm" and not HAS_LITELLM:
        pytest.skip(NO_LITELLM)
    return request.param()


@pytest.fixture(params=(Gemini, Mistral, Cohere, Ollama), ids=lambda kind: kind.name)
def vendor(request: pytest.FixtureRequest) -> Api:
    """The same for the SDKs whose functions are metered one by one."""
    pytest.importorskip(request.param.sdk)
    return request.param()


@pytest.fixture
async def client(api: Api, provider: Provider) -> AsyncIterator[Any]:
    made = api.make(provider)
    yield made
    await api.close(made)


@pytest.fixture
def plan(provider: Provider, model: str) -> Callable[..., None]:
    """Say what the next calls of the test's model do."""
    return lambda *behaviours: provider.plan(model, *behaviours)


@pytest.fixture
async def clients(provider):
    found = {
        "openai": openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k"),
        "anthropic": anthropic.AsyncAnthropic(base_url=provider.url, api_key="k"),
    }
    yield found
    for client in found.values():
        await client.close()


@pytest.fixture(params=["openai", "anthropic"])
def name(request, model):
    """The test's model, at each vendor."""
    return f"{request.param}/{model}"


@pytest.fixture
def openai_model(model):
    return f"openai/{model}"


__all__ = ["Behaviour"]
