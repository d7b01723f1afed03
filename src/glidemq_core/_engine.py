"""What a worker is while it runs: the parts that share one client, wired together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from . import _keys
from ._chunk_writer import ChunkWriter
from ._client import BlockingClient, Client
from ._consumer import Consumer
from ._executor import Executor, Handlers
from ._glide_setup import REQUEST_TIMEOUT_MS
from ._heartbeat import Heartbeat
from ._ledgers import Ledgers
from ._relay import Relay
from ._sync_client import SyncClient
from ._target import Target
from ._turns import Turns, TurnSettings
from .errors import ConnectionLost, OutOfMemory
from .retry import BackoffFunction

logger = logging.getLogger(__name__)

_BLOCK: Final = 2.0
# In one: should this process die before it reads the message, it must not stay for ever.
_LOOK: Final = "redis.call('RPUSH', KEYS[1], 'look') return redis.call('EXPIRE', KEYS[1], 60)"
_IDLE_WAIT: Final = 0.25
_RECONNECT_PAUSE: Final = 0.25
# How long a stopping worker tries to hand in what it has to a server that does not answer; the first is more than what
# a stopped handler gets before it is abandoned.
_PATIENCE: Final = 15.0
_LAST_WORDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A worker's checked settings; durations in seconds."""

    queue: str
    connection: str | Target | None
    concurrency: int
    grace: float
    max_loop_stall: float
    max_retry_after: float
    turn: TurnSettings
    limits: Sequence[Mapping[str, object]] = ()


class WorkerHost:
    """What running jobs need of their worker (see `context.Host`)."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.client = client
        self.queue = settings.queue
        self.root = _keys.root_of(settings.queue)
        self.name = settings.turn.worker
        self.writer = ChunkWriter(client, self.root)
        self.ledger = Ledgers(client, self.root)
        self.relay = Relay(client, self.root)
        self.turns = Turns(client, self.root, settings.turn)
        self._limits = settings.limits
        self.now = time.monotonic

    @property
    def limits(self) -> Sequence[Mapping[str, object]]:
        """The limiters of all its jobs' model calls."""
        return [*self._limits, *self.turns.limits]


class Engine:
    """Takes jobs and runs them until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        handlers: Handlers,
        backoffs: Mapping[str, BackoffFunction],
        client: Client,
        target: Target,
    ) -> None:
        self._settings = settings
        self._target = target
        self._host = WorkerHost(settings, client)
        self._blocking = BlockingClient(target)
        executor = Executor(handlers, backoffs, self._host, settings.max_retry_after)
        self._relay = self._host.relay
        self._consumer = Consumer(
            self._host.turns, executor, self._host.writer, self._relay, settings.concurrency
        )
        self._deadline: asyncio.TimerHandle | None = None
        self._give_up_at: float | None = None
        self._limit: asyncio.Timeout | None = None
        self._stopped = asyncio.Event()
        self.is_stopping = False

    async def run(self) -> None:
        """Work until stopped and everything in hand is settled."""
        heartbeat = Heartbeat(
            self._heartbeat_client,
            self._host.root,
            self._host.name,
            self._consumer.runs,
            lease=self._settings.turn.lease,
            max_loop_stall=self._settings.max_loop_stall,
        )
        self._consumer.heartbeat = heartbeat
        listener = asyncio.get_running_loop().create_task(self._listen())
        try:
            async with asyncio.timeout_at(self._give_up_at) as self._limit:
                await self._work()
        except TimeoutError:
            self._limit = None
            logger.warning(
                "worker %s can't hand in what it has: its leases will run out", self._host.name
            )
        finally:
            # The leases of running jobs were renewed up to here.
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener
            await self._blocking.close()
            await heartbeat.close()
            if self._deadline is not None:
                self._deadline.cancel()
            self._consumer.close()
            self._stopped.set()
            logger.info("worker %s has stopped", self._host.name)

    async def _work(self) -> None:
        await self._host.ledger.begin()
        logger.info("worker %s takes jobs of queue %s", self._host.name, self._host.queue)
        await self._consumer.consume()
        await self._relay.close()
        await self._host.ledger.close()
        self._limit = None

    def _heartbeat_client(self) -> SyncClient:
        # Of short leases, a beat must fail in time for another one.
        lease = self._settings.turn.lease
        return SyncClient(self._target, timeout=min(REQUEST_TIMEOUT_MS / 1000, max(1.0, lease / 3)))

    def begin_stop(self, grace: float) -> None:
        """Take no more jobs; after `grace` seconds, stop what still runs. Asked again, do not wait for the server long."""
        patience = _LAST_WORDS if self.is_stopping else _PATIENCE
        self.is_stopping = True
        self._consumer.drain()
        self._give_up_at = asyncio.get_running_loop().time() + grace + patience
        if self._limit is not None:
            self._limit.reschedule(self._give_up_at)
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(grace, self._consumer.stop_all)

    async def stop(self, grace: float) -> None:
        """Begin to stop, and wait for it."""
        self.begin_stop(grace)
        await self._stopped.wait()

    async def _listen(self) -> None:
        """Wait on the worker's inbox always, and on the queue's wake token while there are free slots."""
        inbox = _keys.inbox(self._host.root, self._host.name)
        wake = _keys.wake(self._host.root)
        while True:
            # Not wait_for: before Python 3.12 it swallows a cancellation that meets the end of what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_WAIT):
                    await self._consumer.wait_idle()
            try:
                if self._consumer.is_idle():
                    got = await self._blocking.pop([inbox, wake], _BLOCK)
                else:
                    got = await self._pop_inbox(inbox)
            except ConnectionLost as error:
                logger.warning("worker %s can't wait for news: %s", self._host.name, error)
                await asyncio.sleep(_RECONNECT_PAUSE)
                self._consumer.wake()
                continue
            if got is not None and got[0] == inbox:
                self._hear(got[1])
            elif got is not None:
                self._consumer.wake()

    async def _pop_inbox(self, inbox: str) -> tuple[str, bytes] | None:
        """Wait on the inbox alone; when slots become free meanwhile, end the wait by a message to oneself."""
        loop = asyncio.get_running_loop()
        pop = loop.create_task(self._blocking.pop([inbox], _BLOCK))
        idle = loop.create_task(self._consumer.wait_idle())
        try:
            await asyncio.wait({pop, idle}, return_when=asyncio.FIRST_COMPLETED)
            if not pop.done():
                await self._host.client.command("EVAL", _LOOK, "1", inbox, near=inbox)
            return await pop
        except OutOfMemory:
            return None  # a full server takes no message: the wait is ended by its connection's end
        finally:
            idle.cancel()
            if not pop.done():
                pop.cancel()
                await asyncio.wait({pop})

    def _hear(self, message: bytes) -> None:
        word, _, rest = message.decode().partition(" ")
        if word == "cancel":
            job_id, _, token = rest.partition(" ")
            self._consumer.stop_run(job_id, token)
