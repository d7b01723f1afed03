"""The heartbeat: one call per worker renews all its leases, from a thread and a client of its own.

So a busy event loop loses no job; but a loop that has made no progress for `max_loop_stall` seconds is given up: its
leases are not renewed any more. And the worker fences itself: a run whose lease must have expired, by the monotonic
clock (SIGSTOP, a sleeping machine, a cut network), is stopped before the server is asked.
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
        max_loop_stall: float,
    ) -> None:
        self._connect = connect
        self._root = root
        self._worker = worker
        self._runs = runs
        self._max_loop_stall = max_loop_stall
        self._loop = asyncio.get_running_loop()
        self._loop_alive_at = time.monotonic()
        self._kick = threading.Event()
        self._is_closed = False
        self._ticker = self._loop.call_later(_TICK, self._tick)
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
        self._loop_alive_at = time.monotonic()
        self._ticker = self._loop.call_later(_TICK, self._tick)

    def _body(self) -> None:
        client = self._connect()
        due_at = time.monotonic()
        while not self._is_closed:
            runs = list(self._runs.values())
            kicked = self._kick.wait(self._pause(runs, due_at))
            self._kick.clear()
            now = time.monotonic()
            runs = [run for run in self._runs.copy().values() if not self._fenced(run, now)]
            if self._is_closed or not runs or not (kicked or now >= due_at):
                continue
            if self._loop_is_stuck(now):
                continue
            self._beat(client, runs, now)
            due_at = now + _interval(runs)
        client.close()

    def _pause(self, runs: list[Run], due_at: float) -> float | None:
        """Seconds to sleep: until the next beat or the first fence; for ever while nothing runs."""
        if not runs:
            return None
        now = time.monotonic()
        first_fence = min(run.fence_at for run in runs)
        return max(min(due_at, now + _interval(runs), first_fence) - now, 0.001)

    def _fenced(self, run: Run, now: float) -> bool:
        if now < run.fence_at:
            return False
        if run.stop_reason != "lease_lost":
            logger.warning(
                "job %s: the lease can't have been renewed in time; its run is stopped", run.id
            )
            run.fence_at = float("inf")
            self._stop(run, "lease_lost")
        return True

    def _loop_is_stuck(self, now: float) -> bool:
        stalled = now - self._loop_alive_at
        if stalled < self._max_loop_stall:
            return False
        logger.error("the event loop has been stuck for %.1f s; leases are given up", stalled)
        return True

    def _beat(self, client: SyncClient, runs: list[Run], now: float) -> None:
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
                return
            self._apply(part, started, reply, now)

    def _apply(self, part: list[Run], started: list[Run], reply: _BeatReply, now: float) -> None:
        lost, cancelled = set(reply.lost), set(reply.cancelled)
        for run in started:
            run.is_started_known = True
        for run in part:
            if run.id in lost:
                self._stop(run, "lease_lost")
            else:
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
