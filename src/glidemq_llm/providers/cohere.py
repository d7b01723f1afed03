"""cohere, version 2 of its API: `ClientV2` and `AsyncClientV2`, `chat`, `chat_stream`, `embed`, `rerank`."""

from __future__ import annotations

import inspect
from math import ceil
from typing import Any

from glidemq_llm._read import fields
from glidemq_llm.providers._functions import (
    Meter,
    copy_with,
    generator_async,
    shorter,
    stream_sync,
    whole_async,
    whole_sync,
)
from glidemq_llm.providers._hooks import Wrapping, remember, unwrapped
from glidemq_llm.settings import MeterSettings

CHAT_API = "cohere"


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered copy of the client: the same class, sharing its connections."""
    wrapping = Wrapping(provider="cohere", settings=settings, job=job)

    def change(arguments: dict[str, Any]) -> dict[str, Any]:
        return _with_retries(arguments, settings.sdk_retries)

    text = Meter(wrapping=wrapping, api=CHAT_API, change=change)
    vectors = Meter(wrapping=wrapping, api=CHAT_API, change=change, is_text=False)
    limit = shorter(client._client_wrapper.get_timeout(), ceil(settings.longest_silence))  # noqa: SLF001

    def bounded(arguments: dict[str, Any]) -> dict[str, Any]:
        options = {"timeout_in_seconds": limit, **fields(arguments.get("request_options"))}
        return change({**arguments, "request_options": options})

    is_async = inspect.iscoroutinefunction(client.chat)
    whole = whole_async if is_async else whole_sync
    stream = generator_async if is_async else stream_sync
    streamed = text if is_async else Meter(wrapping=wrapping, api=CHAT_API, change=bounded)
    wrapped = copy_with(
        client,
        chat=whole(client.chat, text),
        chat_stream=stream(client.chat_stream, streamed),
        embed=whole(client.embed, vectors),
        rerank=whole(client.rerank, vectors),
    )
    remember(wrapped, client)
    return wrapped


def quiet(client: Any) -> Any:
    """The client as it is; each call says that it is not to be retried."""
    return unwrapped(client)


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call: Cohere has the chat format."""
    arguments = dict(params)
    limit = arguments.pop("max_completion_tokens", None)
    if limit is not None:
        arguments["max_tokens"] = limit
    return {**arguments, "model": model, "messages": messages}


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return client.chat_stream(**_with_retries(request, 0))


def reading(stream: Any) -> tuple[Any, Any]:
    """A stream's events, and what closes it."""
    return stream, stream.aclose


def _with_retries(arguments: dict[str, Any], retries: int) -> dict[str, Any]:
    options = {"max_retries": retries, **fields(arguments.get("request_options"))}
    return {**arguments, "request_options": options}
