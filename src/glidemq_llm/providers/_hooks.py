"""Replacing methods on a copied client: inside a job a call is metered, outside of one nothing changes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glidemq_core import current_job
from glidemq_core.context import RunningJob
from glidemq_llm._drivers import AsyncDriver, SyncDriver
from glidemq_llm.metering import MeteredCall, MeterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """What every hook of one wrapped client shares.

    Attributes:
        job: The job that all calls belong to; None: the one whose handler is running.
    """

    provider: str
    settings: MeterSettings
    job: Any = None

    def current(self) -> Any:
        """The job that a call made now belongs to, or None."""
        return self.job if self.job is not None else current_job()

    def call(self, api: str, request: Mapping[str, Any], job: Any) -> MeteredCall:
        """A new call of a job."""
        return MeteredCall(
            job.next_call_id(),
            api=api,
            provider=self.provider,
            request=request,
            settings=self.settings,
            attempt=job.attempt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """How one method is metered.

    Attributes:
        path: The resource's attributes from the client ("chat.completions") and the method ("create").
        api: Whose events and answers it gives.
        prepare: Changes the arguments before the call; answers them and a test for events that the caller is not to
            see.
    """

    path: str
    method: str
    api: str
    prepare: Callable[[dict[str, Any]], tuple[dict[str, Any], Callable[[Any], bool]]]


def never(_event: object) -> bool:
    """Hide no event."""
    return False


def as_they_are(arguments: dict[str, Any]) -> tuple[dict[str, Any], Callable[[Any], bool]]:
    """Leave the arguments alone."""
    return arguments, never


def resource(client: Any, path: str) -> Any:
    """A client's resource, by the attributes that lead to it; None where this version has none."""
    for name in path.split("."):
        client = getattr(client, name, None)
    return client


def install(outer: Any, inner: Any, hook: Hook, wrapping: Wrapping, *, is_async: bool) -> None:
    """Replace one method on `outer`. Inside a job, calls go through `inner`, which does not retry by itself."""
    holder, quiet = resource(outer, hook.path), resource(inner, hook.path)
    plain = getattr(holder, hook.method, None)
    if plain is None:
        return
    send = getattr(quiet, hook.method)
    make = _async_method if is_async else _sync_method
    setattr(holder, hook.method, functools.wraps(plain)(make(plain, send, hook, wrapping)))


def _async_method(plain: Any, send: Any, hook: Hook, wrapping: Wrapping) -> Any:
    async def method(*args: Any, **kwargs: Any) -> Any:
        job = wrapping.current()
        if not isinstance(job, RunningJob):
            return await plain(*args, **kwargs)
        kwargs, is_hidden = hook.prepare(kwargs)
        driver = AsyncDriver(job, wrapping.call(hook.api, kwargs, job))
        if not kwargs.get("stream"):
            return await driver.whole(lambda: send(*args, **kwargs), body_of)
        stream = await driver.open(lambda: send(*args, **kwargs))
        meter_stream(stream, driver, is_hidden)
        return stream

    return method


def _sync_method(plain: Any, send: Any, hook: Hook, wrapping: Wrapping) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        job = wrapping.current()
        if job is None or isinstance(job, RunningJob):
            # On the event loop a blocking call can't write into the stream while it blocks: it stays as it is.
            return plain(*args, **kwargs)
        kwargs, is_hidden = hook.prepare(kwargs)
        driver = SyncDriver(job, wrapping.call(hook.api, kwargs, job))
        if not kwargs.get("stream"):
            return driver.whole(lambda: send(*args, **kwargs), body_of)
        stream = driver.open(lambda: send(*args, **kwargs))
        meter_stream(stream, driver, is_hidden)
        return stream

    return method


def body_of(answer: Any) -> object:
    """The answer's body: `with_raw_response` gives an envelope around it."""
    parse = getattr(answer, "parse", None)
    return parse() if callable(parse) and hasattr(answer, "http_response") else answer


def meter_stream(
    stream: Any, driver: AsyncDriver | SyncDriver, is_hidden: Callable[[Any], bool]
) -> None:
    """Have an SDK's stream object give metered events; closing it settles the call."""
    target = stream.parse() if hasattr(stream, "http_response") else stream
    target._iterator = driver.events(target._iterator, is_hidden)
    close = target.close
    if isinstance(driver, AsyncDriver):

        async def close_async() -> None:
            await driver.settle()
            await close()

        target.close = close_async
    else:

        def close_sync() -> None:
            driver.settle()
            close()

        target.close = close_sync
