"""Signs of life that an SDK keeps to itself: pings, comments, parts of events. Every read of a stream's body is one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import Any


def note_reads_async(stream: object, note: Callable[[], object]) -> None:
    """Call `note` for each read of a stream's body, where its SDK lets one get at it."""
    response = _response_of(stream, "aiter_raw")
    if response is None:
        return
    read = response.aiter_raw

    async def noted(*args: Any) -> AsyncGenerator[bytes]:
        async with aclosing(read(*args)) as parts:
            async for part in parts:
                note()
                yield part

    response.aiter_raw = noted  # the other forms read this one, and may have been called by now


def note_reads(stream: object, note: Callable[[], object]) -> None:
    """See note_reads_async."""
    response = _response_of(stream, "iter_raw")
    if response is None:
        return
    read = response.iter_raw

    def noted(*args: Any) -> Generator[bytes]:
        with closing(read(*args)) as parts:
            for part in parts:
                note()
                yield part

    response.iter_raw = noted


def _response_of(stream: object, method: str) -> Any:
    """The HTTP response below a stream: openai's, anthropic's and mistralai's, LiteLLM's own or around one of these."""
    around = getattr(stream, "litellm_custom_stream_wrapper", stream)
    for holder in (stream, getattr(around, "completion_stream", None)):
        for name in ("response", "http_response"):
            response: object = getattr(holder, name, None)
            if hasattr(response, method):
                return response
    return None
