"""A TCP proxy between a client and a server that breaks what passes, on command. It understands commands and replies, so
that it can lose exactly the reply (or the request) that a test is about.

It runs on a thread and an event loop of its own: creating a client blocks the loop of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Self, TypeVar

from ._framing import Splitter, has_reply, is_push

HOST = "127.0.0.1"
T = TypeVar("T")
Ending = Literal["cut", "hang"]


class Rule:
    """What happens to the next requests that contain `match`. `count`: how many have been hit; wait for them with `wait`."""

    def __init__(
        self, kind: Literal["watch", "request", "reply"], match: bytes, times: int, ending: Ending
    ) -> None:
        self.kind = kind
        self.match = match
        self.left = times
        self.ending: Ending = ending
        self.count = 0
        self._news = threading.Condition()

    def wait(self, count: int = 1, timeout: float = 10) -> None:
        """Wait until that many were hit. From a test on the event loop: `await asyncio.to_thread(rule.wait)`."""
        with self._news:
            if not self._news.wait_for(lambda: self.count >= count, timeout):
                raise AssertionError(
                    f"{self.kind} {self.match!r}: {self.count} of {count} within {timeout} s"
                )

    def hit(self) -> None:
        """It happened (called by the proxy)."""
        with self._news:
            self.count += 1
            self._news.notify_all()


class Proxy:
    """Passes connections on to `port`; start it with `start()` or `with`. All methods may be called from any thread.

    Attributes:
        delay: Seconds that everything takes each way, from now on; it does not make the connection narrower.
        rate: Bytes a second that pass each way at most, from now on; None: no limit.
        refuse: Cut new connections at once.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.port = 0
        self.delay = 0.0
        self.rate: float | None = None
        self.refuse = False
        self.rules: list[Rule] = []
        self.cut_after: int | None = None
        self._loop = asyncio.new_event_loop()
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._up.set()
        self._down.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """What `connection=` takes (a plain server's)."""
        return f"valkey://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    def start(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        return self

    def close(self) -> None:
        """Cut everything and end the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def watch(self, match: bytes) -> Rule:
        """Count requests."""
        return self._add(Rule("watch", match, 1_000_000_000, "cut"))

    def lose_reply(self, match: bytes, *, times: int = 1, ending: Ending = "cut") -> Rule:
        """The server gets the request and applies it; its reply never arrives: the connection is cut in its place, or
        stays open and silent for ever ("hang")."""
        return self._add(Rule("reply", match, times, ending))

    def lose_request(self, match: bytes, *, times: int = 1, ending: Ending = "cut") -> Rule:
        """The request never arrives: the connection is cut, or swallows this and everything after it ("hang")."""
        return self._add(Rule("request", match, times, ending))

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Pass nothing on, to the server or to the client; it waits here."""
        self._do(lambda: [self._up.clear() if up else None, self._down.clear() if down else None])

    def release(self) -> None:
        """Pass on what waits, and what comes."""
        self._do(lambda: [self._up.set(), self._down.set()])

    def reset_all(self) -> None:
        """Cut all connections (RST)."""
        self._do(lambda: [link.cut() for link in list(self._links)])

    def cut_down_after(self, count: int) -> None:
        """Cut a connection in the middle of what it answers, after `count` more bytes to clients. Once."""
        self._do(lambda: setattr(self, "cut_after", count))

    def _do(self, action: Callable[[], T]) -> T:
        async def on_loop() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(5)

    def _add(self, rule: Rule) -> Rule:
        self._do(lambda: self.rules.append(rule))
        return rule

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        assert self._server is not None
        self.refuse = True  # what has been accepted, and has not begun
        self._server.close()
        for link in list(self._links):
            link.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # An accepted connection begins, and an aborted one ends, in later rounds of the loop.
        for _ in range(5):
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.refuse:
                raise ConnectionRefusedError
            up_reader, up_writer = await asyncio.open_connection(HOST, self.upstream)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        finally:
            self._tasks.discard(task)
        link = _Link(self, writer, up_writer)
        self._links.add(link)
        self._tasks.add(task)
        try:
            await link.run(reader, up_reader)
        except* (OSError, asyncio.CancelledError):
            pass  # a cut link, from either side or by us
        finally:
            link.cut()
            self._links.discard(link)
            self._tasks.discard(task)

    def rule_for(self, frame: bytes) -> Rule | None:
        """The rule that a request falls under; watching ones are counted here."""
        found: Rule | None = None
        for rule in self.rules:
            if rule.left and rule.match in frame:
                if rule.kind == "watch":
                    rule.hit()
                elif found is None:
                    found = rule
                    rule.left -= 1
        return found

    async def pass_gate(self, due_at: float, size: int, *, up: bool) -> None:
        """Wait as long as is set for a direction."""
        await asyncio.sleep(max(0.0, due_at - self._loop.time()))
        if self.rate:
            await asyncio.sleep(size / self.rate)
        await (self._up if up else self._down).wait()


class _Link:
    """One connection through the proxy."""

    def __init__(
        self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        # Of each request that is not answered yet, the rule for its reply.
        self._open: deque[Rule | None] = deque()
        self._is_silent = False

    async def run(
        self, from_client: asyncio.StreamReader, from_server: asyncio.StreamReader
    ) -> None:
        """Pass on until a side ends or the link is cut."""
        async with asyncio.TaskGroup() as group:
            for reader, up in ((from_client, True), (from_server, False)):
                waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                group.create_task(self._collect(reader, waiting))
                group.create_task(self._pass(waiting, up=up))

    async def _collect(
        self, reader: asyncio.StreamReader, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65_536):
            waiting.put_nowait((loop.time() + self._proxy.delay, data))
        waiting.put_nowait((loop.time() + self._proxy.delay, b""))

    async def _pass(self, waiting: asyncio.Queue[tuple[float, bytes]], *, up: bool) -> None:
        splitter = Splitter()
        send, writer = (
            (self._send_request, self._server) if up else (self._send_reply, self._client)
        )
        while True:
            due_at, data = await waiting.get()
            await self._proxy.pass_gate(due_at, len(data), up=up)
            if not data or not all(send(frame) for frame in splitter.feed(data)):
                self.cut()
                return
            await writer.drain()

    def cut(self) -> None:
        """Reset both sides."""
        for writer in (self._client, self._server):
            raw: Any = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def _send_request(self, frame: bytes) -> bool:
        rule = self._proxy.rule_for(frame)
        if self._is_silent:
            return True
        if rule is not None and rule.kind == "request":
            if rule.ending == "cut":
                self.cut()
            self._is_silent = True
            rule.hit()
            return rule.ending == "hang"
        if has_reply(frame):
            self._open.append(rule)
        self._server.write(frame)
        return True

    def _send_reply(self, frame: bytes) -> bool:
        rule = self._open.popleft() if not is_push(frame) and self._open else None
        if self._is_silent:
            return True
        if rule is not None:
            if rule.ending == "cut":
                self.cut()
            self._is_silent = True
            rule.hit()
            return rule.ending == "hang"
        return self._write_down(frame)

    def _write_down(self, frame: bytes) -> bool:
        left = self._proxy.cut_after
        if left is None:
            self._client.write(frame)
            return True
        self._proxy.cut_after = left - len(frame) if left > len(frame) else None
        self._client.write(frame[:left])
        if self._proxy.cut_after is None:
            self.cut()
        return self._proxy.cut_after is not None
