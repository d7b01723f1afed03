"""google-genai (Gemini and Vertex): `generate_content`, `generate_content_stream`, `embed_content`, chats; sync and
async.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterable
from typing import Any

from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._read import fields
from glidemq_llm.providers._chat_requests import gemini_request
from glidemq_llm.providers._functions import (
    Meter,
    copy_with,
    stream_async,
    stream_sync,
    unchanged,
    whole_async,
    whole_sync,
)
from glidemq_llm.providers._hooks import Wrapping, never, remember, unwrapped, watched
from glidemq_llm.settings import MeterSettings

CHAT_API = "gemini"
_PAID = """
    generate_images edit_image upscale_image recontext_image segment_image generate_videos
""".split()


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered copy of the client: the same class, sharing its connections."""
    provider = "google-vertex" if getattr(client, "vertexai", False) else "google"
    wrapping = Wrapping(provider=provider, settings=settings, job=job)
    models = _metered(client.models, wrapping)
    aio = copy_with(
        client.aio,
        _models=_metered(client.aio.models, wrapping),
        _batches=_watched(client.aio.batches, ("create",), wrapping, is_async=True),
        _live=_watched(client.aio.live, ("connect",), wrapping, is_async=True),
    )
    batches = _watched(client.batches, ("create",), wrapping, is_async=False)
    wrapped = copy_with(client, _models=models, _batches=batches, _aio=aio)
    remember(wrapped, client)
    return wrapped


def quiet(client: Any) -> Any:
    """The client as it is: its calls are sent with retries off."""
    return unwrapped(client)


def chat_request(model: str, messages: list[Any], params: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a streamed call, from messages in the chat format."""
    return gemini_request(model, messages, params)


async def send_chat(client: Any, request: dict[str, Any]) -> Any:
    """Send it; answers the SDK's stream."""
    return await client.aio.models.generate_content_stream(**_sent_once(request))


def reading(stream: Any) -> tuple[Any, Any]:
    """A stream's events, and what closes it."""
    return Breakable(stream), None


def _metered(models: Any, wrapping: Wrapping) -> Any:
    """A copy of the resource.

    Where the SDK calls functions by itself, one `generate_content` is several requests: each is metered, by the methods
    that send one.
    """
    retries = fields(models._api_client._http_options).get("retry_options")  # noqa: SLF001
    change = _sent_once if retries and not wrapping.settings.sdk_retries else unchanged
    text = Meter(wrapping=wrapping, api=CHAT_API, change=change)
    vectors = Meter(wrapping=wrapping, api=CHAT_API, change=change, is_text=False)
    whole, stream = _sender(models, "generate_content"), _sender(models, "generate_content_stream")
    is_async = inspect.iscoroutinefunction(models.generate_content)
    meter_whole = whole_async if is_async else whole_sync
    plain = getattr(models, stream)
    replaced = {
        whole: meter_whole(getattr(models, whole), text),
        stream: stream_async(plain, text, _attach) if is_async else stream_sync(plain, text),
        "embed_content": meter_whole(models.embed_content, vectors),
    }
    return copy_with(_watched(models, _PAID, wrapping, is_async=is_async), **replaced)


def _watched(holder: Any, names: Iterable[str], wrapping: Wrapping, *, is_async: bool) -> Any:
    """A copy of a resource, some of whose methods say that they are not metered."""
    kept = {name: getattr(holder, name) for name in names if hasattr(holder, name)}
    return copy_with(
        holder,
        **{name: watched(plain, name, wrapping, is_async=is_async) for name, plain in kept.items()},
    )


def _sent_once(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call that is not retried, whatever its client has been told."""
    from google.genai import types

    config = arguments.get("config")
    once = {"retry_options": types.HttpRetryOptions(attempts=1)}
    options = _with(fields(config).get("http_options"), once)
    return {
        **arguments,
        "config": _with(config, {"http_options": types.HttpOptions.model_validate(options)}),
    }


def _with(given: Any, changes: dict[str, Any]) -> Any:
    """What the SDK takes as a dict or as an object, changed."""
    if hasattr(given, "model_copy"):
        return given.model_copy(update=changes)
    return {**fields(given), **changes}


def _attach(stream: Any, driver: AsyncDriver) -> Any:
    return driver.events(Breakable(stream), never)


class Breakable:
    """The SDK's stream, with an end that ends its connection, too.

    Closing the SDK's generator leaves the response below it open, and the model goes on writing. A read that is
    cancelled closes it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._has_ended = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except BaseException as error:
            self._has_ended = True
            await _hang_up(error)
            raise

    async def aclose(self) -> None:
        """Break off a read, unless the stream has ended."""
        while not self._has_ended:
            read = asyncio.ensure_future(self.__anext__())
            await asyncio.sleep(
                0
            )  # it has to have begun, for the cancellation to reach the connection
            read.cancel()
            await asyncio.wait((read,))
            if not read.cancelled():
                read.exception()
        await self._stream.aclose()


async def _hang_up(error: BaseException) -> None:
    """Close the response of an error that came in a stream: the SDK leaves that to the garbage collector."""
    response: Any = getattr(getattr(error, "response", None), "response_stream", None)
    close: Any = getattr(response, "aclose", None)
    if close is not None:
        await close()


def _sender(models: Any, name: str) -> str:
    return f"_{name}" if hasattr(models, f"_{name}") else name
