"""boto3's `bedrock-runtime`: `converse` and `converse_stream`, for sync handlers in threads."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from glidemq_llm._drivers_sync import SyncDriver
from glidemq_llm.providers._functions import Meter, copy_with, stream_sync, whole_sync
from glidemq_llm.providers._hooks import Wrapping, never, remember, watched
from glidemq_llm.settings import MeterSettings

_API = "bedrock"
_PAID = ("invoke_model", "invoke_model_with_response_stream", "start_async_invoke")


def wrap(client: Any, settings: MeterSettings, job: Any) -> Any:
    """A metered copy of the client: the same class, sharing its connections."""
    wrapping = Wrapping(provider="bedrock", settings=settings, job=job)
    meter = Meter(wrapping=wrapping, api=_API)
    sender = client if settings.sdk_retries else _without_retries(client)
    paid = {
        name: watched(getattr(client, name), name, wrapping, is_async=False)
        for name in _PAID
        if hasattr(client, name)
    }
    wrapped = copy_with(
        client,
        **paid,
        converse=_inside(client.converse, whole_sync(sender.converse, meter), meter),
        converse_stream=_inside(
            client.converse_stream, stream_sync(sender.converse_stream, meter, _attach), meter
        ),
    )
    remember(wrapped, client)
    return wrapped


def quiet(client: Any) -> Any:
    """Refused: the client blocks, and the handlers that ask for this are async."""
    from glidemq_core.errors import InvalidOption

    raise InvalidOption(
        "clients",
        client,
        "boto3's client blocks; use it in a sync handler, through wrap(), or name the model 'bedrock/...' with litellm",
    )


def _without_retries(client: Any) -> Any:
    """A copy whose requests are sent once. botocore takes retries from the configuration that a client is made with."""
    endpoint = copy_with(client._endpoint, _needs_retry=_never)  # noqa: SLF001
    return copy_with(client, _endpoint=endpoint)


def _never(*_: object, **__: object) -> bool:
    return False


def _inside(plain: Any, metered: Any, meter: Meter) -> Any:
    @functools.wraps(plain)
    def method(*args: Any, **kwargs: Any) -> Any:
        return (plain if meter.on_thread() is None else metered)(*args, **kwargs)

    return method


def _attach(answer: Any, driver: SyncDriver) -> Any:
    stream = answer["stream"]
    return {**answer, "stream": MeteredEvents(stream, driver)}


class MeteredEvents:
    """botocore's event stream, metered: iterates as it does, its other attributes are its own."""

    def __init__(self, stream: Any, driver: SyncDriver) -> None:
        self._stream = stream
        self._events = driver.events(iter(stream), never, stream.close)
        self.close = driver.close

    def __iter__(self) -> Iterator[Any]:
        return self._events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
