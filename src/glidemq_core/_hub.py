"""Readers of one queue in one process: any number of streams and results on one subscription.

News says which jobs have new chunks or have ended; then one bounded call reads them all. No reader holds a blocked
connection. Lost news is bounded: after two seconds of silence everything watched is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, cast

from ._chunk import Chunk, Naming
from ._client import Client, Subscriber
from .errors import ConnectionLost, GlideMQError, StreamGap

logger = logging.getLogger(__name__)

_SILENCE: Final = 2.0
_CALL_BYTES: Final = 262_144
_CALL_JOBS: Final = 256
_LIMIT: Final = 512
_HIGH_WATER: Final = 2048


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job has ended: its state ("gone" if unknown), and as stored: result, error (JSON texts), reason, attempt."""

    state: str
    result: str = ""
    error: str = ""
    reason: str = ""
    attempt: int = 1


class Reader:
    """One reader of one job's stream. `position` is the id of the last chunk it was given."""

    def __init__(self, job_id: str, after: str) -> None:
        self.job_id = job_id
        self.position = after
        self.is_explicit = after != ""
        self.naming = Naming(after)
        self.chunks: deque[Chunk] = deque()
        self.failure: GlideMQError | None = None
        self.is_ended = False
        self.is_held_back = False
        self.arrived = asyncio.Event()

    async def next(self) -> Chunk | None:
        """The next chunk; None after the end.

        Raises:
            StreamGap: What followed `position` has been trimmed.
        """
        while not self.chunks:
            if self.failure is not None:
                raise self.failure
            if self.is_ended:
                return None
            self.arrived.clear()
            await self.arrived.wait()
        return self.chunks.popleft()


