"""ollama: `chat`, `generate` and `embed` of `Client` and `AsyncClient`."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any

from glidemq_llm._chat_format import read_arguments
from glidemq_llm._read import fields, items
from glidemq_llm.providers._functions import (
    Meter,
    copy_with,
    shorter,
    stream_async,
    stream_sync,
    whole_async,
    whole_sync,
)
from glidemq_llm.providers._hooks import Wrapping, remember, unwrapped
from glidemq_llm.settings import MeterSettings

CHAT_API = "ollama"


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered copy of the client: the same class, sharing its connections."""
    wrapping = Wrapping(provider="ollama", settings=settings, job=job)
    text = Meter(wrapping=wrapping, api=CHAT_API)
    vectors = Meter(wrapping=wrapping, api=CHAT_API, is_text=False)
    is_async = inspect.iscoroutinefunction(client.chat)
    whole = whole_async if is_async else whole_sync
    streaming = client if is_async else _bounded(client, settings.longest_silence)
    wrapped = copy_with(
        client,
        chat=_either(client.chat, streaming.chat, text),
        generate=_either(client.generate, streaming.generate, text),
        embed=whole(client.embed, vectors),
    )
    remember(wrapped, client)
    return wrapped


def quiet(client: Any) -> Any:
    """The client as it is: it does not retry."""
    return unwrapped(client)


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call: limits and sampling are `options` here."""
    arguments = dict(params)
    options = dict(arguments.pop("options", None) or {})
    for name, own in _OPTIONS.items():
        value = arguments.pop(name, None)
        if value is not None:
            options[own] = value
    if options:
        arguments["options"] = options
    said = [_with_objects(message) for message in messages]
    return {**arguments, "model": model, "messages": said, "stream": True}


def _with_objects(message: Any) -> Any:
    """A message whose tools are called with objects: the SDK takes no JSON text."""
    said = fields(message)
    functions = [fields(fields(call).get("function")) for call in items(said.get("tool_calls"))]
    if not functions:
        return message
    calls = [{**one, "arguments": read_arguments(one.get("arguments"))} for one in functions]
    return {**said, "tool_calls": [{"function": call} for call in calls]}


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return await client.chat(**request)


def reading(stream: Any) -> tuple[Any, Any]:
    """A stream's events, and what closes it."""
    return stream, stream.aclose


_OPTIONS = {
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "seed": "seed",
}


def _bounded(client: Any, limit: float) -> Any:
    """A sync client that waits no longer for anything to read: this SDK sets a timeout only for a whole client."""
    http = copy.copy(client._client)  # noqa: SLF001
    http.timeout = shorter(http.timeout.read, limit)
    return copy_with(client, _client=http)


def _either(plain: Any, streaming: Any, meter: Meter) -> Any:
    """One function that answers whole or, with `stream=True`, an iterator."""
    if inspect.iscoroutinefunction(plain):
        whole, stream = whole_async(plain, meter), stream_async(streaming, meter)

        @functools.wraps(plain)
        async def metered_async(*args: Any, **kwargs: Any) -> Any:
            return await (stream if kwargs.get("stream") else whole)(*args, **kwargs)

        return metered_async
    whole, stream = whole_sync(plain, meter), stream_sync(streaming, meter)

    @functools.wraps(plain)
    def metered(*args: Any, **kwargs: Any) -> Any:
        return (stream if kwargs.get("stream") else whole)(*args, **kwargs)

    return metered
