"""Providers without a server: answers put in front of the HTTP libraries of the SDKs (respx), and of botocore's own.

For what no server sends on request: bytes that are no text, endless streams, errors of the transport.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Self

import httpx
import respx

from glidemq_llm.testing._shapes import AnthropicShape, ResponsesShape, Shape
from glidemq_llm.testing._vendors import (
    CohereShape,
    ConverseShape,
    GeminiShape,
    MistralShape,
    OllamaShape,
)
from tests.harness.llm_clients import Api

URL = "http://mocked.test"
WORDS = ["t0 ", "t1 ", "t2 ", "t3 ", "t4 "]
TEXT = "".join(WORDS)
INPUT = 20

_SHAPES: dict[str, Shape] = {
    "openai.chat": Shape(),
    "litellm": Shape(),
    "openai.responses": ResponsesShape(),
    "anthropic.messages": AnthropicShape(),
    "gemini": GeminiShape(),
    "mistral": MistralShape(),
    "cohere": CohereShape(),
    "ollama": OllamaShape(),
    "bedrock": ConverseShape(),
}
_TYPES = {"ollama": "application/x-ndjson", "bedrock": "application/vnd.amazon.eventstream"}


class Wire:
    """How one API says things."""

    def __init__(self, api: Api, model: str) -> None:
        self.name = api.name
        self.shape = _SHAPES[api.name]
        self.type = _TYPES.get(api.name, "text/event-stream")
        self._call = SimpleNamespace(
            id="x",
            model=model,
            input=INPUT,
            cached=0,
            texts=1,
            reasoning=0,
            citation=0,
            shown=len(WORDS),
            finish="stop",
            tells_usage=True,
            tools=[],
            text=TEXT,
        )

    def token(self, text: str) -> bytes:
        """The event of a piece of text."""
        return self.shape.token(self._call, text)

    def begun(self, count: int = len(WORDS)) -> list[bytes]:
        """The events up to the `count`-th word."""
        return [*self.shape.start(self._call), *(self.token(word) for word in WORDS[:count])]

    def finish(self) -> list[bytes]:
        """The events that end an answer well."""
        return list(self.shape.finish(self._call))

    def overload(self) -> bytes:
        """The event of an error under status 200."""
        return self.shape.error_event(self._call)

    def whole(self) -> bytes:
        """An answer in one piece."""
        return json.dumps(self.shape.whole(self._call)).encode()

    def error(self, status: int) -> bytes:
        """The body of a refusal."""
        return json.dumps(self.shape.http_error(status, None, None, "no")).encode()


class Fault(StrEnum):
    """How the transport fails, in the words of each HTTP library."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    CUT = "cut"

    def error(self, library: str, *, in_body: bool) -> Exception:
        """The exception. botocore changes urllib3's before there is a body."""
        if library != "boto":
            names = {"refused": "ConnectError", "timeout": "ReadTimeout"}
            named = names.get(self, "RemoteProtocolError")
            return getattr(importlib.import_module(library), named)("incomplete chunked read")
        if in_body:
            from urllib3 import exceptions

            late = exceptions.ReadTimeoutError(None, URL, "Read timed out.")  # pyright: ignore[reportArgumentType]
            return late if self is Fault.TIMEOUT else exceptions.ProtocolError("Connection broken")
        from botocore import exceptions as own

        kinds = {"refused": own.EndpointConnectionError, "timeout": own.ReadTimeoutError}
        return kinds.get(self, own.ConnectionClosedError)(endpoint_url=URL)


class Answer:
    """One answer of a provider.

    Args:
        body: Its parts, which may be endless. A Fault among them is how the connection ends.
    """

    def __init__(
        self,
        *body: bytes | Fault,
        status: int = 200,
        type: str = "application/json",
        **headers: str,
    ) -> None:
        self.body: Iterable[bytes | Fault] = body
        self.status = status
        self.headers = {
            "content-type": type,
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }


class Mocked:
    """Answers in order to all requests that would go to URL, in whichever way an SDK makes them."""

    def __init__(self) -> None:
        self._answers: list[Answer | Fault] = []
        self._stack = ExitStack()
        self.calls = 0
        self.closed = 0

    def answer(self, *answers: Answer | Fault) -> None:
        """Say what the next calls get; a Fault: they don't get through."""
        self._answers += answers

    def watch_boto(self, client: Any) -> None:
        """Answer a client of boto3, too: it has an HTTP library of its own, and a hook in front of it."""
        client.meta.events.register("before-send.bedrock-runtime", self._to_boto)

    def __enter__(self) -> Self:
        for library in ("httpcore", "httpcore2"):
            router = self._stack.enter_context(respx.mock(using=library, assert_all_called=False))
            router.post(host="mocked.test").mock(
                side_effect=functools.partial(self._to_httpx, library)
            )
            router.route().pass_through()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _next(self, library: str) -> tuple[Answer, Iterator[bytes]]:
        self.calls += 1
        answer = self._answers.pop(0)
        if isinstance(answer, Fault):
            raise answer.error(library, in_body=False)
        return answer, _parts(answer.body, library)

    def _to_httpx(self, library: str, _request: object) -> httpx.Response:
        answer, parts = self._next(library)
        body = _Body(parts, self._note_close)
        return httpx.Response(answer.status, headers=answer.headers, stream=body)

    def _to_boto(self, request: Any, **_: object) -> Any:
        from botocore.awsrequest import AWSResponse

        answer, parts = self._next("boto")
        raw = _Raw(parts, self._note_close)
        return AWSResponse(request.url, answer.status, answer.headers, raw)

    def _note_close(self) -> None:
        self.closed += 1


def _parts(body: Iterable[bytes | Fault], library: str) -> Iterator[bytes]:
    for part in body:
        if isinstance(part, Fault):
            raise part.error(library, in_body=True)
        yield part


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, parts: Iterator[bytes], note_close: Callable[[], None]) -> None:
        self._parts = parts
        self._note_close = note_close

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            await asyncio.sleep(0)  # as a socket that is read
            yield part

    def close(self) -> None:
        self._note_close()

    async def aclose(self) -> None:
        self._note_close()


class _Raw:
    """What botocore reads of urllib3's response."""

    def __init__(self, parts: Iterator[bytes], note_close: Callable[[], None]) -> None:
        self._parts = parts
        self.close = note_close

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        return self._parts