class Hub:
    """Follows jobs of one queue for all readers of this process."""

    def __init__(self, client: Client, subscriber: Subscriber, root: str, channel: str) -> None:
        self._client = client
        self._subscriber = subscriber
        self._root = root
        self._channel = channel
        self._readers: dict[str, list[Reader]] = {}
        self._endings: dict[str, list[asyncio.Future[Ending]]] = {}
        self._dirty: dict[str, bool] = {}  # jobs to look at, and whether they may have ended
        self._news = asyncio.Event()
        self._told_at = float("-inf")
        self._untold: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def open(self, job_id: str, after: str) -> Reader:
        """Start to read a stream after a chunk's id ("" from the beginning)."""
        reader = Reader(job_id, after)
        self._readers.setdefault(job_id, []).append(reader)
        self._untold.add(job_id)
        await self._look_at(job_id)
        return reader

    def leave(self, reader: Reader) -> None:
        """Stop reading."""
        readers = self._readers.get(reader.job_id, [])
        if reader in readers:
            readers.remove(reader)
        if not readers:
            self._readers.pop(reader.job_id, None)

    def resume(self, reader: Reader) -> None:
        """A reader has emptied its buffer: look whether it was held back."""
        if reader.is_held_back:
            reader.is_held_back = False
            self._dirty.setdefault(reader.job_id, False)
            self._news.set()

    async def ending(self, job_id: str) -> Ending:
        """Wait until a job has ended."""
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._endings.setdefault(job_id, []).append(future)
        try:
            await self._look_at(job_id)
            return await future
        finally:
            waiting = self._endings.get(job_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._endings.pop(job_id, None)

    async def close(self) -> None:
        """End the reading; readers end as if their job had."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
            await self._subscriber.remove(self._channel, self._on_news)
        for readers in self._readers.values():
            for reader in readers:
                reader.is_ended = True
                reader.arrived.set()
        for futures in self._endings.values():
            for future in futures:
                if not future.done():
                    future.set_exception(
                        ConnectionLost("the queue was closed while a result was awaited")
                    )

    async def _look_at(self, job_id: str) -> None:
        self._dirty[job_id] = True
        self._news.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
            await self._subscriber.add(self._channel, self._on_news)
            # What happened between the first look and the subscription has made no news.
            self._look_at_all()

    def _look_at_all(self) -> None:
        self._dirty |= dict.fromkeys([*self._readers, *self._endings], True)
        self._news.set()

    def _on_news(self, _channel: str, message: bytes) -> None:
        may_have_ended = not message.startswith(b"\n")
        for job_id in message.decode().split("\n"):
            if may_have_ended and (job_id in self._endings or job_id in self._readers):
                self._dirty[job_id] = True
            elif job_id in self._readers:
                self._dirty.setdefault(job_id, False)
        if self._dirty:
            self._news.set()

    async def _work(self) -> None:
        while True:
            self._news.clear()
            if not self._dirty:
                await self._wait_for_news()
            try:
                await self._read_dirty()
                await self._tell_readers()
            except ConnectionLost as error:
                logger.warning("readers of %s wait for the server: %s", self._root, error)
                await asyncio.sleep(_SILENCE / 4)
            except GlideMQError as error:
                self._fail(error)

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(_SILENCE):
                await self._news.wait()
        except TimeoutError:
            self._look_at_all()

    async def _tell_readers(self) -> None:
        """Let jobs that stop when nobody reads them know that somebody does."""
        now = asyncio.get_running_loop().time()
        ids = list(self._untold & self._readers.keys())
        if now >= self._told_at + _SILENCE:
            ids, self._told_at = list(self._readers), now
        self._untold.clear()
        for start in range(0, len(ids), _CALL_JOBS):
            part = ids[start : start + _CALL_JOBS]
            await self._client.call("stream_watch", self._root, {"ids": part})

    async def _read_dirty(self) -> None:
        jobs = list(self._dirty)[:_CALL_JOBS]
        batch = {job_id: self._dirty.pop(job_id) for job_id in jobs}
        readers: list[Reader] = []
        for reader in (reader for job_id in batch for reader in self._readers.get(job_id, [])):
            reader.is_held_back = len(reader.chunks) >= _HIGH_WATER
            if not reader.is_ended and not reader.is_held_back:
                readers.append(reader)
        try:
            for start in range(0, len(readers), _CALL_JOBS):
                await self._read(readers[start : start + _CALL_JOBS])
            await self._read_endings(
                [job_id for job_id in batch if batch[job_id] and job_id in self._endings]
            )
        except ConnectionLost:
            self._dirty |= dict.fromkeys(batch, True)
            raise

    async def _read(self, readers: list[Reader]) -> None:
        args: dict[str, object] = {
            "jobs": [
                [reader.job_id, reader.position, not reader.naming.is_known] for reader in readers
            ],
            "limit": _LIMIT,
            "bytes": _CALL_BYTES,
        }
        rows = cast(
            "list[list[Any]]", await self._client.call("stream_read_many", self._root, args)
        )
        for i, reader in enumerate(readers):
            if i >= len(rows):
                self._dirty.setdefault(
                    reader.job_id, False
                )  # the call was full: first in the next round
            elif self._deliver(reader, *rows[i]):
                self._dirty.setdefault(reader.job_id, False)

    def _deliver(
        self, reader: Reader, entries: list[Any], gap: bytes, end: bytes, call: bytes
    ) -> bool:
        """Give a reader its chunks; answers whether there may be more right away."""
        if gap and reader.is_explicit:
            reader.failure = StreamGap(reader.job_id, after=reader.position, first=gap.decode())
            reader.is_ended = True
        elif gap:
            reader.chunks.append(Chunk(gap.decode(), "gap", gap.decode()))
        if not reader.is_ended:
            reader.chunks.extend(reader.naming.chunks(entries, call))
        if entries:
            reader.position = entries[-1][0].decode()
            reader.is_explicit = True
            reader.is_ended = reader.is_ended or reader.chunks[-1].type == "end"
        if end and not reader.is_ended:
            reader.chunks.append(Chunk(reader.position, "end", end.decode()))
            reader.is_ended = True
        if reader.chunks or reader.is_ended:
            reader.arrived.set()
        return bool(entries) and not reader.is_ended and len(entries) >= _LIMIT

    async def _read_endings(self, ids: list[str]) -> None:
        if not ids:
            return
        # Who asks while the call is on its way may do so after a retry: what comes back is too old for that.
        asked = {job_id: list(self._endings.get(job_id, [])) for job_id in ids}
        rows = cast(
            "list[list[bytes]]", await self._client.call("job_ends", self._root, {"ids": ids})
        )
        for job_id, row in zip(ids, rows, strict=True):
            if not row[0]:
                continue
            ending = _ending_of([part.decode() for part in row])
            for future in asked[job_id]:
                if not future.done():
                    future.set_result(ending)

    def _fail(self, error: GlideMQError) -> None:
        for readers in self._readers.values():
            for reader in readers:
                reader.failure = error
                reader.arrived.set()
        for futures in self._endings.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)


def _ending_of(texts: list[str]) -> Ending:
    if len(texts) < 5:
        return Ending(texts[0])
    state, result, error, reason, attempt = texts
    return Ending(state, result, error, reason, int(attempt))
