"""The worker's engine room: which jobs run, which wait in hand, which outcomes wait to be handed in.

Two flights speak to the queue; each hands in what has finished and takes as many jobs as there are free slots (and a few
more, if jobs are short). While both are on their way, outcomes gather: so a call carries many jobs under load, and a
lone job never waits.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from . import outcome as outcomes
from ._chunk_writer import ChunkWriter
from ._executor import Executor
from ._heartbeat import Heartbeat
from ._prefetch import Prefetch
from ._relay import Relay
from ._run import Run
from ._turns import MAX_OUTCOMES, MAX_WANT, TurnReply, Turns
from .outcome import Outcome

logger = logging.getLogger(__name__)

_FLIGHTS: Final = 2
_HAND_BACK_AFTER: Final = 0.2
_REPORT_START_AFTER: Final = 0.05
_IDLE_POLL: Final = 2.0
_ABANDON_AFTER: Final = 10.0


class Consumer:
    """Runs jobs of one queue, up to `concurrency` at a time.

    `runs` holds every claim in hand, started or not, by job id: the heartbeat renews what it finds there.
    """

    def __init__(
        self,
        turns: Turns,
        executor: Executor,
        writer: ChunkWriter,
        relay: Relay,
        concurrency: int,
    ) -> None:
        self.runs: dict[str, Run] = {}
        self._turns = turns
        self._executor = executor
        self._writer = writer
        self._relay = relay
        self._concurrency = concurrency
        self._ready: deque[Run] = deque()
        self._outcomes: list[list[object]] = []
        self._active = 0
        self._wanted = 0
        self._prefetch = Prefetch(concurrency)
        self._state = _State()
        self.heartbeat: Heartbeat | None = None

    # -- what the worker asks for --------------------------------------------------------------------------------

    async def consume(self) -> None:
        """Work until `drain` was called and everything in hand is settled.

        Raises:
            ServerError: The server refuses turns for good; what is in hand can't be handed in.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_FLIGHTS):
                    group.create_task(self._flight())
        except ExceptionGroup as group:
            for run in list(self.runs.values()):
                run.stop("lease_lost")  # soon they are another worker's
            refusal = group.exceptions[0]
            raise refusal from refusal.__cause__

    def wake(self) -> None:
        """There may be work in the queue."""
        self._state.hungry = True
        self._state.changed.set()

    def is_idle(self) -> bool:
        """Has the queue nothing to give, and are there free slots?"""
        return not self._state.hungry and self._active < self._concurrency and not self._wanted

    async def wait_idle(self) -> None:
        """Wait until there is nothing to take: only then is it worth blocking on the wake list."""
        while not self.is_idle():
            self._state.idle.clear()
            await self._state.idle.wait()

    def stop_run(self, job_id: str, token: str) -> None:
        """Cancel a run, if that run is still in hand."""
        run = self.runs.get(job_id)
        if run is not None and run.token == token:
            self._stop(run)

    def drain(self) -> None:
        """Take no more jobs; hand back those that have not started."""
        self._state.draining = True
        self._hand_back(len(self._ready))
        self._state.changed.set()

    def stop_all(self) -> None:
        """Stop what still runs: it goes back to the queue without using an attempt."""
        for run in list(self.runs.values()):
            run.stop("shutdown")

    def close(self) -> None:
        """Let go of the timers."""
        self._state.close()

    # -- turns ---------------------------------------------------------------------------------------------------

    async def _flight(self) -> None:
        state = self._state
        while True:
            want = self._want()
            if self._outcomes or (want and state.hungry) or state.overdue:
                await self._turn(want)
            elif state.draining and not self.runs:
                state.changed.set()
                return
            else:
                state.idle.set()
                state.changed.clear()
                await state.changed.wait()

    def _want(self) -> int:
        if self._state.draining:
            return 0
        if self._concurrency == 1 and self._wanted:
            return 0  # two claiming calls may overtake each other: one at a time keeps the order of starts
        free = self._concurrency - self._active - len(self._ready) - self._wanted
        return max(0, min(free + self._prefetch.size, MAX_WANT))

    async def _turn(self, want: int) -> None:
        batch, self._outcomes = self._outcomes[:MAX_OUTCOMES], self._outcomes[MAX_OUTCOMES:]
        self._wanted += want
        self._state.hungry = False
        self._state.overdue = False
        suspects = self._suspects()
        may_bring_one = want > 0 and suspects == 0
        self._state.suspect_asked = self._state.suspect_asked or may_bring_one
        sent_at = time.monotonic()
        try:
            reply = await self._turns.take(batch, [], want=want, suspects=suspects)
        finally:
            self._wanted -= want
            if may_bring_one:
                self._state.suspect_asked = False
        self._prefetch.note_turn(time.monotonic() - sent_at)
        self._take_in(reply, want, batch)

    def _suspects(self) -> int:
        """How many suspects are in hand or may be on their way: with one there, none other is taken."""
        if self._state.suspect_asked:
            return 1
        if not self._state.has_suspects:
            return 0
        return sum(run.claim.is_suspect for run in self.runs.values())

    def _take_in(self, reply: TurnReply, want: int, batch: list[list[object]]) -> None:
        if "s" in reply.codes or "g" in reply.codes:
            _log_refused(batch, reply.codes)
        if reply.has_outbox:
            self._relay.kick()
        for run in reply.runs:
            self._receive(run)
        state = self._state
        if state.draining:
            self._hand_back(len(self._ready))
        elif reply.more or (want and len(reply.runs) >= want):
            state.hungry = True
        state.schedule_poll(
            _IDLE_POLL if reply.next_in is None else min(reply.next_in, _IDLE_POLL), self._poll
        )
        self._fill()
        state.changed.set()

    def _poll(self) -> None:
        """Something is due, or a wake token was lost. A full worker takes a turn, too: for upkeep and the outbox."""
        self._state.overdue = not self._state.draining
        self.wake()

    def _receive(self, run: Run) -> None:
        stale = self.runs.get(run.id)
        if stale is not None:
            stale.stop("lease_lost")
        self.runs[run.id] = run
        left_ms = (run.fence_at - time.monotonic()) * 1000
        if left_ms <= 0:
            # The reply was on its way for longer than the lease, after an outage say: let the job be claimed anew
            # instead of starting a run that may be somebody else's by now.
            self._release(run)
            return
        # The heartbeat may sleep for a third of the worker's own lease.
        if left_ms < self._turns.settings.lease * 667 and self.heartbeat is not None:
            self.heartbeat.kick()
        if run.claim.is_suspect:
            self._state.has_suspects = True
            self._ready.appendleft(run)
        elif self._ready and run.claim.place < self._ready[-1].claim.place:
            bisect.insort(self._ready, run, key=lambda other: other.claim.place)
        else:
            self._ready.append(run)

    # -- runs ----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start what is in hand, as far as there are slots."""
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        while self._ready and self._active < self._concurrency:
            run = self._ready.popleft()
            self._active += 1
            run.started_at = now
            run.on_stop = self._watch_stopped
            run.task = loop.create_task(self._run(run))
        state = self._state
        if self._ready and not state.hand_back_timer:
            state.hand_back_timer = loop.call_later(_HAND_BACK_AFTER, self._hand_back_stale)
        if self._active and not state.report_timer:
            state.report_timer = loop.call_later(_REPORT_START_AFTER, self._report_started)

    async def _run(self, run: Run) -> None:
        try:
            outcome = await self._executor.execute(run)
        except (
            Exception
        ) as error:  # ours, or a user's class of the oddest kind: the job must not hang here
            logger.exception("job %s: the end of its run could not be told", run.id)
            outcome = outcomes.Failed(
                "unrecoverable", outcomes.error_text(error, run.claim.attempt)
            )
        tail = None
        if run.seq:
            tail = await self._writer.tail(run)
        self._finish(run, outcome, tail)

    def _finish(self, run: Run, outcome: Outcome, tail: tuple[int, list[list[str]]] | None) -> None:
        now = time.monotonic()
        self._active -= 1
        self._state.abandoned.discard(run)
        if self.runs.get(run.id) is run:
            del self.runs[run.id]
        if run.stop_reason == "lease_lost" or isinstance(outcome, outcomes.Dropped):
            logger.warning(
                "job %s is no longer leased to this worker; its result was dropped", run.id
            )
        else:
            ago = now - run.started_at
            self._prefetch.note_run(ago)
            self._outcomes.append(
                outcomes.to_wire(outcome, job_id=run.id, token=run.token, ago=ago, tail=tail)
            )
        if self._ready:
            self._fill()
        self._state.changed.set()

    def _stop(self, run: Run) -> None:
        if run.task is None:
            # Claimed but not started: hand it back, the queue cancels it then.
            self._ready.remove(run)
            self._release(run)
        else:
            run.stop("cancelled")

    def _watch_stopped(self, run: Run) -> None:
        asyncio.get_running_loop().call_later(_ABANDON_AFTER, self._abandon, run)

    def _abandon(self, run: Run) -> None:
        """A handler that does not end although it was stopped: its lease runs out, its slot stays taken."""
        if run.task is None or run.task.done() or self.runs.get(run.id) is not run:
            return
        run.stop_reason = "lease_lost"
        del self.runs[run.id]
        self._state.abandoned.add(run)
        logger.error(
            "job %s: its handler did not end within %g s of being stopped; the run is abandoned",
            run.id,
            _ABANDON_AFTER,
        )
        abandoned = len(self._state.abandoned)
        if abandoned * 4 >= self._concurrency:
            logger.error("%d abandoned runs: this worker takes no more jobs", abandoned)
            self.drain()

    def _hand_back(self, count: int) -> None:
        for _ in range(count):
            self._release(self._ready.pop())
        self._state.changed.set()

    def _release(self, run: Run) -> None:
        self.runs.pop(run.id, None)
        line = outcomes.to_wire(outcomes.Released(), job_id=run.id, token=run.token, ago=0)
        self._outcomes.append(line)

    def _hand_back_stale(self) -> None:
        """What was prefetched and could not start soon goes to somebody who has a slot."""
        self._state.hand_back_timer = None
        if self._ready and self._prefetch.is_stuck(time.monotonic()):
            self._prefetch.pause()
            self._hand_back(len(self._ready))
        elif self._ready:
            loop = asyncio.get_running_loop()
            self._state.hand_back_timer = loop.call_later(_HAND_BACK_AFTER, self._hand_back_stale)

    def _report_started(self) -> None:
        """A run that lives for a while is made known, so that its loss counts against it."""
        self._state.report_timer = None
        born_before = time.monotonic() - _REPORT_START_AFTER
        unknown = [run for run in self.runs.values() if run.started_at and not run.is_started_known]
        if any(run.started_at <= born_before for run in unknown) and self.heartbeat is not None:
            self.heartbeat.kick()
        if unknown:
            loop = asyncio.get_running_loop()
            self._state.report_timer = loop.call_later(_REPORT_START_AFTER, self._report_started)


