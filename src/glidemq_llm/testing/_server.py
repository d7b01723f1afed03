"""The fake provider's process: HTTP/1.1 by hand, so that every way to break it is in reach.

It prints "ready PORT", writes what it bills to a file of JSON lines, and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import sys
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from glidemq_llm._read import fields
from glidemq_llm.testing._plan import BEFORE_HEADERS, Behaviour
from glidemq_llm.testing._shapes import Shape, texts
from glidemq_llm.testing._signed import marked
from glidemq_llm.testing._tools import ToolCall
from glidemq_llm.testing._vendors import shape_of

# The event's name is for clients that skip events without one.
_MALFORMED = b'event: content_block_delta\ndata: {"id": "cut in the midd\n\n'


@dataclass(slots=True)
class Request:
    """One HTTP request."""

    path: str
    body: Any
    key: str


@dataclass(slots=True)
class Call:
    """One model call, and what is billed for it so far."""

    number: int
    model: str
    behaviour: Behaviour
    is_stream: bool
    words: list[str]
    finish: str
    tells_usage: bool
    input: int
    cached: int
    texts: int  # of the request
    tools: list[ToolCall]
    reasoning: int = 0
    citation: int = 0
    shown: int = 0
    is_billed: bool = False
    outcome: str = "complete"
    status: int = 200
    complaint: str | None = None
    is_noted: bool = False  # that it has ended

    @property
    def id(self) -> str:
        """As the vendor would name it."""
        return f"fake-{self.number}"

    @property
    def text(self) -> str:
        """What was generated so far."""
        return "".join(self.words[: self.shown])


class _Broken(Exception):
    """The connection is to end here; `True` as its argument: by a reset."""


@dataclass(slots=True)
class _Limit:
    """At most `calls` in any `seconds`."""

    calls: int
    seconds: float
    starts: deque[float] = field(default_factory=deque[float])

    def wait(self) -> float:
        """Seconds until the next call is admitted; 0 admits this one."""
        now = time.monotonic()
        while self.starts and self.starts[0] <= now - self.seconds:
            self.starts.popleft()
        if len(self.starts) < self.calls:
            self.starts.append(now)
            return 0.0
        return self.starts[0] + self.seconds - now


class ProviderServer:
    """All calls, plans and gates of one provider."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("a", buffering=1)
        self._numbers = itertools.count(1)
        self._plans: defaultdict[str, deque[Behaviour]] = defaultdict(deque)
        self._usual: dict[str, Behaviour] = {}
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._limit: _Limit | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        assert isinstance(reader, _Reader)
        try:
            while request := await _read_request(reader):
                if request.path.startswith("/control/"):
                    self._control(request)
                    await _send_json(writer, 200, {})
                elif found := shape_of(request.path, request.body):
                    shape, body = found
                    asked = Request(request.path, body, request.key)
                    try:
                        call = self._begin(asked, shape)
                    except (TypeError, ValueError, AttributeError) as error:
                        await _send_json(writer, 400, _invalid(error))
                    else:
                        await self._watched(call, shape, reader, writer)
                else:
                    await _send_json(
                        writer,
                        404,
                        {"error": {"message": f"no {request.path} here", "type": "not_found"}},
                    )
        except _Broken as broken:
            if broken.args:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller has gone
        finally:
            writer.close()

    def _control(self, request: Request) -> None:
        body = request.body
        match request.path.removeprefix("/control/"):
            case "plan":
                self._plans[body["model"]] += [
                    Behaviour.read(plain) for plain in body["behaviours"]
                ]
            case "usual":
                self._usual[body["model"]] = Behaviour.read(body["behaviour"])
            case "open":
                self._gates[body["gate"]].set()
            case "limit":
                self._limit = (
                    _Limit(body["calls"], body["seconds"]) if body["calls"] is not None else None
                )
            case unknown:
                raise ValueError(unknown)

    async def _watched(
        self, call: Call, shape: Shape, reader: _Reader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer, until the caller leaves."""
        answer = asyncio.create_task(self._answer(call, shape, writer))
        gone = asyncio.create_task(reader.gone.wait())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                call.outcome = "caller left"
                answer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answer
            if call.outcome == "caller left":
                raise _Broken
        except OSError:
            call.outcome = "caller left"
            raise
        finally:
            gone.cancel()
            self._end(call)

    def _begin(self, request: Request, shape: Shape) -> Call:
        body = request.body
        said = texts(body)
        model = str(body.get("model", ""))
        behaviour = self._choose(model, said)
        limit = (
            body.get("max_completion_tokens")
            or body.get("max_tokens")
            or body.get("max_output_tokens")
        )
        words = [] if request.path == "/v1/embeddings" else behaviour.words
        is_cut = limit is not None and limit < len(words)
        is_stream = bool(body.get("stream"))
        is_asked = bool(fields(body.get("stream_options")).get("include_usage"))
        tells_usage = not is_stream or shape.tells_unasked or is_asked
        counted = (
            behaviour.input
            if behaviour.input is not None
            else sum(len(text.split()) for text in said)
        )
        number, answered = next(self._numbers), shape.answered(body)
        call = Call(
            number=number,
            model=model,
            behaviour=behaviour,
            is_stream=is_stream,
            words=words[:limit],
            finish="length" if is_cut else behaviour.ending,
            tells_usage=behaviour.usage and tells_usage,
            input=counted,
            cached=behaviour.cached,
            texts=len(said),
            tools=[
                ToolCall.read(tool, marked(id, shape.name, model) if behaviour.signed else id)
                for n, tool in enumerate(behaviour.tools)
                for id in (f"call-{number}-{n}",)
            ],
            complaint=answered.complaint or shape.objection(body),
        )
        self._note(
            "start",
            call,
            path=request.path,
            model=model,
            tag=behaviour.tag,
            key=request.key,
            stream=is_stream,
            limit=limit,
            tool_results=[text for _, text in answered.results],
            tool_choice=body.get("tool_choice"),
        )
        return call

    def _choose(self, model: str, said: list[str]) -> Behaviour:
        asked = _fake_of(said[-1]) if said else None
        if asked is not None:
            return Behaviour.read(asked)
        for name in (model, "*"):
            if self._plans[name]:
                return self._plans[name].popleft()
        asked = _fake_of(model[model.find("{") :]) if "{" in model else None
        if asked is not None:
            return Behaviour.read(asked)
        return self._usual.get(model) or self._usual.get("*") or Behaviour()

    def _end(self, call: Call, outcome: str | None = None) -> None:
        """Note the end of a call, once; before its last words are sent, so that who has them finds it in the log."""
        if call.is_noted:
            return
        call.is_noted = True
        call.outcome = outcome or call.outcome
        billed = {
            "input": call.input if call.is_billed else 0,
            "cached": call.cached if call.is_billed else 0,
            "output": call.shown + call.reasoning + call.citation,
        }
        self._note("end", call, status=call.status, outcome=call.outcome, **billed)

    def _note(self, event: str, call: Call, **fields: object) -> None:
        line = {"event": event, "call": call.number, "at": time.monotonic(), **fields}
        self._log.write(json.dumps(line) + "\n")

    async def _answer(self, call: Call, shape: Shape, writer: asyncio.StreamWriter) -> None:
        behaviour = call.behaviour
        headers = {"x-request-id": call.id, "request-id": call.id}
        headers |= shape.headers() | dict(behaviour.headers)
        wait = self._limit.wait() if self._limit else 0.0
        if wait:
            call.status = 429
            self._end(call, "limited")
            body = shape.http_error(429, None, None, "Rate limit reached")
            # Rounded up: who waits as long as told is admitted.
            more = {"retry-after-ms": str(int(wait * 1000) + 1), "retry-after": f"{wait:.3f}"}
            return await _send_json(writer, 429, body, headers | more)
        if behaviour.status >= 400:
            call.status = behaviour.status
            body = shape.http_error(
                behaviour.status, behaviour.error_type, behaviour.error_code, behaviour.message
            )
            await asyncio.sleep(behaviour.first)
            self._end(call, "error")
            return await _send_json(writer, behaviour.status, body, headers)
        if call.complaint:
            call.status = 400
            self._end(call, "error")
            body = shape.http_error(400, None, None, call.complaint)
            return await _send_json(writer, 400, body, headers)
        if call.is_stream:
            return await self._stream(call, shape, writer, headers)
        return await self._whole(call, shape, writer, headers)

    async def _stream(
        self, call: Call, shape: Shape, writer: asyncio.StreamWriter, headers: dict[str, str]
    ) -> None:
        await self._fault(call, BEFORE_HEADERS)
        _send_head(
            writer,
            200,
            headers | {"content-type": "text/event-stream", "transfer-encoding": "chunked"},
        )
        call.is_billed = True
        for event in shape.start(call):
            await _send_chunk(writer, event)
        for number in range(len(call.words) + 1):
            fault = await self._fault(call, number)
            if fault == "malformed":
                await _send_chunk(writer, _MALFORMED)
            elif fault and fault.startswith("alive:"):
                await self._keep_alive(call, fault[6:], writer)
            elif fault in ("error", "end"):
                self._end(call, fault)
                if fault == "error":
                    await _send_chunk(writer, shape.error_event(call))
                break
            if number < len(call.words):
                await _send_chunk(writer, shape.token(call, await self._next(call)))
        else:
            self._end(call)
            for event in (*shape.after_text(call), *shape.finish(call)):
                await _send_chunk(writer, event)
        await _send_chunk(writer, b"")

    async def _whole(
        self, call: Call, shape: Shape, writer: asyncio.StreamWriter, headers: dict[str, str]
    ) -> None:
        await self._fault(call, BEFORE_HEADERS)
        call.is_billed = True
        for number in range(len(call.words) + 1):
            fault = await self._fault(call, number)
            if fault == "error":
                call.status = 529
                self._end(call, "error")
                return await _send_json(
                    writer, 529, shape.http_error(529, None, None, "Overloaded"), headers
                )
            if fault in ("malformed", "end"):
                self._end(call, fault)
                text = json.dumps(shape.whole(call)).encode()
                return await _send(writer, 200, text[: len(text) // 2], headers)
            if number < len(call.words):
                await self._next(call)
        self._end(call)
        await _send_json(writer, 200, shape.whole(call), headers)
        return None

    async def _next(self, call: Call) -> str:
        """Generate one token: from now on it is billed."""
        await asyncio.sleep(call.behaviour.pace if call.shown else call.behaviour.first)
        if not call.shown:
            call.reasoning = call.behaviour.reasoning
            call.citation = call.behaviour.citation
            self._note("first", call)
        call.shown += 1
        return call.words[call.shown - 1]

    async def _fault(self, call: Call, at: int) -> str | None:
        """Carry out what ends or holds the connection; the rest is the caller's."""
        fault = call.behaviour.faults.get(at)
        match fault:
            case "hang":
                self._note("hang", call)
                await asyncio.Event().wait()
            case "disconnect" | "reset":
                call.outcome = fault
                self._break(is_reset=fault == "reset")
            case str() if fault.startswith("gate:"):
                self._note("gate", call, gate=fault[5:])
                await self._gates[fault[5:]].wait()
            case _:
                return fault
        return None

    async def _keep_alive(self, call: Call, gate: str, writer: asyncio.StreamWriter) -> None:
        self._note("gate", call, gate=gate)
        while not self._gates[gate].is_set():
            await _send_chunk(writer, b": still here\n\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._gates[gate].wait()

    def _break(self, *, is_reset: bool) -> NoReturn:
        raise _Broken(True) if is_reset else _Broken


class _Reader(asyncio.StreamReader):
    """Tells at once when the caller is gone, without taking bytes of its next request."""

    def __init__(self) -> None:
        super().__init__(limit=1 << 26)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    path = head[0].split(" ")[1].partition("?")[0]
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(path, json.loads(body or b"{}"), headers.get("idempotency-key", ""))


def _send_head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    lines = [
        f"HTTP/1.1 {status} Told so",
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    writer.write("\r\n".join(lines).encode("latin-1"))


async def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str]
) -> None:
    _send_head(
        writer,
        status,
        {"content-type": "application/json", "content-length": str(len(body)), **headers},
    )
    writer.write(body)
    await writer.drain()


async def _send_json(
    writer: asyncio.StreamWriter, status: int, body: object, headers: dict[str, str] | None = None
) -> None:
    await _send(writer, status, json.dumps(body).encode(), headers or {})


async def _send_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


def _invalid(error: Exception) -> dict[str, Any]:
    """The answer to a request that can't be read, as OpenAI and Anthropic put it."""
    facts = {"message": f"the request is invalid: {error}", "type": "invalid_request_error"}
    return {"type": "error", "error": facts}


def _fake_of(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return fields(value).get("fake")


async def main(log: Path) -> None:
    """Serve until standard input closes."""
    loop = asyncio.get_running_loop()
    provider = ProviderServer(log)

    def protocol() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(_Reader(), provider.serve)

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    sys.stdout.write(f"ready {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
