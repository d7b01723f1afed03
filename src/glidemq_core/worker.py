"""The worker: takes jobs of one queue and runs a handler for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import Self

from . import _keys
from ._client import release_client, shared_client
from ._engine import Engine, Settings
from ._executor import Handlers, check_handlers
from ._target import Target, resolve
from ._turns import TurnSettings
from ._units import Seconds, seconds, whole
from .errors import GlideMQError, InvalidOption
from .options import Keep, keep_text
from .retry import MAX_RETRY_AFTER, BackoffFunction
from .throttle import Throttle, wires_of

logger = logging.getLogger(__name__)


class Worker:
    """Runs jobs of one queue.

    Args:
        queue: The queue's name.
        handler: Called with the running job: async or sync (in a thread of its own), or a mapping of job name to
            such a handler. What it returns is the job's result.
        connection: URL of the server; default `GLIDEMQ_URL`, else the embedded one.
        concurrency: How many jobs run at once.
        lock_duration: Length of a lease in seconds: how long a dead worker goes unnoticed. A job's own comes first.
        max_stalled: How often a job may lose its lease before it fails as "stalled".
        grace: Seconds that running jobs get to finish when the worker is told to stop.
        max_loop_stall: Seconds without progress of the event loop after which leases are no longer renewed.
        max_retry_after: Seconds that an error's `retry_after` (a provider's) puts its job off at most.
        backoffs: Functions for jobs whose `backoff` is a name.
        remove_on_complete, remove_on_fail: Retention of finished jobs that do not say so themselves.
        limits: Limiters by name that the model calls of all its jobs pass, beside those of the job, of its queue
            (`Queue.set_limits`) and of its handler (`limited`); in the job's ledger.
        dead_letter: A queue that gets a copy of every job that fails for good, whatever the reason,
            with its data, options and error.
        name: Shown on jobs and in listings; made unique per process start.

    Use `await worker.run()` in a process of its own (it stops on SIGTERM and SIGINT: first time gracefully, second time
    now), or `async with worker:` to run it in the background.
    """

    def __init__(
        self,
        queue: str,
        handler: Handlers,
        *,
        connection: str | Target | None = None,
        concurrency: int = 1,
        lock_duration: Seconds = 30,
        max_stalled: int = 3,
        grace: Seconds = 30,
        max_loop_stall: Seconds = 60,
        max_retry_after: Seconds = MAX_RETRY_AFTER,
        backoffs: Mapping[str, BackoffFunction] | None = None,
        remove_on_complete: bool | int | Keep | None = None,
        remove_on_fail: bool | int | Keep | None = None,
        limits: Mapping[str, Throttle] | None = None,
        dead_letter: str | None = None,
        name: str | None = None,
    ) -> None:
        lease = seconds(lock_duration, "lock_duration", low=0.1)
        if lease > 86_400:
            raise InvalidOption("lock_duration", lock_duration, "longer than a day")
        self._settings = Settings(
            queue=_keys.check_name(queue, "queue"),
            connection=connection,
            concurrency=whole(concurrency, "concurrency", low=1, high=10_000),
            grace=seconds(grace, "grace"),
            max_loop_stall=seconds(max_loop_stall, "max_loop_stall", low=0.1),
            max_retry_after=seconds(max_retry_after, "max_retry_after"),
            limits=wires_of(limits, "limits"),
            turn=TurnSettings(
                worker=_unique_name(name),
                lease=lease,
                max_stalled=whole(max_stalled, "max_stalled", high=1000),
                keep_completed=keep_text(remove_on_complete, "remove_on_complete"),
                keep_failed=keep_text(remove_on_fail, "remove_on_fail"),
                dead_letter=dead_letter and _keys.check_name(dead_letter, "dead_letter"),
            ),
        )
        self._backoffs = dict(backoffs or {})
        self._handlers = handler
        self._engine: Engine | None = None
        self._background: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._stop_asked = False
        check_handlers(handler)  # wrong ones are told here, not by the first job

    @property
    def name(self) -> str:
        """The worker's name, unique per process start."""
        return self._settings.turn.worker

    async def run(self) -> None:
        """Run until stopped: by `stop()`, SIGTERM or SIGINT."""
        with _signals(self._on_signal):
            await self._work()

    async def stop(self, *, grace: Seconds | None = None) -> None:
        """Stop gracefully: take no more jobs, hand back those not started, let the running ones finish.

        Args:
            grace: Seconds to let them; then they go back to the queue without using an attempt. Default: the worker's.
        """
        self._stop_asked = True
        if self._engine is not None:
            await self._engine.stop(
                self._settings.grace if grace is None else seconds(grace, "grace")
            )

    async def __aenter__(self) -> Self:
        self._background = asyncio.get_running_loop().create_task(self._work_unseen())
        started = asyncio.get_running_loop().create_task(self._started.wait())
        await asyncio.wait({self._background, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._background.done():
            self._background.result()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._background is not None:
            await self.stop()
            await self._background

    async def _work_unseen(self) -> None:
        try:
            await self._work()
        except GlideMQError:
            # It is raised where the block ends, which may be in days.
            logger.exception("worker %s has ended", self.name)
            raise

    async def _work(self) -> None:
        if self._engine is not None:
            raise InvalidOption(
                "worker", self.name, "is running already; make another Worker to run it twice"
            )
        target = resolve(self._settings.connection)
        client = await shared_client(target)
        try:
            engine = self._engine = Engine(
                self._settings, self._handlers, self._backoffs, client, target
            )
            if self._stop_asked:
                engine.begin_stop(0)
            self._started.set()
            await _settled(engine)
        finally:
            self._engine = None
            await release_client(client)

    def _on_signal(self) -> None:
        if self._engine is None:
            self._stop_asked = True
        else:
            self._engine.begin_stop(0 if self._engine.is_stopping else self._settings.grace)


async def _settled(engine: Engine) -> None:
    """Run an engine to its end. Cancelled, it first gives back what it runs: else handlers would go on without a lease."""
    running = asyncio.get_running_loop().create_task(engine.run())
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        if not running.done():
            engine.begin_stop(0)
            try:
                await running
            finally:
                running.cancel()
        raise


def _unique_name(name: str | None) -> str:
    """`name` (default: host and pid) and a random part: a name is never used by two process starts."""
    base = (
        name
        if name is not None
        else f"{re.sub(r'[^A-Za-z0-9_.-]', '-', socket.gethostname())}-{os.getpid()}"
    )
    return f"{_keys.check_name(base, 'name')}-{secrets.token_hex(3)}"


@contextlib.contextmanager
def _signals(on_signal: Callable[[], None]) -> Generator[None]:
    """Call `on_signal` on SIGTERM and SIGINT, where the loop can: in the main thread of a Unix process."""
    loop = asyncio.get_running_loop()
    added: list[signal.Signals] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, on_signal)
            added.append(number)
    try:
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)
