"""Ready-made handlers for workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from glidemq_core.context import RunningJob
from glidemq_core.errors import InvalidOption, UnrecoverableError
from glidemq_llm._ask import (
    Chat,
    Convert,
    Handler,
    answer_of,
    chat_data,
    mapping_with,
    new_call,
    params_of,
    read_stream,
    usage_of,
)
from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._fallback import Backend, Hop, Route, backends_of, first_that_answers, routes_of
from glidemq_llm._read import fields, items
from glidemq_llm.metering import MeteredCall
from glidemq_llm.pricing import Pricing
from glidemq_llm.settings import MeterSettings

Store: TypeAlias = Callable[[RunningJob, int, list[Sequence[float]]], Awaitable[object]]


def chat_handler(
    clients: Mapping[str, Any],
    *,
    model: str | None = None,
    pricing: Pricing | None = None,
    settings: MeterSettings | None = None,
    fallback_on: Collection[str] | None = None,
    convert: Convert | None = None,
) -> Handler:
    """A handler for chat jobs: streams the answer into the job, books its use, walks the job's fallbacks.

    A job's data: `{"messages": [...], "model": "openai/gpt-5-mini", ...}` in the chat format; further keys and those
    in `params` go to the provider as they are (`temperature`, `max_tokens`, `tools`, ...).

    The result: `{"text", "tool_calls", "finish_reason", "usage", "model", "provider", "fallback_index"}`.

    Args:
        clients: Async clients by provider name, plain or wrapped: `{"openai": AsyncOpenAI()}`. The name is what stands
            before the slash in a model's name. A litellm function serves every provider that has no client, under
            the name "litellm".
        model: For jobs that name none.
        pricing: Where prices come from.
        settings: How calls are metered; beats `pricing`.
        fallback_on: The categories of errors after which the next model of `fallbacks` is asked. Default: all that
            another model may do better; not invalid requests, refusals and filtered content.
        convert: Given (provider, messages, params), answers the messages and params for that provider, where the
            built-in conversion of the chat format (text, images, tools) is not what you want.

    Raises:
        InvalidOption: There is no client, or one of a library that has no adapter.
    """
    chat = Chat(
        backends=backends_of(clients),
        model=model,
        settings=settings or MeterSettings(pricing=pricing or Pricing()),
        fallback_on=fallback_on,
        convert=convert,
    )

    async def handle(job: RunningJob) -> dict[str, Any]:
        data = chat_data(job.data)
        call, index, _ = await chat.ask(job, chat.routes(job, data), data["messages"], data)
        return answer_of(call, index)

    return handle


def responses_handler(
    clients: Mapping[str, Any],
    *,
    model: str | None = None,
    pricing: Pricing | None = None,
    settings: MeterSettings | None = None,
    fallback_on: Collection[str] | None = None,
) -> Handler:
    """The same for OpenAI's Responses API.

    A job's data: `{"input": "..." or [...], "model": ...}`; further keys and those in `params` go to the provider
    (`instructions`, `previous_response_id`, `tools`, ...). The result has `response_id` besides.

    Raises:
        InvalidOption: As chat_handler; or a client that has no Responses API.
    """
    backends = backends_of(clients)
    for name, backend in backends.items():
        has_responses = getattr(backend.module, "has_responses", None)
        if has_responses is None or not has_responses(backend.client):
            raise InvalidOption(f"clients[{name!r}]", backend.client, "it has no Responses API")
    responses = _Responses(
        backends=backends,
        model=model,
        settings=settings or MeterSettings(pricing=pricing or Pricing()),
        fallback_on=fallback_on,
    )
    return responses.handle


def embeddings_handler(
    clients: Mapping[str, Any],
    *,
    model: str | None = None,
    pricing: Pricing | None = None,
    batch_size: int = 100,
    store: Store | None = None,
) -> Handler:
    """A handler for embedding jobs: sends the texts in batches, books their use, reports progress.

    A job's data: `{"input": "text" or ["text", ...], "model": ...}`; further keys and those in `params` go to the
    provider. The result: `{"embeddings", "count", "usage", "model", "provider"}`.

    Args:
        batch_size: Texts per request.
        store: Awaited with (job, index of the first text, vectors) for each batch. Then the result has no
            `embeddings`, which may well be larger than a result can be.

    Raises:
        InvalidOption: As chat_handler; or a client that has no embeddings.
    """
    backends = backends_of(clients)
    for name, backend in backends.items():
        if not hasattr(backend.module, "send_embeddings"):
            raise InvalidOption(f"clients[{name!r}]", backend.client, "it has no embeddings")
    if batch_size < 1:
        raise InvalidOption("batch_size", batch_size, "below 1")
    settings = MeterSettings(pricing=pricing or Pricing(), stream=False)
    return _Embeddings(backends, model, settings, batch_size, store).handle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Responses:
    backends: Mapping[str, Backend]
    model: str | None
    settings: MeterSettings
    fallback_on: Collection[str] | None = None

    async def handle(self, job: RunningJob) -> dict[str, Any]:
        data = mapping_with(job.data, "input", "a responses job")
        routes = routes_of(job, self.backends, data, self.model)
        ids: list[str] = []

        def note_id(event: object) -> bool:
            found = fields(fields(event).get("response")).get("id")
            if isinstance(found, str):
                ids[:] = [found]
            return True

        async def ask(route: Route, hop: Hop) -> MeteredCall:
            module = route.backend.module
            request = module.responses_request(route.model, data["input"], params_of(data, route))
            hop.call = new_call(job, route, module.RESPONSES_API, request, self.settings)
            driver = AsyncDriver(job, hop.call)
            await read_stream(
                driver,
                module,
                lambda: module.send_responses(route.backend.client, driver.call.sent(request)),
                note_id,
            )
            return hop.call

        call, index, _ = await first_that_answers(job, routes, ask, self.fallback_on)
        return {**answer_of(call, index), "response_id": ids[0] if ids else None}


@dataclass(frozen=True, slots=True)
class _Embeddings:
    backends: Mapping[str, Backend]
    model: str | None
    settings: MeterSettings
    batch_size: int
    store: Store | None

    async def handle(self, job: RunningJob) -> dict[str, Any]:
        data = mapping_with(job.data, "input", "an embeddings job")
        given = data["input"]
        texts = [given] if isinstance(given, str) else items(given)
        if not texts:
            raise UnrecoverableError('the "input" of an embeddings job is empty')
        batches = [
            texts[start : start + self.batch_size]
            for start in range(0, len(texts), self.batch_size)
        ]
        routes = routes_of(job, self.backends, data, self.model)

        async def ask(route: Route, hop: Hop) -> MeteredCall:
            found.clear()
            for number, batch in enumerate(batches):
                vectors = await self._send(job, route, hop, batch, params_of(data, route))
                if self.store is not None:
                    await self.store(job, number * self.batch_size, vectors)
                else:
                    found.vectors += vectors
                assert hop.call is not None
                found.add(hop.call)
                await job.progress(
                    {"done": min((number + 1) * self.batch_size, len(texts)), "of": len(texts)}
                )
            assert hop.call is not None
            return hop.call

        found = _Found()
        call, index, _ = await first_that_answers(job, routes, ask, None)
        answer = answer_of(call, index)
        result: dict[str, Any] = {
            name: answer[name] for name in ("model", "provider", "fallback_index")
        }
        result |= {"count": len(texts), "usage": found.usage()}
        return result if self.store is not None else {**result, "embeddings": found.vectors}

    async def _send(
        self, job: RunningJob, route: Route, hop: Hop, batch: list[Any], params: dict[str, Any]
    ) -> list[Sequence[float]]:
        module = route.backend.module
        request = {**params, "model": route.model, "input": batch}
        hop.call = new_call(job, route, module.CHAT_API, request, self.settings, has_answer=False)
        driver = AsyncDriver(job, hop.call)
        answer = await driver.whole(
            lambda: module.send_embeddings(route.backend.client, request), lambda answer: answer
        )
        return module.vectors_of(answer)


@dataclass(slots=True)
class _Found:
    """What the batches of one model have brought so far."""

    vectors: list[Sequence[float]] = field(default_factory=list[Sequence[float]])
    usages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def clear(self) -> None:
        self.vectors, self.usages = [], []

    def add(self, call: MeteredCall) -> None:
        self.usages.append(usage_of(call))

    def usage(self) -> dict[str, Any]:
        tokens: dict[str, int] = {}
        for one in self.usages:
            for name, count in one["tokens"].items():
                tokens[name] = tokens.get(name, 0) + count
        return {"tokens": tokens, "total_tokens": sum(tokens.values()), "calls": len(self.usages)}
