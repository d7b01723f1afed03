"""Carries out a metered call: sends it, hands its events on, writes its chunks, books its usage on every way out."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar, cast

from glidemq_core.context import RunningJob
from glidemq_core.errors import BudgetExceeded, CostUnknown, GlideMQError
from glidemq_llm._life_signs import note_reads_async
from glidemq_llm.chunks import Piece
from glidemq_llm.classify import ErrorCategory, classify_error
from glidemq_llm.errors import StreamFailed
from glidemq_llm.metering import MeteredCall

T = TypeVar("T")
logger = logging.getLogger("glidemq_llm")

CloseAsync = Callable[[], Awaitable[object]]

DRAIN: Final = 1.0  # seconds to wait for the usage of an answer that its reader left at its end


def readable(call: MeteredCall, caught: BaseException) -> BaseException:
    """What reading a stream has raised; where an SDK stumbles over an event, in whatever way, an AnswerUnreadable."""
    frame = caught.__traceback__.tb_next if caught.__traceback__ is not None else None
    if frame is not None and frame.tb_frame.f_code.co_qualname == "Kept.__anext__":
        frame = frame.tb_next
    # Its caller may have thrown it in, and what is raised in our own code is our own.
    origin = "glidemq_core" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    if not isinstance(caught, Exception) or origin.startswith(("glidemq_core", "glidemq_llm._")):
        return caught
    if origin == "glidemq_llm.metering" or classify_error(caught).category is not ErrorCategory.BUG:
        return caught
    return call.unreadable(f"{type(caught).__name__}: {caught}")


def mark(error: BaseException) -> BaseException:
    """Tell the queue what it needs to know of a provider's error: whether another attempt helps, and when."""
    is_own = isinstance(error, GlideMQError) and not isinstance(error, StreamFailed)
    if is_own or not isinstance(error, Exception):
        return error
    info = classify_error(error)
    facts = (
        ("retryable", info.retryable),
        ("retry_after", info.retry_after),
        ("fallback", info.fallback),
    )
    for name, value in facts:
        if value is not None and name not in getattr(error, "__dict__", {}):
            # An exception with slots goes unmarked.
            with contextlib.suppress(AttributeError, TypeError):
                setattr(error, name, value)
    return error


def feedback(call: MeteredCall, error: BaseException | None) -> dict[str, Any]:
    """What a call's end tells the limiters it passed."""
    if error is None:
        return {"outcome": "ok", "remaining": call.remaining()}
    info = classify_error(error)
    outcome = _OUTCOMES.get(info.category, "none")
    return {
        "outcome": outcome,
        "retry_after": info.retry_after or 0.0,
        "remaining": call.remaining(),
    }


_OUTCOMES: Final = {
    ErrorCategory.RATE_LIMIT: "limited",
    ErrorCategory.OVERLOADED: "error",
    ErrorCategory.SERVER: "error",
    ErrorCategory.TIMEOUT: "error",
    ErrorCategory.CONNECTION: "error",
    ErrorCategory.STREAM_INTERRUPTED: "error",
}


