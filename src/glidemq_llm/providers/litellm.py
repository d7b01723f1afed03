"""LiteLLM: single functions (`wrap(litellm.acompletion)`), the module for an object with all of them, or a Router.

LiteLLM turns some calls into others: `responses` for a vendor without that API into `completion`, `completion` for a model
that has nothing else into `responses`. It calls its own functions for that, which stay as they were: each call is metered
once, where it is made.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from glidemq_core.errors import InvalidOption
from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._drivers_sync import SyncDriver
from glidemq_llm._read import fields, items
from glidemq_llm.metering import MeteredCall
from glidemq_llm.providers._hooks import Hook, Wrapping, never, remember, unwrapped, watched
from glidemq_llm.settings import MeterSettings

CHAT_API = "openai.chat"
RESPONSES_API = "openai.responses"


def _hook(method: str, api: str, *, is_text: bool = False, has_answer: bool = True) -> Hook:
    return Hook(path="", method=method, api=api, is_text=is_text, has_answer=has_answer)


_PLACED = {  # the names of its first arguments, where it does not say
    _hook("completion", CHAT_API, is_text=True): ["model", "messages"],
    _hook("text_completion", CHAT_API, is_text=True): ["prompt", "model"],
    _hook("embedding", CHAT_API, has_answer=False): ["model", "input"],
    _hook("responses", RESPONSES_API, is_text=True): ["input", "model"],
    _hook("compact_responses", RESPONSES_API): ["input", "model"],
    _hook("image_generation", "openai.media"): ["prompt", "model"],
    _hook("image_edit", "openai.media"): ["image", "prompt", "model"],
    _hook("transcription", "openai.media"): ["model", "file"],
    _hook("rerank", CHAT_API, has_answer=False): ["model", "query", "documents"],
}
# What is paid for and not metered, and whether it is async.
_SYNC_PAID = """
    completion_with_retries responses_with_retries completion_with_fallbacks adapter_completion batch_completion
    batch_completion_models batch_completion_models_all_responses batch_completion_one_model_multiple_requests
    batch_completion_fastest_response generate_content generate_content_stream adapter_generate_content
    image_variation speech ocr search video_generation video_edit video_extension video_remix
    create_batch create_fine_tuning_job run_thread run_thread_stream create_interaction realtime_calls
""".split()
_ASYNC_PAID = "anthropic_messages schedule_acompletion _arealtime _aresponses_websocket".split()
_PAID = {
    **dict.fromkeys(_SYNC_PAID, False),
    **{f"a{name}": True for name in _SYNC_PAID},
    **dict.fromkeys(_ASYNC_PAID, True),
}
_METHODS = {f"{a}{hook.method}": hook for hook in _PLACED for a in ("", "a")}


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered function for a function, a copy for a Router; for the module, a namespace whose other names are the
    module's own.
    """
    if isinstance(client, ModuleType):
        names = {name: getattr(client, name) for name in dir(client) if not name.startswith("__")}
        wrapped: Any = SimpleNamespace(**names)
    elif hasattr(client, "acompletion"):
        wrapped = copy.copy(client)  # of a Router: it shares its deployments and their state
    else:
        return _function(client, settings, job)
    remember(wrapped, client)
    wrapping = Wrapping(provider="litellm", settings=settings, job=job)
    for name in _METHODS:
        if hasattr(client, name):
            setattr(wrapped, name, _function(getattr(client, name), settings, job))
    for name, is_async in _PAID.items():
        if hasattr(client, name):
            setattr(
                wrapped, name, watched(getattr(client, name), name, wrapping, is_async=is_async)
            )
    return wrapped


def quiet(client: Any) -> Any:
    """Itself: a module, a Router or a function."""
    return unwrapped(client)


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
    return await getattr(client, "acompletion", client)(**request)


def has_responses(client: Any) -> bool:
    """Whether it is, or has, the async function for the Responses API."""
    return hasattr(client, "aresponses") or getattr(client, "__name__", "") == "aresponses"


