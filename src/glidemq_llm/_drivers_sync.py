"""The same as `_drivers` for a sync client, in a handler's own thread.

A thread can't be cancelled and has no timers: silence is bounded by the HTTP timeout that the call is given. A stop of the
run is noticed at the next event; a thread that waits for one has its connection shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Final, TypeVar

from glidemq_core._threads import RunStopped
from glidemq_core.errors import BudgetExceeded, CostUnknown
from glidemq_llm._drivers import DRAIN, feedback, mark, readable
from glidemq_llm._life_signs import note_reads
from glidemq_llm._stuck_reads import end_read
from glidemq_llm.chunks import Piece
from glidemq_llm.classify import ErrorCategory, classify_error
from glidemq_llm.metering import MeteredCall

T = TypeVar("T")
Close = Callable[[], object]

_LOOK_AGAIN: Final = 0.1  # seconds until the next look at whether a stopped call still waits


class SyncDriver:
    """Drives one call of a sync client."""

    def __init__(self, job: Any, call: MeteredCall) -> None:
        self._job = job
        self.call = call
        self._events: Generator[Any] | None = None
        self._close: Close | None = None
        job.on_exit(self._close_after_handler)
        job.on_stop(self._stop)

    @property
    def is_limited(self) -> bool:
        """See AsyncDriver.is_limited."""
        return bool(self._job.has_limits or self.call.limits)

    def whole(self, send: Callable[[], T], read: Callable[[T], object]) -> T:
        """See AsyncDriver.whole."""
        with self._sending():
            answer = send()
            self.call.answered(answer)
            self._write(self.call.take(read(answer)))
        self.settle(None, whole=True)
        return answer

    def open(self, send: Callable[[], T]) -> T:
        """See AsyncDriver.open."""
        with self._sending():
            answer = send()
            self.call.answered(answer)
            # The read timeout counts from the last byte anyway.
            note_reads(answer, self._job.touch)
        return answer

    @contextlib.contextmanager
    def _sending(self) -> Generator[None]:
        """Admit the call, and settle it if it is not answered."""
        try:
            self._admit()
            yield
        except BaseException as caught:
            error = self._cause(caught)
            self.settle(mark(error))
            if error is caught:
                raise
            raise error from caught

    def _cause(self, caught: BaseException) -> BaseException:
        """What has ended the call: whatever comes of it once the run was stopped is no error of the provider's."""
        return RunStopped() if isinstance(caught, Exception) and self._job.cancelled else caught

    def _stop(self) -> None:
        """The run was stopped: let nothing of this call wait, or not for longer than its rest is read. On the loop."""
        settings = self.call.settings
        wait = settings.drain_timeout if settings.on_cancel == "drain" else 0.0
        if self.call.lacks_usage:
            wait = max(wait, DRAIN)
        asyncio.get_running_loop().call_later(wait, self._end_read)

    def _end_read(self) -> None:
        if self.call.is_settled:
            return
        end_read(self)
        # It may be busy just now, and read later.
        asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._end_read)

    def events(
        self, source: Iterator[T], is_hidden: Callable[[T], bool], close: Close | None = None
    ) -> Generator[T]:
        """See AsyncDriver.events."""
        self._close = close
        self._events = self._metered(source, is_hidden)
        return self._events

    def _metered(self, source: Iterator[T], is_hidden: Callable[[T], bool]) -> Generator[T]:
        call = self.call
        error: BaseException | None = None
        is_first = True
        try:
            for event in source:
                is_first = False
                self._write(call.feed(event))
                if call.needs_slice:
                    self._job.extend(call.call_id, **call.next_slice())
                if not is_hidden(event):
                    yield event
            error = call.fault()
            if error is not None:
                raise error
        except GeneratorExit:
            self._read_on(source)
            raise
        except Exception as caught:
            error = self._told(caught, is_first=is_first)
            if error is not caught:
                raise error from caught
            raise
        except BaseException as caught:  # the run was stopped
            error = caught
            self._read_on(source)
            raise
        finally:
            try:
                self._hang_up(source)
            finally:
                self.settle(error)

    def _told(self, caught: Exception, *, is_first: bool) -> BaseException:
        """A read that timed out is a stalled stream, in whatever way the SDK says so."""
        error = self._cause(caught)
        if error is not caught:
            return error
        if classify_error(caught).category is not ErrorCategory.TIMEOUT:
            return mark(readable(self.call, caught))
        return self.call.stalled(self.call.settings.longest_silence, is_first=is_first)

    def _read_on(self, source: Iterator[object]) -> None:
        """Read what is left: the usage, which comes last, or all of it. A read that waits is bounded by its timeout."""
        settings = self.call.settings
        if self.call.has_all or not (settings.on_cancel == "drain" or self.call.lacks_usage):
            return
        until = time.monotonic() + settings.drain_timeout
        with contextlib.suppress(Exception):  # what has come is booked, whatever ends it
            for event in source:
                self.call.feed(event)
                if time.monotonic() > until:
                    return

    def _hang_up(self, source: object) -> None:
        close: Close | None = getattr(source, "close", None)
        if close is not None:
            close()
        if self._close is not None:
            self._close()

    def close(self) -> None:
        """See AsyncDriver.close."""
        if self._events is not None and not self.call.is_settled:
            with contextlib.suppress(ValueError):  # it is running, in another thread
                self._events.close()
            if not self.call.is_settled and self._close is not None:
                self._close()
        self.settle()

    async def _close_after_handler(self) -> None:
        if not self.call.is_settled:
            # The job's blocking methods wait for this loop.
            await asyncio.to_thread(self.close)

    def settle(self, error: BaseException | None = None, *, whole: bool = False) -> None:
        """See AsyncDriver.settle."""
        if self.call.is_settled:
            return
        settlement = self.call.settle(error, whole=whole)
        told = feedback(self.call, error) if self.is_limited else {}
        if settlement.report is not None:
            self._job.book(**settlement.report, **told)
        else:
            self._job.release(self.call.call_id, **told)
        self._job.write_last_chunks(self._shown(settlement.pieces))

    def _admit(self) -> None:
        call = self.call
        call.check()
        self._job.check_stopped()
        try:
            if self.is_limited and not (call.may_shrink and self._fits()):
                self._job.reserve(call.call_id, **call.reservation())
        except CostUnknown as refusal:
            raise call.refused(refusal) from None
        call.is_sent = True

    def _fits(self) -> bool:
        """See AsyncDriver._fits."""
        while True:
            try:
                self._job.reserve(self.call.call_id, **self.call.reservation(), may_park=False)
            except BudgetExceeded as refusal:
                state = self._job.budget.state(refusal.budget)
                if not self.call.shrink(refusal, state.token_weights if state else {}):
                    return False
            else:
                return True

    def _write(self, pieces: Iterable[Piece]) -> None:
        self._job.write_chunks(self._shown(pieces))

    def _shown(self, pieces: Iterable[Piece]) -> Iterable[Piece]:
        return pieces if self.call.settings.stream else ()
