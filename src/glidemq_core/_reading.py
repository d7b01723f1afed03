"""Reading from a queue: streams, results, events, sums of usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec

from . import _keys
from ._chunk import Chunk, Naming
from ._codec import loads
from ._hub import Ending, Hub
from ._opened import Opened
from ._target import Target
from ._units import Seconds, seconds, whole
from .errors import JobCancelled, JobFailed, JobNotFound, StreamGap
from .job import error_of
from .stream import JobStream
from .usage import UsageSummary, span_of, summary_of


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a queue.

    Attributes:
        id: Its place; give the last one seen as `after=` to go on from there.
        type: The state that a job has come into ("waiting", "delayed", "active", "waiting_children", "suspended",
            "completed", "failed", "cancelled"), or "added", "stalled", "progress", "usage", "signal", "removed",
            "paused", "resumed".
        job_id: The job, "" for events of the queue.
        details: Of a "usage" event, the call: call, model, provider, run, attempt, status, tokens per category, costs
            per name (decimal texts). Empty for all others.
    """

    id: str
    type: str
    job_id: str
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker that has called within the last ten minutes.

    Attributes:
        name: Host, process and a random part, or the name it was given.
        idle: Seconds since its last call; one that is well calls every two seconds, or a third of its shortest lease.
        jobs: How many it holds; those of a dead worker are taken back when their leases expire.
    """

    name: str
    idle: float
    jobs: int


class QueueReader:
    """The part of a queue that only reads. See `Queue`."""

    def __init__(self, name: str, *, connection: str | Target | None = None) -> None:
        self.name = _keys.check_name(name, "name")
        self._root = _keys.root_of(name)
        self._opened = Opened(connection, self._root)

    def stream(self, id: str, *, after: str | None = None, latest: bool = False) -> JobStream:
        """Read a job's chunks, live; ends by itself when the job has ended.

        Args:
            after: The id of the last chunk seen, to go on from there. Default: from the beginning.
            latest: Leave out what was superseded before it could be delivered: text of attempts that failed.
        """
        return JobStream(
            self._hub, _keys.check_name(id, "id"), _keys.check_place(after, "after"), latest=latest
        )

    async def read_stream(
        self, id: str, *, after: str | None = None, limit: int = 100, block: Seconds | None = None
    ) -> list[Chunk]:
        """Read some of a job's chunks, once.

        Args:
            after: The id of the last chunk seen. Default: from the beginning.
            limit: How many at most.
            block: Seconds to wait for a chunk if there is none; default: do not wait.

        Raises:
            StreamGap: What followed `after` has been trimmed.
        """
        _keys.check_name(id, "id")
        wait = None if block is None else seconds(block, "block")
        chunks = await self._read_once(
            id, _keys.check_place(after, "after"), whole(limit, "limit", low=1, high=10_000)
        )
        if chunks or not wait:
            return chunks
        hub = await self._hub()
        reader = await hub.open(id, after or "")
        try:
            async with asyncio.timeout(wait):
                chunk = await reader.next()
        except TimeoutError:
            return []
        finally:
            hub.leave(reader)
        return [] if chunk is None else [chunk, *reader.chunks][:limit]

    async def result(self, id: str, *, timeout: Seconds | None = None) -> Any:
        """Wait until a job has ended; answers what its handler returned.

        Args:
            timeout: Seconds to wait; default: as long as it takes.

        Raises:
            JobFailed: It failed; the error says why.
            JobCancelled: It was cancelled.
            JobNotFound: It is not known (never added, or removed since).
            TimeoutError: It has not ended in time.
        """
        _keys.check_name(id, "id")
        hub = await self._hub()
        async with asyncio.timeout(None if timeout is None else seconds(timeout, "timeout")):
            ending = await hub.ending(id)
        return _result_of(id, ending, self.name)

    async def events(self, *, after: str | None = None) -> AsyncIterator[Event]:
        """The queue's events, live, each once and in order.

        Args:
            after: The id of the last event seen, to go on from there; "" for all that are kept. Default: from now on.

        Raises:
            StreamGap: Events after that one have been trimmed (about the last 5,000 calls are kept).
        """
        position = _keys.check_place(after, "after")
        if after is None:
            position = (await self._call("event_read", {"after": "$", "limit": 1}))[1].decode()
        while True:
            first, _, entries = await self._call("event_read", {"after": position, "limit": 100})
            if position and first and _is_older(position, first.decode()):
                raise StreamGap("", after=position, first=first.decode())
            for entry_id, fields in entries:
                position = entry_id.decode()
                for event in _events_of(position, fields):
                    yield event
            if not entries:
                await asyncio.sleep(0.1)  # no subscription for events: a steady listener polls

    async def workers(self) -> list[WorkerState]:
        """The workers of this queue that have called within ten minutes, the latest caller first; 1,000 at most."""
        rows = msgspec.msgpack.decode(await self._call("queue_workers", {}))
        return [WorkerState(name, idle / 1000, jobs) for name, idle, jobs in rows]

    async def usage_summary(
        self,
        *,
        window: Seconds | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        queues: Sequence[str] = (),
        models: Sequence[str] | None = None,
    ) -> UsageSummary:
        """What jobs have used in a span of time, per model and per queue; those that failed or were removed, too.

        Counted when it was reported: in whole minutes, or in whole hours if the span begins more than 24 hours ago.

        Args:
            window: The last so many seconds, 31 days at most. Default: an hour.
            start, end: Or from one aware instant to another one, at most 31 days ago; default: to now.
            queues: Names of further queues on this server that are added up with this one.
            models: Count these models only.
        """
        now = (await self._call("queue_usage", {"first": 0, "last": 0}))[0]
        wanted = None if models is None else _keys.check_list(models, "models")
        span = span_of(now, window=window, start=start, end=end)
        names = dict.fromkeys([self.name, *_keys.check_list(queues, "queues")])
        client = (await self._opened.here()).client
        rows: dict[str, list[Any]] = {}
        for name in names:
            root = _keys.root_of(_keys.check_name(name, "queues"))
            rows[name] = []
            for args in span.pages():
                rows[name] += (await client.call("queue_usage", root, args))[1:]
        return summary_of(rows, wanted)

    async def _hub(self) -> Hub:
        return (await self._opened.here()).hub

    async def _call(self, name: str, args: dict[str, object]) -> Any:
        parts = await self._opened.here()
        return await parts.client.call(name, self._root, args)

    async def _read_once(self, id: str, after: str, limit: int) -> list[Chunk]:
        naming = Naming(after)
        wanted = [id, after, not naming.is_known]
        args: dict[str, object] = {"jobs": [wanted], "limit": limit, "bytes": 16_777_216}
        entries, gap, end, call = (await self._call("stream_read_many", args))[0]
        if gap and after:
            raise StreamGap(id, after=after, first=gap.decode())
        chunks = naming.chunks(entries, call)
        if end:
            chunks.append(Chunk(after, "end", end.decode()))
        return chunks


def _events_of(place: str, fields: Sequence[bytes]) -> Iterator[Event]:
    """The events of one entry; a pair named "+" tells more of the one before."""
    last: Event | None = None
    for i in range(0, len(fields), 2):
        kind, text = fields[i].decode(), fields[i + 1]
        if kind == "+" and last is not None:
            last = replace(last, details=loads(text))
            continue
        if last is not None:
            yield last
        last = Event(place, kind, text.decode())
    if last is not None:
        yield last


def _is_older(a: str, b: str) -> bool:
    return tuple(map(int, a.split("-"))) < tuple(map(int, b.split("-")))


def _result_of(id: str, ending: Ending, queue: str) -> Any:
    if ending.state == "completed":
        return loads(ending.result) if ending.result else None
    if ending.state == "gone":
        raise JobNotFound(id, queue=queue)
    error = error_of(ending.error)
    kind = JobCancelled if ending.state == "cancelled" else JobFailed
    raise kind(
        id,
        reason=ending.reason,
        error_class=error.error_class,
        error_message=error.message,
        traceback=error.traceback,
        attempt=ending.attempt,
    )
