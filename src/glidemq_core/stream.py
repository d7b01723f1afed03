"""Reading a job's stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from ._hub import Chunk, Hub, Reader

__all__ = ["Chunk", "JobStream", "kept_text"]


class JobStream:
    """A job's chunks, live: an async iterator that ends by itself when the job has ended.

    The last chunk is of type "end"; its content is the job's state ("gone" for a job that is not known). Use it as an
    async context manager, or call `close()`, where you stop reading before the end.
    """

    def __init__(self, hub: Callable[[], Awaitable[Hub]], job_id: str, after: str) -> None:
        self._find_hub = hub
        self._hub: Hub | None = None
        self._job_id = job_id
        self._after = after
        self._reader: Reader | None = None
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
        if not reader.chunks:
            hub.resume(reader)
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
    kept: list[Chunk] = []
    for chunk in chunks:
        facts = chunk.fields or {}
        if chunk.type == "reset" and "call" in facts:
            starts = [
                i
                for i, one in enumerate(kept)
                if one.type == "start" and (one.fields or {}).get("call") == facts["call"]
            ]
            del kept[starts[-1] if starts else len(kept) :]
        elif chunk.type == "reset":
            upto = _order(str(facts.get("keep_upto", "0")))
            kept = [one for one in kept if _order(one.id) <= upto]
        elif chunk.type in (type, "start"):
            kept.append(chunk)
    return "".join(chunk.content for chunk in kept if chunk.type == type)


def _order(chunk_id: str) -> tuple[int, int]:
    ms, _, seq = chunk_id.partition("-")
    return int(ms), int(seq or 0)
