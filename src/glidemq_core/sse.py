"""A job's stream as server-sent events, for browsers: any web framework that can send bytes will do.

    @app.get("/jobs/{id}/stream")
    async def stream(id: str, request: Request) -> StreamingResponse:
        chunks = queue.stream(id, after=sse.last_event_id(request.headers))
        return StreamingResponse(sse.events(chunks), headers=sse.HEADERS)

Every event has the chunk's id, so a browser that reconnects says by itself where it was. Its `data` is one line of JSON.
The last event is `end` (or `gap`, where chunks have been trimmed): close the EventSource there, else it reconnects.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from ._units import Seconds, seconds
from .errors import InvalidOption, StreamGap
from .stream import Chunk

HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect chunks otherwise
}
KEEP_ALIVE: Final = b": keep-alive\n\n"

_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_to_json = msgspec.json.Encoder().encode


def encode(chunk: Chunk) -> bytes:
    """A chunk as one event: its id, its type as the event's name, and JSON of type, content, epoch, seq, call, fields.

    Line breaks in a chunk can't end the event or begin another: JSON escapes them in `data`, and an event's name that
    holds one is sent as `message`; the real type is in the data.
    """
    data: dict[str, Any] = {"type": chunk.type, "content": chunk.content}
    if chunk.epoch:
        data |= {"epoch": chunk.epoch, "seq": chunk.seq}
    if chunk.call:
        data["call"] = chunk.call
    if chunk.fields:
        data["fields"] = chunk.fields
    return _event(chunk.type, chunk.id, data)


async def events(
    chunks: AsyncIterator[Chunk], *, keep_alive: Seconds | None = 15
) -> AsyncGenerator[bytes]:
    """The events of a stream, to its end.

    Trimmed chunks are told as a `gap` event with the oldest id that is left, which ends the events.

    Args:
        chunks: What `Queue.stream` or `JobHandle.stream` answers; it is closed with the events.
        keep_alive: Seconds of silence after which a comment is sent, so that no proxy drops the connection.
    """
    pause = None if keep_alive is None else seconds(keep_alive, "keep_alive", low=0.001)
    pending: asyncio.Future[Chunk] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(chunks))
            # Not wait_for: a cancelled read would end the stream.
            done, _ = await asyncio.wait({pending}, timeout=pause)
            if not done:
                yield KEEP_ALIVE
                continue
            try:
                chunk = pending.result()
            except StopAsyncIteration:
                return
            except StreamGap as gap:
                yield _event("gap", "", {"type": "gap", "content": gap.first})
                return
            pending = None
            yield encode(chunk)
    finally:
        if pending is not None:
            pending.cancel()
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def last_event_id(headers: Mapping[str, str]) -> str | None:
    """The chunk that a reconnecting browser saw last, for `queue.stream(id, after=...)`; None for a new reader.

    Args:
        headers: The request's; names in any case.

    Raises:
        InvalidOption: The header is not a chunk's id: answer it with status 400.
    """
    found = next(
        (value for name, value in headers.items() if name.lower() == "last-event-id"), ""
    ).strip()
    if not found:
        return None
    if not _ID.fullmatch(found) or max(map(int, found.split("-"))) >= 2**64:
        raise InvalidOption("Last-Event-ID", found, "not the id of a chunk")
    return found


def _event(name: str, id: str, data: dict[str, Any]) -> bytes:
    lines: list[bytes] = []
    if id:  # an empty id would make the browser forget the one it has
        lines.append(b"id: " + id.encode())
    if not any(sign in name for sign in "\r\n\0"):
        lines.append(b"event: " + name.encode())
    lines.append(b"data: " + _to_json(data))
    return b"\n".join(lines) + b"\n\n"