class AsyncDriver:
    """Drives one call of an async client."""

    def __init__(self, job: RunningJob, call: MeteredCall) -> None:
        self._job = job
        self.call = call
        self._settling: asyncio.Task[None] | None = None
        self._events: AsyncGenerator[Any] | None = None
        self._watch: _Watch | None = None
        self._close: CloseAsync | None = None
        self._draining: asyncio.Task[None] | None = None  # reads the rest in the background
        self._has_exited = False
        job.on_exit(self.close)

    @property
    def is_limited(self) -> bool:
        """Does the call pass budgets or limiters?"""
        return self._job.has_limits or bool(self.call.limits)

    async def whole(self, send: Callable[[], Awaitable[T]], read: Callable[[T], object]) -> T:
        """Send a call that is answered in one piece; `read` finds the answer's body in what the SDK returns."""
        try:
            await self._admit()
            limit = self.call.settings.call_timeout
            asked = self._asked(send, limit)
            answer = await (self._kept(asked, read) if self._drains else asked)
            if self._write(await self._taken(answer, read)):
                await self._job.room()
        except BaseException as error:
            if self._draining is None:
                await self.settle(mark(error))
            raise
        await self.settle(None, whole=True)
        return answer

    async def _taken(self, answer: T, read: Callable[[T], object]) -> list[Piece]:
        body = read(answer)
        if inspect.isawaitable(body):
            body = await cast("Awaitable[object]", body)
        return self.call.take(body)

    async def _asked(self, send: Callable[[], Awaitable[T]], limit: float) -> T:
        """Send a call and wait for what the SDK returns, no longer than `limit` seconds."""
        bound = asyncio.timeout(limit)
        try:
            async with bound:
                answer = await send()
        except TimeoutError:
            if not bound.expired():
                raise
            raise self.call.stalled(limit, is_first=True) from None
        self.call.answered(answer)
        return answer

    async def _kept(self, asked: Awaitable[T], read: Callable[[T], object]) -> T:
        """Have an answer waited for in the background if its caller is cancelled."""
        sending = asyncio.ensure_future(asked)

        async def late() -> None:
            await self._taken(await sending, read)

        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            if not sending.done():
                self._drain_later(late(), None, whole=True)
            raise

    async def open(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send a call that is answered by a stream.

        Raises:
            StreamStalled: The provider did not even begin to answer within `first_event_timeout`.
        """
        try:
            await self._admit()
            self._watch = _Watch(self.call)
            stream = await self._asked(send, self.call.settings.first_event_timeout)
            note_reads_async(stream, self._lives)
            return stream
        except BaseException as error:
            await self.settle(mark(error))
            raise

    def _lives(self) -> None:
        self._job.touch()
        if self._watch is not None:
            self._watch.has_sign()

    def events(
        self,
        source: AsyncIterator[T],
        is_hidden: Callable[[T], bool],
        close: CloseAsync | None = None,
    ) -> AsyncGenerator[T]:
        """The events of a stream, each taken in before it is handed on; `close` ends the connection."""
        self._close = close
        self._events = self._metered(Kept(source) if self._drains else source, is_hidden)
        return self._events

    async def _metered(
        self, source: AsyncIterator[T], is_hidden: Callable[[T], bool]
    ) -> AsyncGenerator[T]:
        call, watch = self.call, self._watch or _Watch(self.call)
        error: BaseException | None = None
        has_left = False
        try:
            watch.waits()
            async for event in source:
                watch.has_event()
                if self._write(call.feed(event)):
                    await self._job.room()
                if call.needs_slice:
                    await self._job.extend(call.call_id, **call.next_slice())
                if not is_hidden(event):
                    yield event
                watch.waits()
            error = call.fault()
            if error is not None:
                raise error
        except GeneratorExit:
            has_left = True
            raise
        except BaseException as caught:
            error = mark(readable(call, watch.blamed(caught)))
            if error is not caught:
                raise error from caught
            raise
        finally:
            watch.close()
            await self._end(source, error, has_left=has_left)

    async def _end(
        self, source: AsyncIterator[object], error: BaseException | None, *, has_left: bool
    ) -> None:
        """End a stream: hang up and settle, at once or after the rest was read in the background."""
        has_left = has_left or isinstance(error, asyncio.CancelledError)
        if has_left and self._drains and not self.call.has_all:
            self._drain_later(self._drain(source), source)
            return
        try:
            if error is None and has_left and self.call.lacks_usage:
                # The usage comes last, and many stop reading before.
                with contextlib.suppress(TimeoutError, OSError, json.JSONDecodeError):
                    async with asyncio.timeout(DRAIN):
                        await self._drain(source)
            await self._hang_up(source)
        finally:
            await self.settle(error)

    async def _drain(self, source: AsyncIterator[object]) -> None:
        async for event in source:
            self.call.feed(event)

    @property
    def _drains(self) -> bool:
        return self.call.settings.on_cancel == "drain"

    def _drain_later(
        self, rest: Coroutine[Any, Any, None], source: object, *, whole: bool = False
    ) -> None:
        """Let the provider finish while its caller goes on: what is booked is then what it bills."""

        async def finish() -> None:
            try:
                async with asyncio.timeout(self.call.settings.drain_timeout):
                    await rest
            except Exception as error:  # noqa: BLE001 what has come is booked, whatever ended it
                logger.info("call %s: not read to its end: %r", self.call.call_id, error)
            try:
                await self._hang_up(source)
            finally:
                await self.settle(None, whole=whole)

        self._job.call_ended()  # nobody has to wait for it
        self._draining = asyncio.get_running_loop().create_task(finish())
        _background.add(self._draining)
        self._draining.add_done_callback(_ended)

    async def _hang_up(self, source: object) -> None:
        """End the connection to the provider, which also ends what it generates."""
        close: CloseAsync | None = getattr(source, "aclose", None)
        if close is not None:
            await close()
        if self._close is not None:
            await self._close()

    async def close(self) -> None:
        """End what its reader has left open: the connection and the call."""
        if self._events is not None and self._settling is None and self._draining is None:
            # Refused while another task waits for an event: hanging up ends that one's wait.
            with contextlib.suppress(RuntimeError):
                await self._events.aclose()
            if self._settling is None and self._close is not None and self._draining is None:
                await self._close()
        self._has_exited = True
        if self._draining is None:
            await self.settle()
        elif not self.call.is_settled:
            self._write(self.call.last_words())

    async def settle(self, error: BaseException | None = None, *, whole: bool = False) -> None:
        """Book the call and end its part of the stream; once, whoever asks first, and in spite of cancellation."""
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_task(self._settle(error, whole))
        await asyncio.shield(self._settling)

    async def _admit(self) -> None:
        """The place before the money is spent: what raises here sends nothing and books nothing."""
        call, job = self.call, self._job
        call.check()
        try:
            if self.is_limited and not (call.may_shrink and await self._fits()):
                await job.reserve(call.call_id, **call.reservation())
        except CostUnknown as refusal:
            raise call.refused(refusal) from None
        call.is_sent = True
        job.call_began()

    async def _fits(self) -> bool:
        """Reserve as much as budgets have room for; False, and nothing is reserved, if that is too little."""
        while True:
            try:
                await self._job.reserve(
                    self.call.call_id, **self.call.reservation(), may_park=False
                )
            except BudgetExceeded as refusal:
                state = await self._job.budget.state(refusal.budget)
                if not self.call.shrink(refusal, state.token_weights if state else {}):
                    return False
            else:
                return True

    async def _settle(self, error: BaseException | None, whole: bool) -> None:
        was_sent = self.call.is_sent
        settlement = self.call.settle(error, whole=whole)
        told = feedback(self.call, error) if self.is_limited else {}
        try:
            if settlement.report is not None:
                await self._job.report_usage(**settlement.report, **told)
            else:
                await self._job.release(self.call.call_id, **told)
            if self._draining is None or not self._has_exited:
                self._write(settlement.pieces)
        finally:
            if was_sent and self._draining is None:
                self._job.call_ended()

    def _write(self, pieces: Iterable[Piece]) -> bool:
        """Write pieces of the answer into the job's stream, or note a sign of life; answers whether to wait for room."""
        if not self.call.settings.stream:
            pieces = ()
        return self._job.write_chunks(pieces)


class Kept(AsyncIterator[T]):
    """A stream that is not broken by the cancellation of who waits for its next event.

    HTTP libraries close a connection whose read is cancelled, so each read has a task of its own.
    """

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._source = source
        self._read: asyncio.Future[T] | None = None

    async def __anext__(self) -> T:
        if self._read is None:
            self._read = asyncio.ensure_future(self._source.__anext__())
        event = await asyncio.shield(self._read)
        self._read = None
        return event

    async def aclose(self) -> None:
        """Give up the read that nobody waits for, and close the stream."""
        if self._read is not None:
            self._read.cancel()
            await asyncio.wait((self._read,))
            if not self._read.cancelled():
                self._read.exception()  # seen
        close: CloseAsync | None = getattr(self._source, "aclose", None)
        if close is not None:
            await close()


# Tasks that nobody waits for must be kept by somebody.
_background: set[asyncio.Task[None]] = set()


def _ended(task: asyncio.Task[None]) -> None:
    _background.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("a drained call could not be booked: %s", error)


class _Watch:
    """Bounds the silence of a stream. One timer per stream, not one per event."""

    def __init__(self, call: MeteredCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._limit = call.settings.first_event_timeout
        self._first_until = self._loop.time() + self._limit
        self._is_first = True
        self._waiter: asyncio.Task[Any] | None = None  # who waits for an event now
        self._since = 0.0
        self._cancels = 0
        self._blamed: asyncio.Task[Any] | None = (
            None  # who was cancelled for having waited too long
        )
        self._timer: asyncio.TimerHandle | None = None

    def waits(self) -> None:
        """This task waits for an event from now on."""
        self._waiter = asyncio.current_task(self._loop)
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._first_until, self._look)

    def has_event(self) -> None:
        """It has come."""
        self._waiter = None
        if self._is_first:
            self._is_first = False
            self._limit = self._call.settings.idle_timeout
            self.close()
            self._timer = self._loop.call_later(self._limit, self._look)

    def has_sign(self) -> None:
        """It has not, but the provider is there."""
        self._since = self._loop.time()
        if self._is_first:
            self._first_until = self._since + self._limit

    def blamed(self, caught: BaseException) -> BaseException:
        """What has ended the stream: a cancellation that was the watch's own is a StreamStalled."""
        # As asyncio.timeout does: only a cancellation that is ours alone is turned into an error.
        task = self._blamed
        if not isinstance(caught, asyncio.CancelledError) or task is None:
            return caught
        if task.uncancel() > self._cancels:
            return caught
        return self._call.stalled(self._limit, is_first=self._is_first)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        waiter = self._waiter
        since = now if waiter is None else self._since
        until = self._first_until if self._is_first else since + self._limit
        if now >= until and waiter is not None:
            self._blamed, self._cancels = waiter, waiter.cancelling()
            waiter.cancel()
        else:
            self._timer = self._loop.call_at(max(until, now + 0.01), self._look)
