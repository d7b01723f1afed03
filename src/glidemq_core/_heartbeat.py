"""The heartbeat: one call per worker renews all its leases, from a thread and a client of its own.

So a busy event loop loses no job; but a loop that has made no progress for `max_loop_stall` seconds is given up: its
leases are not renewed any more. And the worker fences itself: a run whose lease must have expired, by the monotonic
clock (SIGSTOP, a sleeping machine, a cut network), is stopped without asking the server.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from ._run import Run
from ._sync_client import SyncClient
from .errors import GlideMQError

logger = logging.getLogger(__name__)

_LONGEST: Final = 10.0
_MAX_LEASES: Final = 1000
_TICK: Final = 0.5
_AFTER_FAILURE: Final = 0.5
_FENCED: Final = float("inf")


class _BeatReply(msgspec.Struct, array_like=True):
    lost: list[str]
    cancelled: list[str]
    drain: int
    revision: int


_reply = msgspec.msgpack.Decoder(_BeatReply)


class Heartbeat:
    """Renews the leases of `runs` (job id -> run, owned by the loop) until closed."""

    def __init__(
        self,
        connect: Callable[[], SyncClient],
        root: str,
        worker: str,
        runs: dict[str, Run],
        *,
        lease: float,
        max_loop_stall: float,
    ) -> None:
        self._connect = connect
        self._root = root
        self._worker = worker
        self._runs = runs
        self._idle_pause = min(_LONGEST, lease / 3)
        self._max_loop_stall = max_loop_stall
        self._is_stuck_told = False
        self._loop = asyncio.get_running_loop()
        self._loop_alive_at = time.monotonic()
        self._kick = threading.Event()
        self._is_closed = False
        self._ticker = self._loop.call_later(0, self._tick)
        self._thread = threading.Thread(
            target=self._body, name=f"glidemq-heartbeat-{worker}", daemon=True
        )
        self._thread.start()

    def kick(self) -> None:
        """Beat now: there are runs whose start the server should know of, or a shorter lease."""
        self._kick.set()

    async def close(self) -> None:
        """End the thread; leases that are left run out."""
        self._is_closed = True
        self._ticker.cancel()
        self._kick.set()
        await self._loop.run_in_executor(None, self._thread.join, 10)

    def _tick(self) -> None:
        """On the loop: show that it lives, and stop the runs whose lease must have expired.

        Not in the thread, which may be waiting for a server that does not answer.
        """
        now = self._loop_alive_at = time.monotonic()
        for run in [run for run in self._runs.values() if run.fence_at <= now]:
            run.fence_at = _FENCED
            if run.stop_reason != "lease_lost":
                logger.warning(
                    "job %s: the lease can't have been renewed in time; its run is stopped", run.id
                )
                run.stop("lease_lost")
        self._ticker = self._loop.call_later(min(_TICK, self._idle_pause), self._tick)

    def _body(self) -> None:
        client = self._connect()
        due_at = time.monotonic()
        while not self._is_closed:
            kicked = self._kick.wait(self._pause(self._live(), due_at))
            self._kick.clear()
            now, runs = time.monotonic(), self._live()
            if self._is_closed or not runs or not (kicked or now >= due_at):
                continue
            due_at = now + _interval(runs)
            if not self._loop_is_stuck(now) and not self._beat(client, runs, now):
                # The next try has a new connection.
                due_at = min(due_at, time.monotonic() + _AFTER_FAILURE)
        client.close()

    def _live(self) -> list[Run]:
        """The runs whose lease may still be ours."""
        now = time.monotonic()
        return [run for run in list(self._runs.values()) if now < run.fence_at < _FENCED]

    def _pause(self, runs: list[Run], due_at: float) -> float:
        """Seconds to sleep: until the next beat.

        While nothing runs it looks now and then: a handler that blocks the loop as soon as it starts lets nobody kick.
        """
        if not runs:
            return self._idle_pause
        now = time.monotonic()
        return max(min(due_at, now + _interval(runs)) - now, 0.001)

    def _loop_is_stuck(self, now: float) -> bool:
        stalled = now - self._loop_alive_at
        if stalled < self._max_loop_stall:
            self._is_stuck_told = False
            return False
        if not self._is_stuck_told:
            self._is_stuck_told = True
            logger.error("the event loop has been stuck for %.1f s; leases are given up", stalled)
        return True

    def _beat(self, client: SyncClient, runs: list[Run], now: float) -> bool:
        """Renew; answers whether the server did."""
        for start in range(0, len(runs), _MAX_LEASES):
            part = runs[start : start + _MAX_LEASES]
            started = [run for run in part if run.started_at and not run.is_started_known]
            args: dict[str, object] = {
                "worker": self._worker,
                "leases": [[run.id, run.token] for run in part],
                "started": [
                    [run.id, run.token, round((now - run.started_at) * 1000)] for run in started
                ],
            }
            try:
                reply = _reply.decode(client.call("job_beat", self._root, args))
            except GlideMQError as error:
                logger.warning("heartbeat: %s", error)
                return False
            self._apply(part, started, reply, now)
        return True

    def _apply(self, part: list[Run], started: list[Run], reply: _BeatReply, now: float) -> None:
        lost, cancelled = set(reply.lost), set(reply.cancelled)
        for run in started:
            run.is_started_known = True
        for run in part:
            if run.id in lost:
                self._stop(run, "lease_lost")
            else:
                if run.fence_at != _FENCED:
                    run.fence_at = max(run.fence_at, now + run.claim.lease_ms / 1000)
                if run.id in cancelled:
                    self._stop(run, "cancelled")

    def _stop(self, run: Run, reason: str) -> None:
        def on_loop() -> None:
            # By now the run may have ended and been forgotten; its successor has another token.
            if self._runs.get(run.id) is run:
                run.stop(reason)  # pyright: ignore[reportArgumentType] one of two literals

        self._loop.call_soon_threadsafe(on_loop)


def _interval(runs: list[Run]) -> float:
    """A third of the shortest lease: two beats may be lost before one runs out."""
    return min(_LONGEST, min(run.claim.lease_ms for run in runs) / 3000)
