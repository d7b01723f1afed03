"""Replacing methods on a copied client: inside a job a call is metered, outside of one nothing changes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from glidemq_core import current_job
from glidemq_core.context import RunningJob
from glidemq_llm._drivers import AsyncDriver
from glidemq_llm._drivers_sync import SyncDriver
from glidemq_llm._read import fields
from glidemq_llm.metering import MeteredCall
from glidemq_llm.settings import MeterSettings

T = TypeVar("T")
Arguments = tuple[dict[str, Any], Callable[[Any], bool]]

logger = logging.getLogger("glidemq_llm")

_UNMETERED: Final = {
    True: "an async client (%s) was called in the sync handler of job %s: its calls are NOT metered, and no budget or "
    "limiter holds them. Give sync handlers a sync client, or make the handler async",
    False: "a sync client (%s) was called in the async handler of job %s: its calls are NOT metered, no budget or "
    "limiter holds them, and they block all jobs of the worker. Use the async client, or make the handler sync",
}
_COSTS: Final = (
    "%s of a wrapped client (%s) was called in job %s: it costs money and is NOT metered, nothing of it is booked, and "
    "no budget or limiter holds it. Reserve and report what it takes by hand: async with job.llm_call(...)"
)
_RAW: Final = "X-Stainless-Raw-Response"  # how openai and anthropic ask themselves for headers
_PLAIN: Final = "_glidemq_plain"


def never(_event: object) -> bool:
    """Hide no event."""
    return False


def as_they_are(arguments: dict[str, Any]) -> Arguments:
    """Leave the arguments alone."""
    return arguments, never


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """What every hook of one wrapped client shares.

    Attributes:
        job: The job that all calls belong to; None: the one whose handler is running.
        sync_timeout: The `timeout` of a sync client's streams, where the client has none that is shorter.
    """

    provider: str
    settings: MeterSettings
    job: Any = None
    sync_timeout: Any = None
    _told: set[str] = field(default_factory=set[str], init=False)

    def current(self, *, is_async: bool) -> Any:
        """The job that a call made now is metered for; None outside of a job.

        An async client can't be metered in a thread, nor a sync one on the event loop, which could not write into the
        stream while it blocks. Money spent in silence is a trap: such calls are logged, once for each client.
        """
        job = self.job if self.job is not None else current_job()
        if job is None or isinstance(job, RunningJob) is is_async:
            return job
        if "" not in self._told:
            self._told.add("")
            logger.warning(_UNMETERED[is_async], self.provider, job.id)
        return None

    def warn_of(self, name: str, *, is_async: bool) -> None:
        """Log that something that costs money was called inside of a job and is not metered; once for each name."""
        job = self.current(is_async=is_async)
        if job is not None and name not in self._told:
            self._told.add(name)
            logger.warning(_COSTS, name, self.provider, job.id)

    def bounded(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a sync client's stream with a bound to its silence."""
        return (
            arguments if self.sync_timeout is None else {"timeout": self.sync_timeout, **arguments}
        )

    def call(
        self, hook: Hook, request: Mapping[str, Any], job: Any, *, provider: str | None = None
    ) -> MeteredCall:
        """A new call of a job; `provider`: where each call may go to another one."""
        settings = self.settings
        if not hook.is_text and settings.stream:
            settings = dataclasses.replace(settings, stream=False)
        return MeteredCall(
            job.next_call_id(),
            api=hook.api,
            provider=settings.provider or provider or self.provider,
            request=request,
            settings=settings,
            attempt=job.attempt,
            has_answer=hook.has_answer,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """How one method is metered.

    Attributes:
        path: The resource's attributes from the client ("chat.completions") and the method ("create").
        api: Whose events and answers it gives.
        prepare: Changes the arguments before the call; answers them and a test for events that the caller is not to
            see.
        is_text: Whether what it answers belongs into the job's stream; vectors do not.
        has_answer: Whether it answers by tokens at all.
    """

    path: str
    method: str
    api: str
    prepare: Callable[[dict[str, Any]], Arguments] = as_they_are
    is_text: bool = True
    has_answer: bool = True


def resource(client: Any, path: str) -> Any:
    """A client's resource, by the attributes that lead to it; None where this version has none."""
    for name in path.split("."):
        client = getattr(client, name, None)
    return client


def is_async_client(client: object) -> bool:
    """Whether a client of openai's or anthropic's make is an async one; subclasses may have any name."""
    return any(base.__name__ == "AsyncAPIClient" for base in type(client).__mro__)


def sync_timeout(client: Any, settings: MeterSettings) -> Any:
    """The timeout that bounds the silence of a sync stream; None if the client's own is shorter.

    httpx counts it for each read, so it is the longest silence and not the longest answer.
    """
    own: Any = client.timeout
    limit = settings.longest_silence
    read: Any = getattr(own, "read", own)
    if read is not None and read <= limit:
        return None
    return limit if read is own else type(own)(limit, connect=own.connect)


def unwrapped(client: T) -> T:
    """The client that was given to `wrap`, if this is a wrapped one; itself otherwise."""
    return getattr(client, _PLAIN, client)


def remember(wrapped: object, plain: object) -> None:
    """Let `unwrapped` find the plain client."""
    setattr(wrapped, _PLAIN, plain)


def install(outer: Any, inner: Any, hook: Hook, wrapping: Wrapping, *, is_async: bool) -> None:
    """Replace one method on `outer`. Inside a job, calls go through `inner`, which does not retry by itself."""
    holder, quiet = resource(outer, hook.path), resource(inner, hook.path)
    plain = getattr(holder, hook.method, None)
    if plain is None:
        return
    sender = Sender(getattr(quiet, hook.method), quiet, hook.method)
    make = _async_method if is_async else _sync_method
    setattr(holder, hook.method, functools.wraps(plain)(make(plain, sender, hook, wrapping)))


def watched(plain: Any, name: str, wrapping: Wrapping, *, is_async: bool) -> Any:
    """A function that costs money and has no adapter: as it is, but inside of a job it says that it is not metered."""

    @functools.wraps(plain)
    def method(*args: Any, **kwargs: Any) -> Any:
        wrapping.warn_of(name, is_async=is_async)
        return plain(*args, **kwargs)

    return method


def watch_posts(outer: Any, wrapping: Wrapping, paid: Sequence[str], *, is_async: bool) -> None:
    """Have a client tell of requests inside of a job that cost money and are not metered: those are sent by another one.

    Args:
        outer: A client of openai's or anthropic's make, none of whose resources was used yet: they take `post` from it.
        paid: The paths of such requests; "*" stands for an id.
    """
    plain = outer.post
    known = re.compile("|".join(f"({path.replace('*', '[^/]+')})" for path in paid))

    @functools.wraps(plain)
    def post(path: str, *args: Any, **kwargs: Any) -> Any:
        found = known.fullmatch(path.partition("?")[0])
        if found is not None and found.lastindex:
            wrapping.warn_of(f"POST {paid[found.lastindex - 1]}", is_async=is_async)
        return plain(path, *args, **kwargs)

    outer.post = post


class WatchedSockets:
    """A resource for calls over web sockets, which says that they are not metered. It is loaded when it is first used,
    since that takes a fifth of a second.
    """

    def __init__(self, client: Any, path: str, wrapping: Wrapping) -> None:
        self._client = client
        self._path = path
        self._wrapping = wrapping

    def __getattr__(self, name: str) -> Any:
        value = getattr(resource(self._client, self._path), name)
        if name != "connect":
            return value
        is_async = is_async_client(self._client)
        return watched(value, f"{self._path}.connect", self._wrapping, is_async=is_async)


@dataclass(frozen=True, slots=True)
class Sender:
    """How one method of an SDK sends: as it does, or with the response's headers around the answer."""

    plain: Any
    _resource: Any
    _method: str

    def with_headers(self, arguments: Mapping[str, Any]) -> Any:
        """The form whose answer has headers, to be parsed; None where there is none, or the caller uses it himself."""
        if _RAW in fields(arguments.get("extra_headers")):
            return None
        return getattr(getattr(self._resource, "with_raw_response", None), self._method, None)


def _async_method(plain: Any, sender: Sender, hook: Hook, wrapping: Wrapping) -> Any:
    async def method(*args: Any, **kwargs: Any) -> Any:
        job = wrapping.current(is_async=True)
        if job is None:
            return await plain(*args, **kwargs)
        kwargs, is_hidden = hook.prepare(kwargs)
        driver = AsyncDriver(job, wrapping.call(hook, kwargs, job))
        if kwargs.get("stream"):
            stream = await driver.open(lambda: sender.plain(*args, **driver.call.sent(kwargs)))
            await meter_stream_async(stream, driver, is_hidden)
            return stream
        raw = sender.with_headers(kwargs) if driver.is_limited else None
        if raw is not None:
            answer = await driver.whole(lambda: raw(*args, **driver.call.sent(kwargs)), body_of)
            return await settled(body_of(answer))
        return await driver.whole(lambda: sender.plain(*args, **driver.call.sent(kwargs)), body_of)

    return method


def _sync_method(plain: Any, sender: Sender, hook: Hook, wrapping: Wrapping) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        job = wrapping.current(is_async=False)
        if job is None:
            return plain(*args, **kwargs)
        kwargs, is_hidden = hook.prepare(kwargs)
        driver = SyncDriver(job, wrapping.call(hook, kwargs, job))
        if kwargs.get("stream"):
            kwargs = wrapping.bounded(kwargs)
            stream = driver.open(lambda: sender.plain(*args, **driver.call.sent(kwargs)))
            meter_stream(stream, driver, is_hidden)
            return stream
        raw = sender.with_headers(kwargs) if driver.is_limited else None
        if raw is not None:
            return body_of(driver.whole(lambda: raw(*args, **driver.call.sent(kwargs)), body_of))
        return driver.whole(lambda: sender.plain(*args, **driver.call.sent(kwargs)), body_of)

    return method


def body_of(answer: Any) -> Any:
    """The answer's body, or an awaitable of it: `with_raw_response` and `with_streaming_response` put it in an
    envelope.
    """
    return answer.parse() if hasattr(answer, "http_response") else answer


async def settled(value: Any) -> Any:
    """A value, or what an awaitable gives: some versions of the SDKs parse at once, others don't."""
    return await value if inspect.isawaitable(value) else value


def reading(stream: Any) -> tuple[Any, Any]:
    """A stream's events, and what closes it."""
    return stream.__aiter__(), getattr(stream, "aclose", None) or stream.close


async def meter_stream_async(
    stream: Any, driver: AsyncDriver, is_hidden: Callable[[Any], bool]
) -> None:
    """Have an SDK's stream object give metered events; closing it settles the call."""
    target = await settled(body_of(stream))
    # Both SDKs read a stream's events from this attribute, and have no public place for it.
    plain, close = target._iterator, target.close  # noqa: SLF001
    target._iterator = driver.events(plain, is_hidden, close)  # noqa: SLF001
    target.close = driver.close


def meter_stream(stream: Any, driver: SyncDriver, is_hidden: Callable[[Any], bool]) -> None:
    """See meter_stream_async."""
    target = body_of(stream)
    # Both SDKs read a stream's events from this attribute, and have no public place for it.
    plain, close = target._iterator, target.close  # noqa: SLF001
    target._iterator = driver.events(plain, is_hidden, close)  # noqa: SLF001
    target.close = driver.close
