"""Ready-made handlers for workers."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from glidemq_core.context import RunningJob
from glidemq_core.errors import InvalidOption, UnrecoverableError
from glidemq_llm._drivers import AsyncDriver
from glidemq_llm.classify import classify_error
from glidemq_llm.errors import FallbacksExhausted
from glidemq_llm.metering import MeteredCall, MeterSettings
from glidemq_llm.pricing import Pricing

_RESERVED = frozenset({"model", "messages", "provider", "params"})


def chat_handler(
    clients: Mapping[str, Any],
    *,
    model: str | None = None,
    pricing: Pricing | None = None,
    settings: MeterSettings | None = None,
) -> Callable[[RunningJob], Awaitable[dict[str, Any]]]:
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

    Raises:
        InvalidOption: There is no client, or one of a library that has no adapter.
    """
    if not clients:
        raise InvalidOption("clients", clients, "an empty mapping")
    chat = _Chat(
        backends={name: _backend(name, client) for name, client in clients.items()},
        model=model,
        settings=settings or MeterSettings(pricing=pricing or Pricing()),
    )
    return chat.handle


@dataclass(frozen=True, slots=True)
class _Backend:
    """A client and the module of its provider, which knows how to ask it for a chat."""

    client: Any
    module: Any


def _backend(name: str, client: Any) -> _Backend:
    from glidemq_llm.wrap import package_of

    provider = package_of(client)
    module = importlib.import_module(f"glidemq_llm.providers.{provider}")
    return _Backend(module.quiet(client), module)


@dataclass(frozen=True, slots=True)
class _Chat:
    backends: Mapping[str, _Backend]
    model: str | None
    settings: MeterSettings

    async def handle(self, job: RunningJob) -> dict[str, Any]:
        data = _checked(job.data)
        entries = self._entries(data, job)
        hops: list[dict[str, object]] = []
        for index, entry in enumerate(entries):
            job.fallback_index = index
            call: MeteredCall | None = None
            try:
                backend, provider, model = self._route(entry)
                request = backend.module.chat_request(model, data["messages"], _params(data, entry))
                call = self._call(job, backend, provider, request)
                await _ask(AsyncDriver(job, call), backend, request)
            except Exception as error:
                info = classify_error(error)
                hops.append(_hop(entry, call, error))
                if len(entries) > 1:
                    await job.note_hops(hops)
                if not info.fallback or len(entries) == 1:
                    raise
                if call is not None and call.delivered:
                    await job.reset_stream("fallback", call=call.call_id)
                if index == len(entries) - 1:
                    raise _exhausted(hops) from error
                continue
            if hops:
                await job.note_hops([*hops, _hop(entry, call, None)])
            return _answer(call, index)
        raise AssertionError("there is at least one entry")

    def _entries(self, data: Mapping[str, Any], job: RunningJob) -> list[Mapping[str, Any]]:
        first = data.get("model") or self.model
        if not isinstance(first, str):
            raise UnrecoverableError(
                "the job's data names no model, and the handler has no default"
            )
        return [{"model": first, "provider": data.get("provider")}, *job.fallbacks]

    def _route(self, entry: Mapping[str, Any]) -> tuple[_Backend, str, str]:
        """Who is asked for an entry: (backend, provider, the model's name there)."""
        model = str(entry["model"])
        prefix, slash, rest = model.partition("/")
        provider = entry.get("provider") or (prefix if slash and prefix in self.backends else None)
        if provider in self.backends:
            return (
                self.backends[provider],
                provider,
                rest if slash and prefix == provider else model,
            )
        if "litellm" in self.backends:
            return (
                self.backends["litellm"],
                provider or prefix,
                f"{provider}/{model}" if entry.get("provider") else model,
            )
        if provider is None and len(self.backends) == 1:
            name = next(iter(self.backends))
            return self.backends[name], name, model
        known = ", ".join(sorted(self.backends))
        raise UnrecoverableError(
            f"no client for model {model!r} (provider {provider!r}); there are {known}"
        )

    def _call(
        self, job: RunningJob, backend: _Backend, provider: str, request: Mapping[str, Any]
    ) -> MeteredCall:
        return MeteredCall(
            job.next_call_id(),
            api=backend.module.CHAT_API,
            provider=provider,
            request=request,
            settings=self.settings,
            attempt=job.attempt,
        )


async def _ask(driver: AsyncDriver, backend: _Backend, request: Mapping[str, Any]) -> None:
    """Send the request and read its stream to the end."""
    stream = await driver.open(lambda: backend.module.send_chat(backend.client, request))
    async for _ in driver.events(stream.__aiter__(), lambda _: True):
        pass


def _checked(data: object) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or not isinstance(data.get("messages"), list):  # pyright: ignore[reportUnknownMemberType] a user's data
        raise UnrecoverableError('the data of a chat job is a mapping with "messages": [...]')
    return cast("Mapping[str, Any]", data)


def _params(data: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in data.items() if name not in _RESERVED}
    return {**plain, **(data.get("params") or {}), **(entry.get("params") or {})}


def _hop(
    entry: Mapping[str, Any], call: MeteredCall | None, error: BaseException | None
) -> dict[str, object]:
    settlement = call.settlement if call is not None else None
    cost = settlement.cost if settlement is not None else None
    hop: dict[str, object] = {
        "model": entry["model"],
        "tokens": settlement.usage.total_tokens if settlement is not None else 0,
        "cost": str(cost.total) if cost is not None else None,
    }
    if error is not None:
        info = classify_error(error)
        hop |= {
            "error": str(error)[:500],
            "category": str(info.category),
            "retryable": info.retryable,
        }
        hop |= {"retry_after": info.retry_after} if info.retry_after else {}
    return hop


def _exhausted(hops: list[dict[str, object]]) -> FallbacksExhausted:
    waits = [float(str(hop["retry_after"])) for hop in hops if "retry_after" in hop]
    return FallbacksExhausted(
        [(str(hop["model"]), str(hop["error"])) for hop in hops],
        retryable=any(hop["retryable"] for hop in hops),
        retry_after=min(waits) if waits else None,
    )


def _answer(call: MeteredCall, index: int) -> dict[str, Any]:
    settlement = call.settlement
    if settlement is None:
        raise AssertionError("a call that ended is settled")
    return {
        "text": call.text,
        "tool_calls": call.tool_calls,
        "finish_reason": str(call.finish.reason) if call.finish is not None else "unknown",
        "usage": {
            "tokens": dict(settlement.usage.tokens),
            "total_tokens": settlement.usage.total_tokens,
            "cost": str(settlement.cost.total) if settlement.cost is not None else None,
            "status": settlement.usage.status,
        },
        "model": settlement.usage.model or call.model,
        "provider": call.provider,
        "fallback_index": index,
    }