class _State:
    """Flags, events and timers of a consumer."""

    def __init__(self) -> None:
        self.hungry = True
        self.overdue = False
        self.draining = False
        self.abandoned: set[Run] = set()
        self.has_suspects = False
        self.suspect_asked = False
        self.changed = asyncio.Event()
        self.idle = asyncio.Event()
        self.hand_back_timer: asyncio.TimerHandle | None = None
        self.report_timer: asyncio.TimerHandle | None = None
        self._poll: asyncio.TimerHandle | None = None

    def schedule_poll(self, wait: float, wake: Callable[[], None]) -> None:
        """Look again after `wait` seconds at the latest: something is due, or a wake token was lost."""
        loop = asyncio.get_running_loop()
        # Replies may overtake each other: one that knows of nothing due must not put off what an other one knows.
        if self._poll is not None and self._poll.when() <= loop.time() + wait:
            return
        if self._poll is not None:
            self._poll.cancel()
        self._poll = loop.call_later(wait, self._fire, wake)

    def _fire(self, wake: Callable[[], None]) -> None:
        self._poll = None
        wake()

    def close(self) -> None:
        for timer in (self.hand_back_timer, self.report_timer, self._poll):
            if timer is not None:
                timer.cancel()


def _log_refused(batch: list[list[object]], codes: str) -> None:
    for line, code in zip(batch, codes, strict=True):
        if code in "sg":
            why = "was reclaimed meanwhile" if code == "s" else "is not in the queue any more"
            logger.warning(
                "job %s %s; the outcome %s of its run was dropped", line[0], why, line[2]
            )