def responses_request(model: str, input: Any, params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call of the Responses API."""
    once = {"num_retries": 0, "max_retries": 0}
    return {**once, **params, "model": model, "input": input, "stream": True}


async def send_responses(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers LiteLLM's stream."""
    return await getattr(client, "aresponses", client)(**request)


def reading(stream: Any) -> tuple[AsyncGenerator[Any], Any]:
    """A stream's events, and what closes it."""
    return _honest_async(stream), _close_of(stream)


def _function(plain: Any, settings: MeterSettings, job: Any) -> Any:
    plain = unwrapped(plain)
    name = getattr(plain, "__name__", "")
    if name not in _METHODS:
        raise InvalidOption("client", plain, f"not metered; of LiteLLM are {', '.join(_METHODS)}")
    hook = _METHODS[name]
    # By the name: some of a Router's are plain functions that answer an awaitable.
    make = _sync_function if name == hook.method else _async_function
    wrapping = Wrapping(provider="litellm", settings=settings, job=job)
    metered = functools.wraps(plain)(make(plain, wrapping, hook, _names(plain) or _PLACED[hook]))
    remember(metered, plain)
    return metered


def _names(plain: Any) -> list[str]:
    """The names of a function's first arguments; none if it takes any."""
    given = inspect.signature(plain).parameters.values()
    return [one.name for one in given if one.kind is one.POSITIONAL_OR_KEYWORD]


def _async_function(plain: Any, wrapping: Wrapping, hook: Hook, names: list[str]) -> Any:
    async def metered(*args: Any, **kwargs: Any) -> Any:
        current = wrapping.current(is_async=True)
        if current is None:
            return await plain(*args, **kwargs)
        request = dict(zip(names, args, strict=False)) | kwargs
        kwargs, is_hidden, call = _prepare(request, kwargs, wrapping, current, hook)
        driver = AsyncDriver(current, call)
        if not kwargs.get("stream"):
            return await driver.whole(
                lambda: plain(*args, **call.sent(kwargs)), lambda answer: answer
            )
        stream = await driver.open(lambda: plain(*args, **call.sent(kwargs)))
        return MeteredAsyncStream(stream, driver, is_hidden)

    return metered


def _sync_function(plain: Any, wrapping: Wrapping, hook: Hook, names: list[str]) -> Any:
    def metered(*args: Any, **kwargs: Any) -> Any:
        current = wrapping.current(is_async=False)
        if current is None:
            return plain(*args, **kwargs)
        request = dict(zip(names, args, strict=False)) | kwargs
        kwargs, is_hidden, call = _prepare(request, kwargs, wrapping, current, hook)
        driver = SyncDriver(current, call)
        if not kwargs.get("stream"):
            return driver.whole(lambda: plain(*args, **call.sent(kwargs)), lambda answer: answer)
        kwargs.setdefault("timeout", wrapping.settings.longest_silence)
        stream = driver.open(lambda: plain(*args, **call.sent(kwargs)))
        return MeteredStream(stream, driver, is_hidden)

    return metered


def _prepare(
    request: dict[str, Any], kwargs: dict[str, Any], wrapping: Wrapping, job: Any, hook: Hook
) -> tuple[dict[str, Any], Callable[[Any], bool], MeteredCall]:
    """The arguments for a metered call: retries off, usage stated; which events to hide; the call."""
    retries = wrapping.settings.sdk_retries
    kwargs = {"num_retries": retries, "max_retries": retries, **kwargs}
    is_hidden: Callable[[Any], bool] = never
    options = dict(fields(kwargs.get("stream_options")))
    if kwargs.get("stream") and hook.api == CHAT_API and "include_usage" not in options:
        kwargs["stream_options"] = {**options, "include_usage": True}
        is_hidden = _is_only_usage
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
        or facts.get("text")
        or any(delta.get(name) for name in ("content", "tool_calls", "role"))
    )


def _close_of(stream: Any) -> Any:
    """What closes it; None for an answer that came whole and is only told as a stream."""
    return getattr(stream, "aclose", None)


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
        self._events = driver.events(_honest_async(stream), is_hidden, _close_of(stream))
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
