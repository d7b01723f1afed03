"""Reading a job's stream."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from ._chunk import Chunk
from ._hub import Hub, Reader

__all__ = ["Chunk", "JobStream", "kept_text"]


class JobStream:
    """A job's chunks, live: an async iterator that ends by itself when the job has ended.

    The last chunk is of type "end"; its content is the job's state ("gone" for a job that is not known). Use it as an
    async context manager, or call `close()`, where you stop reading before the end.

    With `latest`, what has been superseded before it was delivered is left out: a late reader does not see the text of
    attempts that failed.
    """

    def __init__(
        self, hub: Callable[[], Awaitable[Hub]], job_id: str, after: str, *, latest: bool = False
    ) -> None:
        self._find_hub = hub
        self._hub: Hub | None = None
        self._job_id = job_id
        self._after = after
        self._latest = latest
        self._reader: Reader | None = None
        self._has_delivered = False
        self._is_done = False

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk.

        Raises:
            StreamGap: What followed has been trimmed; read again from `error.first` to go on.
        """
        if self._is_done:
            raise StopAsyncIteration
        hub, reader = await self._open()
        try:
            chunk = await reader.next()
        except BaseException:
            self.close()
            raise
        if chunk is None:
            self.close()
            raise StopAsyncIteration
        if self._latest and reader.chunks:
            reader.chunks.appendleft(chunk)
            reader.chunks = deque(standing(reader.chunks, keep_resets=self._has_delivered))
            chunk = reader.chunks.popleft()
        if not reader.chunks:
            hub.resume(reader)
        self._has_delivered = True
        if chunk.type == "end":
            self.close()
        return chunk

    def close(self) -> None:
        """Stop reading."""
        self._is_done = True
        self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._leave()

    async def _open(self) -> tuple[Hub, Reader]:
        if self._hub is None or self._reader is None:
            self._hub = await self._find_hub()
            self._reader = await self._hub.open(self._job_id, self._after)
        return self._hub, self._reader

    def _leave(self) -> None:
        if self._hub is not None and self._reader is not None:
            self._hub.leave(self._reader)


def kept_text(chunks: Iterable[Chunk], type: str = "content") -> str:
    """The text that stands after all resets: what a reader should show. Equals the result's text."""
    return "".join(chunk.content for chunk in standing(chunks) if chunk.type == type)


def standing(chunks: Iterable[Chunk], *, keep_resets: bool = False) -> list[Chunk]:
    """The chunks that stand after all resets among them, in order; the resets themselves only with `keep_resets`."""
    kept: list[Chunk] = []
    for chunk in chunks:
        if chunk.type != "reset":
            kept.append(chunk)
            continue
        kept = _before(kept, chunk)
        if keep_resets:
            kept.append(chunk)
    return kept


def _before(kept: list[Chunk], reset: Chunk) -> list[Chunk]:
    """What a reset leaves: all up to a chunk, or all but what one model call has written."""
    facts = reset.fields or {}
    if "call" in facts:
        return _without(kept, facts["call"])
    upto = _order(str(facts.get("keep_upto", "0")))
    return [one for one in kept if _order(one.id) <= upto]


def _without(kept: list[Chunk], call: object) -> list[Chunk]:
    """All but what a model call has written since it (last) started. A chunk is of the call that it names, else of the
    one whose `start` came last.
    """
    starts = [i for i, one in enumerate(kept) if _is_start(one, call)]
    if not starts:
        return kept
    left, latest = kept[: starts[-1]], call
    for chunk in kept[starts[-1] + 1 :]:
        named = (chunk.fields or {}).get("call", latest)
        if chunk.type == "start":
            latest = named
        if named != call:
            left.append(chunk)
    return left


def _is_start(chunk: Chunk, call: object) -> bool:
    return chunk.type == "start" and (chunk.fields or {}).get("call") == call


def _order(chunk_id: str) -> tuple[int, int]:
    ms, _, seq = chunk_id.partition("-")
    return int(ms), int(seq or 0)
