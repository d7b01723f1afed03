"""Signs of life that an SDK keeps to itself: pings, comments, parts of events. Every read of a stream's body is one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any


def note_reads_async(stream: object, note: Callable[[], object]) -> None:
    """Call `note` for each read of a stream's body, where its SDK lets one get at it."""
    response = _response_of(stream, "aiter_bytes")
    if response is None:
        return
    read = response.aiter_bytes

    async def noted(*args: Any) -> AsyncGenerator[bytes]:
        async for part in read(*args):
            note()
            yield part

    response.aiter_bytes = noted


def note_reads(stream: object, note: Callable[[], object]) -> None:
    """See note_reads_async."""
    response = _response_of(stream, "iter_bytes")
    if response is None:
        return
    read = response.iter_bytes

    def noted(*args: Any) -> Generator[bytes]:
        for part in read(*args):
            note()
            yield part

    response.iter_bytes = noted


def _response_of(stream: object, method: str) -> Any:
    """The HTTP response below a stream: openai's, anthropic's and mistralai's, LiteLLM's around one of these."""
    for holder in (stream, getattr(stream, "completion_stream", None)):
        for name in ("response", "http_response"):
            response: object = getattr(holder, name, None)
            if hasattr(response, method):
                return response
    return None
