"""Metering single functions, for SDKs whose clients can't be copied with other settings.

There are three kinds: the answer comes whole, as a stream that the call returns, or from a generator that sends only
when it is first asked. Outside of a job each does what it did.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from glidemq_core.context import RunningJob
from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._drivers_sync import SyncDriver
from glidemq_llm.providers._hooks import Hook, Wrapping, never

Change = Callable[[dict[str, Any]], dict[str, Any]]


def unchanged(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as they are."""
    return arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """How the functions of one client are metered.

    Attributes:
        api: Whose answers they give (see `translators.translator`).
        change: Changes the named arguments inside a job, for example to switch the SDK's retries off.
        read: Finds an answer's body in what the function returns.
        is_text: Whether it answers by text, which belongs into the job's stream, and not by vectors.
    """

    wrapping: Wrapping
    api: str
    change: Change = unchanged
    read: Callable[[Any], object] = unchanged
    is_text: bool = True

    def on_thread(self) -> Any:
        """The job of a sync handler's thread, or None."""
        return self.wrapping.current(is_async=False)

    def on_loop(self) -> RunningJob | None:
        """The job of an async handler, or None."""
        return self.wrapping.current(is_async=True)

    def async_driver(self, job: RunningJob, request: Mapping[str, Any]) -> AsyncDriver:
        """A driver for a call made now."""
        return AsyncDriver(job, self.wrapping.call(self._hook, request, job))

    def sync_driver(self, job: Any, request: Mapping[str, Any]) -> SyncDriver:
        """See async_driver."""
        return SyncDriver(job, self.wrapping.call(self._hook, request, job))

    @property
    def _hook(self) -> Hook:
        return Hook(path="", method="", api=self.api, is_text=self.is_text, has_answer=self.is_text)


def request_of(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name."""
    try:
        bound = inspect.signature(function).bind_partial(*args, **kwargs).arguments
    except TypeError:  # the function itself will say what is wrong
        return dict(kwargs)
    return {**bound, **bound.pop("kwargs", {})}


def whole_async(plain: Any, meter: Meter) -> Any:
    """For a coroutine function that answers in one piece."""

    @functools.wraps(plain)
    async def metered(*args: Any, **kwargs: Any) -> Any:
        job = meter.on_loop()
        if job is None:
            return await plain(*args, **kwargs)
        kwargs = meter.change(kwargs)
        driver = meter.async_driver(job, request_of(plain, args, kwargs))
        return await driver.whole(lambda: plain(*args, **driver.call.sent(kwargs)), meter.read)

    return metered


def whole_sync(plain: Any, meter: Meter) -> Any:
    """For a function that answers in one piece."""

    @functools.wraps(plain)
    def metered(*args: Any, **kwargs: Any) -> Any:
        job = meter.on_thread()
        if job is None:
            return plain(*args, **kwargs)
        kwargs = meter.change(kwargs)
        driver = meter.sync_driver(job, request_of(plain, args, kwargs))
        return driver.whole(lambda: plain(*args, **driver.call.sent(kwargs)), meter.read)

    return metered


def stream_async(
    plain: Any, meter: Meter, attach: Callable[[Any, AsyncDriver], Any] | None = None
) -> Any:
    """For a coroutine function that answers an async iterator; `attach` puts the metered events into its own object."""

    @functools.wraps(plain)
    async def metered(*args: Any, **kwargs: Any) -> Any:
        job = meter.on_loop()
        if job is None:
            return await plain(*args, **kwargs)
        kwargs = meter.change(kwargs)
        driver = meter.async_driver(job, {"stream": True, **request_of(plain, args, kwargs)})
        stream = await driver.open(lambda: plain(*args, **driver.call.sent(kwargs)))
        return (attach or _events_async)(stream, driver)

    return metered


def stream_sync(
    plain: Any, meter: Meter, attach: Callable[[Any, SyncDriver], Any] | None = None
) -> Any:
    """For a function that answers an iterator."""

    @functools.wraps(plain)
    def metered(*args: Any, **kwargs: Any) -> Any:
        job = meter.on_thread()
        if job is None:
            return plain(*args, **kwargs)
        kwargs = meter.change(kwargs)
        driver = meter.sync_driver(job, {"stream": True, **request_of(plain, args, kwargs)})
        stream = driver.open(lambda: plain(*args, **driver.call.sent(kwargs)))
        return (attach or _events_sync)(stream, driver)

    return metered


def generator_async(plain: Any, meter: Meter) -> Any:
    """For an async generator function: it sends when its first event is asked for."""

    @functools.wraps(plain)
    def metered(*args: Any, **kwargs: Any) -> Any:
        job = meter.on_loop()
        if job is None:
            return plain(*args, **kwargs)
        kwargs = meter.change(kwargs)
        request = {"stream": True, **request_of(plain, args, kwargs)}
        driver = meter.async_driver(job, request)
        return _lazily(lambda: plain(*args, **driver.call.sent(kwargs)), driver)

    return metered


async def _lazily(send: Callable[[], Any], driver: AsyncDriver) -> AsyncGenerator[Any]:
    async def opened() -> Any:
        return send()

    try:
        async for event in _events_async(await driver.open(opened), driver):
            yield event
    finally:
        await driver.close()


def _events_async(stream: Any, driver: AsyncDriver) -> AsyncGenerator[Any]:
    close: Callable[[], Awaitable[object]] | None = getattr(stream, "aclose", None)
    return driver.events(stream.__aiter__(), never, close)


def _events_sync(stream: Any, driver: SyncDriver) -> Generator[Any]:
    return driver.events(iter(stream), never, getattr(stream, "close", None))


def shorter(own: float | None, limit: float) -> float:
    """A sync stream's timeout, which bounds its silence: the client's own if that is shorter."""
    return limit if own is None else min(own, limit)


def copy_with(holder: Any, **replaced: Any) -> Any:
    """A shallow copy of an object of an SDK with some of its attributes replaced; the given one stays as it is."""
    kind = cast("Any", type(holder))
    if hasattr(kind, "__del__"):
        # It would close the connections that the given one goes on using.
        kind = type(kind.__name__, (kind,), {"__del__": _leave_open, "__module__": kind.__module__})
    twin: Any = object.__new__(kind)
    twin.__dict__.update(holder.__dict__)
    twin.__dict__.update(replaced)
    return twin


def _leave_open(_self: object) -> None:
    return None
