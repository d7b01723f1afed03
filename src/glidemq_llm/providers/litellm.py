"""LiteLLM: `wrap(litellm.acompletion)`, `wrap(litellm.completion)`, or the module for an object with both."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._drivers_sync import SyncDriver
from glidemq_llm._read import fields, items
from glidemq_llm.metering import MeteredCall
from glidemq_llm.providers._hooks import Hook, Wrapping, never, remember, unwrapped
from glidemq_llm.settings import MeterSettings

_API = "openai.chat"
_HOOK = Hook(path="", method="completion", api=_API)
_VECTORS = Hook(path="", method="embedding", api=_API, is_text=False)
_METHODS = {
    "completion": _HOOK,
    "acompletion": _HOOK,
    "embedding": _VECTORS,
    "aembedding": _VECTORS,
}


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered function for a function, a copy for a Router; for the module, a namespace whose other names are the
    module's own.
    """
    if isinstance(client, ModuleType):
        names = {name: getattr(client, name) for name in dir(client) if not name.startswith("__")}
        for name in _METHODS:
            names[name] = _function(names[name], settings, job)
        wrapped = SimpleNamespace(**names)
        remember(wrapped, client)
        return wrapped
    if hasattr(client, "acompletion"):
        return _router(client, settings, job)
    return _function(client, settings, job)


CHAT_API = _API


def quiet(client: Any) -> Any:
    """The async completion function."""
    return unwrapped(getattr(client, "acompletion", client))


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed chat call."""
    options = {**fields(params.get("stream_options")), "include_usage": True}
    return {
        "num_retries": 0,
        "max_retries": 0,
        **params,
        "model": model,
        "messages": messages,
        "stream": True,
        "stream_options": options,
    }


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers LiteLLM's stream."""
    return await client(**request)


def reading(stream: Any) -> tuple[AsyncGenerator[Any], Any]:
    """A stream's events, and what closes it."""
    return _honest_async(stream), stream.aclose


def _router(router: Any, settings: MeterSettings, job: Any) -> Any:
    """A copy of a Router, which shares its deployments and their state."""
    outer = copy.copy(router)
    for name in _METHODS:
        setattr(outer, name, _function(getattr(router, name), settings, job))
    return outer


def _function(plain: Any, settings: MeterSettings, job: Any) -> Any:
    plain = unwrapped(plain)
    make = _async_function if inspect.iscoroutinefunction(plain) else _sync_function
    wrapping = Wrapping(provider="litellm", settings=settings, job=job)
    hook = _METHODS.get(getattr(plain, "__name__", ""), _HOOK)
    metered = functools.wraps(plain)(make(plain, wrapping, hook))
    remember(metered, plain)
    return metered


def _async_function(plain: Any, wrapping: Wrapping, hook: Hook) -> Any:
    async def metered(*args: Any, **kwargs: Any) -> Any:
        current = wrapping.current(is_async=True)
        if current is None:
            return await plain(*args, **kwargs)
        kwargs, is_hidden, call = _prepare(args, kwargs, wrapping, current, hook)
        driver = AsyncDriver(current, call)
        if not kwargs.get("stream"):
            return await driver.whole(
                lambda: plain(*args, **call.sent(kwargs)), lambda answer: answer
            )
        stream = await driver.open(lambda: plain(*args, **call.sent(kwargs)))
        return MeteredAsyncStream(stream, driver, is_hidden)

    return metered


def _sync_function(plain: Any, wrapping: Wrapping, hook: Hook) -> Any:
    def metered(*args: Any, **kwargs: Any) -> Any:
        current = wrapping.current(is_async=False)
        if current is None:
            return plain(*args, **kwargs)
        kwargs, is_hidden, call = _prepare(args, kwargs, wrapping, current, hook)
        driver = SyncDriver(current, call)
        if not kwargs.get("stream"):
            return driver.whole(lambda: plain(*args, **call.sent(kwargs)), lambda answer: answer)
        kwargs.setdefault("timeout", wrapping.settings.longest_silence)
        stream = driver.open(lambda: plain(*args, **call.sent(kwargs)))
        return MeteredStream(stream, driver, is_hidden)

    return metered


def _prepare(
    args: tuple[Any, ...], kwargs: dict[str, Any], wrapping: Wrapping, job: Any, hook: Hook
) -> tuple[dict[str, Any], Callable[[Any], bool], MeteredCall]:
    """The arguments for a metered call: retries off, usage stated; which events to hide; the call."""
    retries = wrapping.settings.sdk_retries
    kwargs = {"num_retries": retries, "max_retries": retries, **kwargs}
    is_hidden: Callable[[Any], bool] = never
    options = dict(fields(kwargs.get("stream_options")))
    if kwargs.get("stream") and "include_usage" not in options:
        kwargs["stream_options"] = {**options, "include_usage": True}
        is_hidden = _is_only_usage
    request = dict(zip(("model", "messages" if hook is _HOOK else "input"), args, strict=False))
    request |= kwargs
    model = str(request.get("model", ""))
    provider = str(
        kwargs.get("custom_llm_provider") or (model.partition("/")[0] if "/" in model else "openai")
    )
    return kwargs, is_hidden, wrapping.call(hook, request, job, provider=provider)


def _is_only_usage(event: Any) -> bool:
    chunk = fields(event)
    usage = getattr(event, "usage", None)
    return usage is not None and not any(
        _says_something(choice) for choice in chunk.get("choices") or ()
    )


def _says_something(choice: Any) -> bool:
    facts = fields(choice)
    delta = fields(facts.get("delta"))
    return bool(
        facts.get("finish_reason")
        or any(delta.get(name) for name in ("content", "tool_calls", "role"))
    )


async def _honest_async(stream: Any) -> AsyncGenerator[Any]:
    """A stream without the last chunk that LiteLLM makes up where the provider's stream just ended: it says "stop" of
    an answer that was cut.
    """
    async for event in stream:
        if _is_made_up(stream, event):
            return
        yield event


def _honest(stream: Any) -> Generator[Any]:
    """See _honest_async."""
    for event in stream:
        if _is_made_up(stream, event):
            return
        yield event


def _is_made_up(stream: Any, event: Any) -> bool:
    said = (
        getattr(stream, name, "no such field")
        for name in ("received_finish_reason", "intermittent_finish_reason")
    )
    return not any(said) and any(
        fields(choice).get("finish_reason") for choice in items(fields(event).get("choices"))
    )


class MeteredAsyncStream:
    """LiteLLM's stream wrapper, metered: iterates as it does, its other attributes are its own."""

    def __init__(self, stream: Any, driver: AsyncDriver, is_hidden: Callable[[Any], bool]) -> None:
        self._stream = stream
        self._events = driver.events(_honest_async(stream), is_hidden, stream.aclose)
        self.aclose = driver.close

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await self._events.__anext__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class MeteredStream:
    """The same for a sync stream."""

    def __init__(self, stream: Any, driver: SyncDriver, is_hidden: Callable[[Any], bool]) -> None:
        self._stream = stream
        self._events = driver.events(_honest(stream), is_hidden)
        self.close = driver.close

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
