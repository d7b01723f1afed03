"""Carries out a metered call: sends it, hands its events on, writes its chunks, books its usage on every way out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar

from glidemq_core.context import RunningJob
from glidemq_llm.chunks import Piece
from glidemq_llm.classify import classify_error
from glidemq_llm.errors import StreamStalled
from glidemq_llm.metering import MeteredCall

T = TypeVar("T")


def mark(error: BaseException) -> BaseException:
    """Tell the queue what it needs to know of a provider's error: whether another attempt helps, and when."""
    info = classify_error(error)
    for name, value in (("retryable", info.retryable), ("retry_after", info.retry_after)):
        if value is not None and not hasattr(error, name):
            with contextlib.suppress(
                AttributeError, TypeError
            ):  # an exception with slots goes unmarked
                setattr(error, name, value)
    return error


class AsyncDriver:
    """Drives a call of an async client."""

    def __init__(self, job: RunningJob, call: MeteredCall) -> None:
        self._job = job
        self.call = call
        self._settling: asyncio.Task[None] | None = None
        job.on_exit(self.settle)

    async def whole(self, send: Callable[[], Awaitable[T]], read: Callable[[T], object]) -> T:
        """Send a call that is answered in one piece; `read` finds the answer's body in what the SDK returns."""
        try:
            answer = await send()
            await self._write(self.call.take(read(answer)))
        except BaseException as error:
            await self.settle(mark(error))
            raise
        await self.settle(None, whole=True)
        return answer

    async def open(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send a call that is answered by a stream."""
        try:
            return await send()
        except BaseException as error:
            await self.settle(mark(error))
            raise

    async def events(
        self, source: AsyncIterator[T], is_hidden: Callable[[T], bool]
    ) -> AsyncIterator[T]:
        """The events of a stream, each taken in before it is handed on."""
        call, watch = self.call, _Watch(self.call)
        error: BaseException | None = None
        try:
            async for event in watch.over(source):
                pieces = call.feed(event)
                if pieces:
                    await self._write(pieces)
                else:
                    self._job.touch()
                if not is_hidden(event):
                    yield event
            error = call.cut()
            if error is not None:
                raise error
        except BaseException as caught:
            error = mark(caught)
            raise
        finally:
            watch.close()
            await self.settle(error)
            await _close(source)

    async def settle(self, error: BaseException | None = None, *, whole: bool = False) -> None:
        """Book the call and end its part of the stream; once, whoever asks first, and in spite of cancellation."""
        if self._settling is None:
            if error is None and not whole:
                error = self.call.cut()
            self._settling = asyncio.get_running_loop().create_task(self._settle(error, whole))
        await asyncio.shield(self._settling)

    async def _settle(self, error: BaseException | None, whole: bool) -> None:
        settlement = self.call.settle(error, whole=whole)
        if settlement.report is not None:
            await self._job.report_usage(**settlement.report)
        await self._write(settlement.pieces)

    async def _write(self, pieces: Iterable[Piece]) -> None:
        if not self.call.settings.stream or self._job.is_lost:
            return
        for piece in pieces:
            await self._job.stream_chunk(piece.type, piece.content, **piece.fields)


async def _close(source: object) -> None:
    """Close the SDK's generator: it closes the connection to the provider."""
    close: Callable[[], Awaitable[None]] | None = getattr(source, "aclose", None)
    if close is not None:
        await close()


class _Watch:
    """Bounds the silence of a stream. One timer per stream, not one per event."""

    def __init__(self, call: MeteredCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._limit = call.settings.first_event_timeout
        self._is_first = True
        self._has_fired = False
        self._timer = self._loop.call_later(self._limit, self._look)

    async def over(self, source: AsyncIterator[T]) -> AsyncIterator[T]:
        """The events of `source`; a StreamStalled where one is waited for too long."""
        while True:
            self._task = asyncio.current_task()
            self._since = self._loop.time()
            try:
                event = await source.__anext__()
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if not self._has_fired:
                    raise
                if self._task is not None:
                    self._task.uncancel()
                raise StreamStalled(
                    limit=self._limit,
                    kind="first_event" if self._is_first else "idle",
                    model=self._call.model,
                    provider=self._call.provider,
                    delivered=self._call.delivered,
                ) from None
            finally:
                self._since = 0.0
            if self._is_first:
                self._is_first = False
                self._limit = self._call.settings.idle_timeout
            yield event

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        left = self._limit - (now - self._since) if self._since else self._limit
        if left <= 0 and self._task is not None:
            self._has_fired = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_later(max(left, 0.01), self._look)


class SyncDriver:
    """Drives a call of a sync client, in a handler's thread."""

    def __init__(self, job: Any, call: MeteredCall) -> None:
        self._job = job
        self.call = call

    def whole(self, send: Callable[[], T], read: Callable[[T], object]) -> T:
        """See AsyncDriver.whole."""
        try:
            answer = send()
            self._write(self.call.take(read(answer)))
        except BaseException as error:
            self.settle(mark(error))
            raise
        self.settle(None, whole=True)
        return answer

    def open(self, send: Callable[[], T]) -> T:
        """See AsyncDriver.open."""
        try:
            return send()
        except BaseException as error:
            self.settle(mark(error))
            raise

    def events(self, source: Iterator[T], is_hidden: Callable[[T], bool]) -> Iterator[T]:
        """See AsyncDriver.events."""
        error: BaseException | None = None
        try:
            for event in source:
                self._write(self.call.feed(event))
                if not is_hidden(event):
                    yield event
            error = self.call.cut()
            if error is not None:
                raise error
        except BaseException as caught:
            error = mark(caught)
            raise
        finally:
            self.settle(error)

    def settle(self, error: BaseException | None = None, *, whole: bool = False) -> None:
        """See AsyncDriver.settle."""
        if self.call.is_settled:
            return
        settlement = self.call.settle(error, whole=whole)
        if settlement.report is not None:
            self._job.book(**settlement.report)
        self._write(settlement.pieces)

    def _write(self, pieces: Iterable[Piece]) -> None:
        if not self.call.settings.stream:
            return
        for piece in pieces:
            self._job.stream_chunk(piece.type, piece.content, **piece.fields)
