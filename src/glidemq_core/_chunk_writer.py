"""The one writer of a worker's streams: it carries the chunks of all its jobs in natural batches, in order.

A lone chunk leaves at once; while two appends are on their way, new chunks gather. No job has more than one part on its
way, so that order is kept whatever is repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from ._chunk import MARK, MARK_EACH, open_after
from ._client import Client
from ._codec import checked_text, dumps
from ._run import Run
from .errors import ConnectionLost, GlideMQError

logger = logging.getLogger(__name__)

_MAX_CHUNKS: Final = 256
_MAX_BYTES: Final = 262_144
_MAX_FLIGHTS: Final = 2
_HIGH_WATER: Final = 1_048_576
_ENTRY_BYTES: Final = 40


class _PartReply(msgspec.Struct, array_like=True):
    id: str
    code: str
    last: str


_replies = msgspec.msgpack.Decoder(list[_PartReply])


class ChunkWriter:
    """Appends chunks of the runs of one worker to their jobs' streams."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root
        self._dirty: deque[Run] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def put(self, run: Run, type: str, content: str, fields: Mapping[str, object]) -> None:
        """Take one chunk; it is on its way before the next pause of the loop ends."""
        content = checked_text(content, "content")
        call = fields.get("call")
        if isinstance(call, str):
            run.open_call = open_after(run.open_call, type, call)
        if run.open_call and (run.seq + 1) % MARK_EACH == 0:
            fields = {**fields, MARK: run.open_call}
        piece = [type, content, dumps(fields, "fields")] if fields else [type, content]
        run.seq += 1
        if not run.unsent and not run.in_flight:
            self._dirty.append(run)
        run.unsent.append(piece)
        run.unsent_bytes += len(content) + _ENTRY_BYTES
        if len(self._flights) < _MAX_FLIGHTS:
            self._launch()

    @staticmethod
    def is_full(run: Run) -> bool:
        """Has the run more unsent than a writer should hold?"""
        return run.unsent_bytes > _HIGH_WATER

    async def room(self, run: Run) -> None:
        """Wait until the run's buffer is below its mark."""
        while self.is_full(run) and run.stop_reason != "lease_lost":
            await self._wait()

    async def drain(self, run: Run) -> None:
        """Wait until everything the run has written is acknowledged."""
        while (run.unsent or run.in_flight) and run.stop_reason != "lease_lost":
            await self._wait()

    async def tail(self, run: Run) -> tuple[int, list[list[str]]] | None:
        """Wait for what is on its way; answers the rest, to travel with the run's outcome: (first seq, chunks)."""
        while run.in_flight or run.unsent_bytes > _MAX_BYTES:
            if run.stop_reason == "lease_lost":
                return None
            await self._wait()
        if not run.unsent:
            return None
        chunks, run.unsent, run.unsent_bytes = run.unsent, [], 0
        return run.seq - len(chunks) + 1, chunks

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _launch(self) -> None:
        flight = asyncio.get_running_loop().create_task(self._flight())
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)

    async def _flight(self) -> None:
        while self._dirty:
            runs, parts = self._take()
            if parts:
                try:
                    self._settle(runs, await self._send(parts))
                except GlideMQError as error:
                    # The server refuses them for good. Left like this, their jobs would wait for ever to end.
                    logger.warning("chunks can't be written, their runs are given up: %s", error)
                    self._settle(runs, [_PartReply(run.id, "s", "") for run in runs])
            self._changed.set()

    def _take(self) -> tuple[list[Run], list[list[object]]]:
        """Up to a call's worth of chunks, oldest first."""
        runs: list[Run] = []
        parts: list[list[object]] = []
        chunks = size = 0
        while self._dirty and chunks < _MAX_CHUNKS and size < _MAX_BYTES:
            run = self._dirty.popleft()
            if not run.unsent or run.stop_reason == "lease_lost":
                continue
            count, bytes_ = _fitting(run, _MAX_CHUNKS - chunks, _MAX_BYTES - size)
            first = run.seq - len(run.unsent) + 1
            parts.append([run.id, run.token, run.claim.run, first, run.unsent[:count]])
            del run.unsent[:count]
            run.unsent_bytes -= bytes_
            run.in_flight = count
            runs.append(run)
            chunks += count
            size += bytes_
        return runs, parts

    async def _send(self, parts: list[list[object]]) -> list[_PartReply]:
        """Append until answered: the server skips what it has, so that repeating is safe."""
        while True:
            try:
                reply = await self._client.call("stream_append", self._root, {"parts": parts})
            except ConnectionLost as error:
                logger.warning("chunks are held back: %s", error)
                continue
            return _replies.decode(reply)

    def _settle(self, runs: list[Run], replies: list[_PartReply]) -> None:
        for run, reply in zip(runs, replies, strict=True):
            run.in_flight = 0
            if reply.code != "o":
                run.unsent.clear()
                run.unsent_bytes = 0
                run.stop("lease_lost")
            elif run.unsent:
                self._dirty.append(run)


def _fitting(run: Run, chunks: int, size: int) -> tuple[int, int]:
    """How many of a run's chunks fit into the rest of a call, at least one, and their bytes."""
    count = bytes_ = 0
    for piece in run.unsent:
        if count and (count >= chunks or bytes_ >= size):
            break
        count += 1
        bytes_ += len(piece[1]) + _ENTRY_BYTES
    return count, bytes_
