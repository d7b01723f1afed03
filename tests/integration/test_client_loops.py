"""Clients on several loops or a dead one, of threads, waiting for items, and subscribed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

from glidemq_core import _bridge, _client
from glidemq_core._client import BlockingClient, Client, Subscriber, release_client, shared_client
from glidemq_core._sync_client import SyncClient
from glidemq_core._target import parse
from glidemq_core.errors import (
    ConnectionLost,
    JobNotFound,
    LeaseLost,
)
from tests.harness.processes import Process, eventually
from tests.harness.servers import ValkeyServer

ROOT = "glidemq:{client}"


def count(client: Client, id: str, **options: Any) -> Awaitable[Any]:
    return client.call("count", ROOT, {"id": id}, **options)


class OtherLoop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_await(work), self.loop))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def close(self) -> None:
        if self._thread.is_alive():
            self.stop()
        self.loop.close()


async def _await(work: Awaitable[Any]) -> Any:
    return await work


@pytest.fixture
def other_loop():
    other = OtherLoop()
    yield other
    other.close()


class TestLoops:
    async def test_calls_from_another_loop_use_the_one_connection(
        self, server, open_client, other_loop
    ):
        client = open_client(server.url)
        await count(client, "first")
        before = server.cmd("CLIENT", "LIST").count(b"\n")

        async def many() -> list[bytes]:
            return await asyncio.gather(*(count(client, str(i)) for i in range(200)))

        assert await other_loop.start(many()) == [str(i).encode() for i in range(200)]
        assert server.cmd("CLIENT", "LIST").count(b"\n") <= before  # an earlier test's may be gone

    async def test_errors_cross_from_the_other_loop_too(self, url, open_client, other_loop):
        client = open_client(url)

        with pytest.raises(JobNotFound):
            await other_loop.start(client.call("fail", ROOT, {"text": "GONE j1"}))

    def test_client_of_a_closed_loop_serves_the_next_one(self, server, library):
        client = Client(parse(server.url), library)

        async def use(id: str) -> bytes:
            return await count(client, id)

        assert [asyncio.run(use("a")), asyncio.run(use("b"))] == [b"a", b"b"]
        asyncio.run(client.close())
        assert server.cmd("GET", f"{ROOT}:count") == b"2"

    async def test_other_loop_takes_over_when_the_owner_is_closed_in_mid_call(
        self, open_client, other_loop
    ):
        with ValkeyServer() as own:
            owner = OtherLoop()
            client = open_client(own.url)
            # Whoever asks first owns; the fixtures' loop has not called yet.
            await owner.start(count(client, "first"))
            assert _bridge.owner() is owner.loop
            own.freeze()
            call = other_loop.start(count(client, "a"))
            await eventually(lambda: client._last_period.open + client._period.open > 0)
            owner.close()
            own.thaw()

            assert await call == b"a"
            assert own.cmd("GET", f"{ROOT}:count") == b"2"
            assert own.cmd("GET", f"{ROOT}:repeats") == b"1"
            await other_loop.start(client.close())

    async def test_owner_that_does_not_run_is_named_in_the_error(
        self, url, open_client, monkeypatch
    ):
        monkeypatch.setattr(_client, "_CROSSING_MARGIN", 0.1)
        owner = OtherLoop()
        client = open_client(url)
        await owner.start(count(client, "first"))
        owner.stop()

        with pytest.raises(ConnectionLost, match="does not run"):
            await count(client, "a", give_up_after=0.1)

        owner.loop.close()

    async def test_cancelled_call_of_another_loop_is_cancelled_here(self, url, other_loop):
        blocking = BlockingClient(parse(url))
        await blocking.pop(["none"], 0.01)
        pop = other_loop.start(blocking.pop([f"{ROOT}:list"], 30))
        await eventually(lambda: blocking._glide._pending_futures)

        pop.cancel()

        await eventually(lambda: blocking._glide is None)

    async def test_users_of_one_target_share_a_client_until_the_last_gives_it_back(self, url):
        target = parse(url)
        first, second = await shared_client(target), await shared_client(parse(url))
        await release_client(first)

        assert first is second
        assert await second.command("PING") == b"PONG"

        await release_client(second)
        with pytest.raises(ConnectionLost, match="closed"):
            await second.call("source", ROOT, {})

    def test_child_of_a_fork_gets_a_connection_of_its_own(self, server, tmp_path):
        script = """
            import asyncio, os, sys
            from pathlib import Path
            from glidemq_core._client import Client
            from glidemq_core._target import parse
            from tests.harness.small_library import small_library

            client = Client(parse(sys.argv[1]), small_library(Path(sys.argv[2])))

            async def use(id):
                print(id, (await client.call("count", "glidemq:{fork}", {"id": id})).decode(), flush=True)

            async def main():
                await use("parent")
                if os.fork() == 0:
                    asyncio.events._set_running_loop(None)
                    asyncio.run(use("child"))
                    os._exit(0)
                os.wait()
                await use("again")
                await client.close()

            asyncio.run(main())
        """
        with Process(script, server.url, tmp_path) as process:
            assert process.wait() == 0
            assert process.lines == ["parent parent", "child child", "again again"]


class TestBlockingPops:
    async def test_pop_waits_for_an_item_of_any_of_the_lists(self, server):
        blocking = BlockingClient(parse(server.url))
        pop = asyncio.ensure_future(blocking.pop(["{a}1", "{a}2"], 10))
        await eventually(lambda: b"cmd=blpop" in server.cmd("CLIENT", "LIST"))
        server.cmd("RPUSH", "{a}2", "x")

        assert await pop == ("{a}2", b"x")
        await blocking.close()

    async def test_pop_ends_empty_after_its_time(self, url):
        blocking = BlockingClient(parse(url))

        assert await blocking.pop(["a"], 0.05) is None
        await blocking.close()

    async def test_cancelled_pop_swallows_nothing(self, server):
        blocking = BlockingClient(parse(server.url))
        pop = asyncio.ensure_future(blocking.pop(["a"], 10))
        await eventually(lambda: b"cmd=blpop" in server.cmd("CLIENT", "LIST"))
        pop.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pop
        await eventually(lambda: b"cmd=blpop" not in server.cmd("CLIENT", "LIST"))
        server.cmd("RPUSH", "a", "x")

        assert await blocking.pop(["a"], 1) == ("a", b"x")
        await blocking.close()

    async def test_pop_on_a_broken_connection_fails_and_the_next_one_works(self, proxy, server):
        blocking = BlockingClient(parse(proxy.url))
        pop = asyncio.ensure_future(blocking.pop(["a"], 10))
        await eventually(lambda: b"cmd=blpop" in server.cmd("CLIENT", "LIST"))
        proxy.reset_all()
        with pytest.raises(ConnectionLost):
            await pop
        server.cmd("RPUSH", "a", "x")

        assert await blocking.pop(["a"], 1) == ("a", b"x")
        await blocking.close()


class TestSyncClient:
    def test_call_is_answered_and_errors_arrive_typed(self, server, library):
        server.cmd("FUNCTION", "LOAD", "REPLACE", library.text)
        client = SyncClient(parse(server.url), timeout=1, library=library)

        assert client.call("count", ROOT, {"id": "a"}) == b"a"
        with pytest.raises(LeaseLost):
            client.call("fail", ROOT, {"text": "STALE j1"})
        client.close()

    def test_lost_reply_is_asked_for_again(self, proxy, server, library):
        server.cmd("FUNCTION", "LOAD", "REPLACE", library.text)
        client = SyncClient(parse(proxy.url), timeout=1, library=library)
        client.call("count", ROOT, {"id": "first"})
        proxy.lose_reply(b"count")

        assert client.call("count", ROOT, {"id": "a"}) == b"a"
        client.close()

    def test_server_that_is_not_there_ends_in_time(self, library, quick_timeouts):
        client = SyncClient(parse("valkey://127.0.0.1:1"), timeout=0.2, library=library)

        with pytest.raises(ConnectionLost):
            client.call("count", ROOT, {"id": "a"}, give_up_after=0.1)
        client.close()


class TestSubscriptions:
    def publish(self, server: ValkeyServer, channel: str, message: str) -> int:
        return server.cmd("SPUBLISH" if server.is_cluster else "PUBLISH", channel, message)

    async def test_messages_reach_the_callback(self, any_server):
        subscriber, heard = Subscriber(parse(any_server.url)), asyncio.Queue()
        await subscriber.add("news:a", lambda *message: heard.put_nowait(message))
        await subscriber.add("news:b", lambda *message: heard.put_nowait(message))

        assert self.publish(any_server, "news:a", "1") == 1
        assert self.publish(any_server, "news:b", "2") == 1

        both = [await heard.get(), await heard.get()]
        assert sorted(both) == [("news:a", b"1"), ("news:b", b"2")]
        await subscriber.close()

    async def test_removed_callback_hears_nothing_and_its_neighbour_does(self, any_server):
        subscriber, heard = Subscriber(parse(any_server.url)), asyncio.Queue()
        gone: list[object] = []
        await subscriber.add("news", callback := lambda *message: gone.append(message))
        await subscriber.add("news", lambda *message: heard.put_nowait(message))
        await subscriber.remove("news", callback)

        self.publish(any_server, "news", "1")

        assert await heard.get() == ("news", b"1")
        assert gone == []
        await subscriber.close()

    async def test_callback_of_another_loop_is_called_there(self, server, other_loop):
        subscriber = Subscriber(parse(server.url))
        await subscriber.add("other", lambda *_: None)  # so the fixtures' loop owns it
        heard: list[object] = []

        def callback(*message: object) -> None:
            heard.append((asyncio.get_running_loop(), *message))

        await other_loop.start(subscriber.add("news", callback))
        self.publish(server, "news", "1")

        await eventually(lambda: heard == [(other_loop.loop, "news", b"1")])
        await subscriber.close()

    @pytest.mark.faults
    async def test_subscription_comes_back_after_a_cut(self, proxy, server, caplog):
        caplog.set_level(logging.ERROR)
        subscriber, heard = Subscriber(parse(proxy.url)), asyncio.Queue()
        await subscriber.add("news", lambda *message: heard.put_nowait(message))

        proxy.reset_all()
        await eventually(lambda: self.publish(server, "news", "1") == 1, timeout=10)

        assert await heard.get() == ("news", b"1")
        await subscriber.close()
